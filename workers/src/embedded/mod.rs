//! Servers for people who have none: a private PostgreSQL and an in-process S3 in one data directory.
//!
//! Nothing here is used when `DATABASE_URL` and `S3_*` name real ones, and nothing else of the service knows the
//! difference: it gets a URL and credentials either way.
pub mod account;
mod cluster;
pub mod data_dir;
pub mod discover;
pub mod lock;
pub mod postgres;
mod postgres_error;
pub mod s3;
mod watchdog;
