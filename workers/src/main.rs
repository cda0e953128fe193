//! The binary `snapshots`. Everything is in the library, so that tests and this file share it.

/// The system's allocator keeps freed buffers of several megabytes in an arena per thread; this one gives them back, which
/// keeps the memory of a long run flat.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    workers::cli::main()
}
