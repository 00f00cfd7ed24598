//! The binary. Everything is in the library, where tests can reach it.

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    // The allocator asks for huge pages, and a connection's buffers, mostly empty, then are resident in full: a third of
    // what the process holds. Where the kernel has none there is nothing to switch off.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    saga::cli::main()
}
