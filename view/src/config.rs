//! What is shown, and where.

use std::path::PathBuf;

use tokengrid_ingest::Source;

use crate::pictures::Decode;

/// Opens a source, which may take long; the error is a text for people.
pub type OpenSource = Box<dyn FnOnce() -> Result<Source, String> + Send>;

/// What to serve.
pub struct ViewConfig {
    /// The cache's folder.
    pub dir: PathBuf,
    /// The address to listen at: `127.0.0.1` lets nobody in but this machine.
    pub host: String,
    /// The port; 0 takes any that is free.
    pub port: u16,
    /// The images that the cache was made of.
    pub source: Option<OpenSource>,
    /// A decoder for the cache's tokens, and its name.
    pub decoder: Option<(String, Box<dyn Decode>)>,
    /// Where statistics are kept when the cache's folder cannot be written to.
    pub inspection_folder: Option<PathBuf>,
    /// Threads for the statistics [default: one a core].
    pub threads: Option<usize>,
}

impl ViewConfig {
    /// A cache alone, at `127.0.0.1:8080`.
    pub fn new(dir: PathBuf) -> ViewConfig {
        ViewConfig {
            dir,
            host: "127.0.0.1".into(),
            port: 8080,
            source: None,
            decoder: None,
            inspection_folder: None,
            threads: None,
        }
    }
}
