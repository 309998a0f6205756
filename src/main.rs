//! `tokengrid`: encodes images into token caches once, and trains autoregressive image models from them.
//!
//! This package is only the command line: one module per command ([`commands`]) checks the arguments ([`args`]) and calls the
//! libraries. Results go to stdout, progress and logs to stderr. Commands that need libtorch are in `tokengrid-torch`
//! (`tokengrid_torch.rs`), which this program executes in its place for such a command.

// First, since its macros replace the standard ones in every module that follows.
#[macro_use]
mod output;

include!("program.rs");

#[path = "without_torch.rs"]
mod torch;
