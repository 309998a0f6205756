//! What is shown, and where.

use crate::pictures::Decode;
use std::path::PathBuf;
use tokengrid_cache::ClassNames;
use tokengrid_ingest::Source;

/// A source of a cache's images.
#[derive(Debug)]
pub struct NamedSource {
    /// The split that its images are of; empty for a cache without splits.
    pub split: String,
    /// The images.
    pub source: Source,
}

/// Opens the sources of a cache, in the order of its images, which may take long; the error is a text for people.
pub type OpenSource = Box<dyn FnOnce() -> Result<Vec<NamedSource>, String> + Send>;

/// What turns the cache's tokens into pictures.
pub struct Decoder {
    /// Its name, for people.
    pub name: String,
    /// Identifies its weights, in hexadecimal digits: pictures of other weights are other pictures, which a browser must not
    /// take for each other.
    pub fingerprint: String,
    /// The decoder itself.
    pub decode: Box<dyn Decode>,
}

/// A second cache, of the same images.
pub struct Beside {
    /// Its folder.
    pub dir: PathBuf,
    /// A decoder for its tokens.
    pub decoder: Option<Decoder>,
}

/// What to serve.
pub struct ViewConfig {
    /// The cache's folder.
    pub dir: PathBuf,
    /// The address to listen at: `127.0.0.1` accepts connections from this machine only.
    pub host: String,
    /// The port; 0 takes any that is free.
    pub port: u16,
    /// The path below which a reverse proxy shows the page, where the proxy leaves it in the requests: `/tokens`. Proxies that
    /// take their own part of the path away need none: the page's links are relative.
    pub prefix: String,
    /// Further names to answer under: a reverse proxy's.
    pub allowed_hosts: Vec<String>,
    /// The images that the cache was made of: one source, one for each split, or those of all parts of a merged cache.
    pub source: Option<OpenSource>,
    /// A decoder for the cache's tokens.
    pub decoder: Option<Decoder>,
    /// Where statistics are kept when the cache's folder cannot be written to.
    pub inspection_folder: Option<PathBuf>,
    /// Threads for the statistics and for searches [default: one per core].
    pub threads: Option<usize>,
    /// Another cache to show beside it.
    pub beside: Option<Beside>,
    /// Readable names of the classes [default: those that are kept beside the cache].
    pub class_names: Option<ClassNames>,
    /// The folder below which the page may write caches of selections. Without one it writes nothing.
    pub export_dir: Option<PathBuf>,
}

impl ViewConfig {
    /// A cache alone, at `127.0.0.1:8080`.
    pub fn new(dir: PathBuf) -> ViewConfig {
        ViewConfig {
            dir,
            host: "127.0.0.1".into(),
            port: 8080,
            prefix: String::new(),
            allowed_hosts: Vec::new(),
            source: None,
            decoder: None,
            inspection_folder: None,
            threads: None,
            beside: None,
            class_names: None,
            export_dir: None,
        }
    }
}
