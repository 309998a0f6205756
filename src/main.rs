//! `tokengrid`: images to token grids, once; autoregressive image models from the cache.
//!
//! This package is the command line only: what was typed ([`args`]) is checked and handed to the libraries by one module a
//! command ([`commands`]). Answers go to stdout, progress and logs to stderr. What needs libtorch is in `tokengrid-torch`
//! (`tokengrid_torch.rs`), which this program becomes when such a command was typed.

// First, since its macros take the place of the standard ones in every module that follows.
#[macro_use]
mod output;

include!("program.rs");

#[path = "without_torch.rs"]
mod torch;
