//! An S3 server inside our process for people who have no bucket.
//!
//! The service talks to it over HTTP with credentials, as to any other S3: there is one storage path. Invariants:
//! it listens on loopback only; conditional writes are atomic; a write that was answered survives a crash (of the
//! machine too, unless ephemeral), and one that was not leaves nothing under its key; a part is no write until its upload is completed.
mod ahead;
mod commit;
mod identity;
mod layout;
mod multipart;
mod objects;
mod server;
mod uploads;

pub use server::{EmbeddedS3, EmbeddedS3Error};
