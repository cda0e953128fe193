//! Rebuilds the crate when a migration is added: the macro that embeds them does not notice by itself.
#![expect(clippy::print_stdout, reason = "cargo reads a build script's instructions there")]

fn main() {
    println!("cargo::rerun-if-changed=../../migrations/chain");
}
