//! The process: its servers, its roles and its command line.
pub mod embedded;
