//! All integration tests, one behaviour a file, against a real Postgres and a real S3 API.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on panics, and says when it is skipped")]

mod api_keys;
mod api_objects;
mod api_observer;
mod api_problems;
mod archive_restore;
mod chain_decode;
mod chain_genuine;
mod chain_ingest;
mod cli_bad_servers;
mod cli_bucket_gone;
mod cli_chain;
mod cli_client;
mod cli_disk_full;
mod cli_download;
mod cli_stop;
mod demo_whole;
mod embedded_child;
mod embedded_postgres;
mod embedded_s3;
mod engine_attempts;
mod engine_faults;
mod engine_limits;
mod engine_once;
mod engine_operations;
mod engine_retention;
mod engine_runs;
mod engine_schedules;
mod engine_support;
mod house_layout;
mod service_logs;
mod service_roles;
mod service_schedules;
mod signing;
mod snapshot_bad_input;
mod snapshot_crash;
mod snapshot_genuine;
mod snapshot_incremental;
mod snapshot_publish;
mod snapshot_restore;
mod snapshot_scrub;
#[path = "../support/mod.rs"]
mod support;
mod synthetic_load;
