//! `tokengrid._tokengrid`: the part of the Python package that is compiled.
//!
//! The package's own modules (`python/tokengrid/*.py`) have the names, defaults and documentation that users see; what is
//! here takes arrays of known types and shapes, checks them, releases the interpreter's lock and works.
//!
//! | to | see |
//! |---|---|
//! | read rows | `cache`, `rows` |
//! | take batches in shuffled order | `loader` |
//! | write a cache | `writer`, `job` |
//! | report what went wrong | `errors` |
//! | stop long work at Ctrl-C | `interrupt` |

mod cache;
mod errors;
mod interrupt;
mod job;
mod loader;
mod rows;
mod writer;

use pyo3::prelude::*;

/// The compiled part of the package.
#[pymodule]
fn _tokengrid(module: &Bound<'_, PyModule>) -> PyResult<()> {
    interrupt::install();
    // A read of a shard that another program has truncated becomes an exception instead of the end of the process.
    tokengrid_cache::handle_lost_pages(tokengrid_cache::LostPages::Zeros);
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("FORMAT_VERSION", tokengrid_cache::FORMAT_VERSION)?;
    module.add_class::<cache::Cache>()?;
    module.add_class::<loader::Loader>()?;
    module.add_class::<writer::Writer>()?;
    module.add_function(wrap_pyfunction!(cache::stage_in, module)?)?;
    Ok(())
}
