//! The inspector: a token cache in a browser, served by the program itself.
//!
//! A small HTTP server for one cache, on the loopback interface unless told otherwise. It answers in JSON and PNG; the page
//! that shows them is part of the program. Nothing is fetched from elsewhere. It knows no tensors: whoever starts it brings
//! a [`Decode`] if tokens are to become pictures.
//!
//! | module | what it is for |
//! |---|---|
//! | `server` | sockets, HTTP, who may ask |
//! | `query` | paths and parameters, checked |
//! | `api` | what is answered, one module a page |
//! | `assets` | the page itself |
//! | `state` | what requests share |
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
mod config;
mod error;
mod pictures;
mod query;
mod reply;
mod server;
mod state;

pub use config::{OpenSource, ViewConfig};
pub use error::ViewError;
pub use pictures::{Decode, Picture};
pub use server::Server;
