//! `cache ...`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `cache`.
#[derive(Debug, Args)]
pub struct CacheArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: CacheCommand,
}

/// `cache ...`.
#[derive(Debug, Subcommand)]
pub enum CacheCommand {
    /// What is in a cache: rows, sizes, tokenizer, recipe, shards.
    Info {
        /// The cache's folder.
        dir: PathBuf,
    },
    /// Check every checksum and every count; exit status 1 names what is damaged.
    Verify {
        /// The cache's folder.
        dir: PathBuf,
    },
    /// One row: label, key, view, crop, tokens.
    Show {
        /// The cache's folder.
        dir: PathBuf,
        /// The row, counted from 0.
        #[arg(long, default_value_t = 0, value_name = "ROW")]
        index: usize,
    },
}

/// How a cache's files are read.
#[derive(Debug, Clone, Copy, Args)]
pub struct AccessArgs {
    /// Read the whole cache into the page cache at once: for one that fits in memory.
    #[arg(long)]
    pub preload: bool,
    /// Copy the files into memory instead of mapping them: for files that something may truncate while they are read.
    #[arg(long, conflicts_with = "preload")]
    pub no_mmap: bool,
}

impl AccessArgs {
    /// What the library calls it.
    pub fn access(self) -> tokengrid_cache::Access {
        match self {
            AccessArgs { no_mmap: true, .. } => tokengrid_cache::Access::Copy,
            AccessArgs { preload: true, .. } => tokengrid_cache::Access::Preload,
            _ => tokengrid_cache::Access::Map,
        }
    }
}
