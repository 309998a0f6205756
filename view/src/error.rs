//! Why the inspector cannot be served.

use std::io;
use std::path::PathBuf;
use tokengrid_cache::CacheError;

/// An error that ends the program; a failure of a single request is answered to its client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // The texts are the documentation; fields are named after what they hold.
pub enum ViewError {
    #[error(
        "port {port} of {host} is taken by another program: give another one with --port, or --port 0 for any that is free"
    )]
    PortTaken { host: String, port: u16 },

    #[error("port {port} of {host} is only for the system's administrator: give one from 1024 on with --port")]
    PortForbidden { host: String, port: u16 },

    #[error(
        "{host} is not an address of this machine: --host expects 127.0.0.1, localhost, 0.0.0.0 (all networks) or such"
    )]
    NoSuchHost { host: String, source: io::Error },

    #[error("the prefix {prefix:?} is not a path: --prefix expects one such as /tokens, without ?, # and blanks")]
    Prefix { prefix: String },

    #[error("cannot serve on {host}:{port}")]
    Serve { host: String, port: u16, source: io::Error },

    #[error("cannot open {}", path.display())]
    Cache { path: PathBuf, source: CacheError },
}
