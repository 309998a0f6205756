//! The inspector: a token cache in a browser, served by the program itself.
//!
//! A small HTTP server for one cache, on the loopback interface unless another is chosen. It answers in JSON and PNG; the page
//! that shows them is part of the program. Nothing is fetched from elsewhere. It knows no tensors: its caller passes
//! a [`Decode`] if tokens are to become pictures.
//!
//! | module | what it is for |
//! |---|---|
//! | `server` | sockets, HTTP, how many are served at a time |
//! | `names` | who may ask: the defence against other sites' pages |
//! | `connections` | a bound on open connections that no client can exhaust |
//! | `files` | a bound on lists that are sent as files |
//! | `query` | paths and parameters, checked |
//! | `api` | what is answered, one module per page |
//! | `reply`, `body`, `csv`, `text` | answers, and what strangers' texts become in them |
//! | `assets` | the page itself |
//! | `state` | what requests share |
//! | `log` | what is logged, without repetition |
//! | `shards`, `search`, `row_set`, `remembered` | files under the map, damaged row groups; filters, selections, what was found last |
//! | `beside` | the second cache |
//! | `background` | opening, counting, verifying: work with progress |
//! | `pictures` | decoding on one thread, the last pictures, the source's images |
//!
//! ```no_run
//! use std::sync::atomic::AtomicBool;
//! use tokengrid_view::{Server, ViewConfig};
//!
//! # fn main() -> Result<(), tokengrid_view::ViewError> {
//! let server = Server::bind(ViewConfig { port: 0, ..ViewConfig::new("imagenet-tokens".into()) })?;
//! println!("http://{}", server.address());
//! server.run(&AtomicBool::new(false));
//! # Ok(()) }
//! ```

mod api;
mod assets;
mod background;
mod beside;
mod body;
mod config;
mod connections;
mod csv;
mod error;
mod files;
mod lock;
mod log;
mod names;
mod pictures;
mod query;
mod remembered;
mod reply;
mod row_set;
mod search;
mod server;
mod shards;
mod state;
mod text;

pub use config::{Beside, Decoder, NamedSource, OpenSource, ViewConfig};
pub use error::ViewError;
pub use pictures::{Decode, Picture};
pub use server::Server;
