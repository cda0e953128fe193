//! Gives each test its own database and bucket.
