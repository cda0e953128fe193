//! Rebuilds the crate when a migration is added: `sqlx::migrate!` alone only notices changes to known files.
fn main() {
    println!("cargo:rerun-if-changed=../../migrations/control");
}
