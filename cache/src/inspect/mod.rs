//! Looking into a cache: what its manifest says, figures over its tokens, rows, and two caches side by side.
//!
//! | module | what it finds |
//! |---|---|
//! | [`info`] | what the manifest says |
//! | [`class_rows`] | the rows of a class, read together |
//! | [`pass`], [`tally`] | how often each code occurs, in all and by class; hashes and bands of every grid |
//! | [`figures`] | what follows from the counts: balance and correlation of the bits, entropies |
//! | [`duplicates`] | grids that occur more than once |
//! | [`near`] | grids that are nearly another's |
//! | [`conflicts`] | labels that contradict the images' names |
//! | [`inspection`], [`stats`] | all of these together |
//! | [`kept`] | where files that are computed from a cache are kept |
//! | [`store`] | the file that keeps all this beside the cache |
//! | [`find`], [`images_by_key`] | rows by a part of their key; images by their keys |
//! | [`codes`] | rows by a code |
//! | [`class_names`] | what classes are called |
//! | [`diff`], [`matches`], [`diff_rows`], [`differences`] | two caches, row by row |

pub(crate) mod class_names;
pub(crate) mod class_rows;
pub(crate) mod classes;
pub(crate) mod codes;
pub(crate) mod conflicts;
pub(crate) mod diff;
pub(crate) mod diff_rows;
pub(crate) mod differences;
pub(crate) mod duplicates;
pub(crate) mod figures;
pub(crate) mod find;
pub(crate) mod images_by_key;
pub(crate) mod info;
pub(crate) mod inspection;
pub(crate) mod kept;
pub(crate) mod matches;
pub(crate) mod near;
pub(crate) mod pass;
pub(crate) mod stats;
pub(crate) mod store;
pub(crate) mod tally;
