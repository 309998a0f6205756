//! How the bytes of a shard are read.

/// How the shards' bytes are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Map the files: nothing is read before it is used, and the operating system keeps what is used.
    #[default]
    Map,
    /// Map the files and advise the operating system of reads in random order (`madvise(MADV_RANDOM)`), so that
    /// a read loads only its own pages: for a cache that is larger than memory.
    MapRandom,
    /// Map the files and read all of them at once (`MAP_POPULATE`): for a cache that fits in memory, so that no read
    /// waits for the disk later.
    Preload,
    /// Read the files into memory: immune to a file that is truncated while it is in use.
    Copy,
}
