//! The binary `snapshots`. Everything is in the library, so that tests and this file share it.

fn main() -> std::process::ExitCode {
    workers::cli::main()
}
