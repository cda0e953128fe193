//! The process: its servers, its roles and its command line.

pub mod cli;
pub mod config;
mod disk;
pub mod embedded;
pub mod exit;
mod exposition;
pub mod full_profile;
mod logs;
pub mod output;
mod receivers;
pub mod service;
pub mod signing;
mod staging;
mod traces;
