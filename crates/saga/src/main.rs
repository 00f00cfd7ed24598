//! The binary. Everything is in the library, where tests can reach it.

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    // mimalloc asks for huge pages, and a connection's buffers, mostly empty, then are resident in full (bench/README.md).
    // Where the kernel has none, or does not let us, nothing else is different.
    #[cfg(all(target_os = "linux", feature = "mimalloc"))]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    saga::cli::main()
}
