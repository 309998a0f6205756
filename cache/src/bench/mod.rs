//! How fast is it here.

pub(crate) mod clock;
pub(crate) mod loader;
pub(crate) mod synthetic;
