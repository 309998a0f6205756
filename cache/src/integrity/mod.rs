//! Is a cache what it should be, and how is it made so again.
//!
//! | module | question |
//! |---|---|
//! | [`verify`] | is every byte what was written? |
//! | [`check`] | do the rows equal the tokenizer's output for the images? |
//! | [`repair`] | how does damage become those bytes again? |

pub(crate) mod check;
pub(crate) mod repair;
pub(crate) mod verify;
