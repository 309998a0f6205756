//! Files of any content: atomic writes, bounded reads, locks, listings.

pub(crate) mod atomic;
pub(crate) mod disk;
pub(crate) mod lock;
pub(crate) mod npy;
pub(crate) mod small;
pub(crate) mod system_names;
pub(crate) mod temporary;
pub(crate) mod token_lists;
pub(crate) mod token_samples;
