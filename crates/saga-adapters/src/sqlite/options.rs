//! How a file is opened. The defaults are for seven files in one process of less than 150 MiB.

/// Whether a job's caller waits for the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// On disk before the answer (`synchronous=FULL`), with all that was committed before. A job that changes nothing
    /// syncs nothing.
    Durable,
    /// In the log before the answer; a power loss may take a suffix of such jobs, never a part of one
    /// (`synchronous=NORMAL`). For what can be derived again.
    Derivable,
}

/// Sizes and limits of one file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Reader threads, at least 1. Reads are short; two let one long listing pass.
    pub readers: usize,
    /// Jobs that may wait for the writer before `write` itself waits.
    pub queue: usize,
    /// Jobs in one transaction: bounds how long the first one waits for the last.
    pub max_batch: usize,
    /// The writer's page cache in KiB: the hot pages of a shop (right-most leaves, inner pages) fit.
    pub writer_cache_kib: u32,
    /// Each reader's page cache in KiB; behind it stands the kernel's.
    pub reader_cache_kib: u32,
    /// The log is copied back into the file when it holds this many pages of 4 KiB. More: rarer pauses, and hot pages
    /// are copied once instead of many times; less: faster reads and a shorter recovery.
    pub checkpoint_pages: u32,
    /// Files up to this many bytes are checked page by page when opened; larger ones only where SQLite looks anyway
    /// (`saga check` reads everything).
    pub check_up_to_bytes: u64,
    /// The file may not grow over this many pages: the disk-full test's disk.
    pub max_pages: Option<u32>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            readers: 2,
            queue: 1024,
            max_batch: 256,
            writer_cache_kib: 4096,
            reader_cache_kib: 512,
            checkpoint_pages: 4000,
            check_up_to_bytes: 32 << 20,
            max_pages: None,
        }
    }
}
