//! `tokengrid-torch`: the same program with the commands that compute with libtorch. `tokengrid` starts it.

// First, since its macros replace the standard ones in every module that follows.
#[macro_use]
mod output;

include!("program.rs");

mod ranks;
mod torch;
