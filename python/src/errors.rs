//! Which exception an error becomes. The classes are those of `tokengrid/_errors.py`.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use std::error::Error;
use tokengrid_cache::CacheError;

/// The name of the class of an error.
fn class_of(error: &CacheError) -> &'static str {
    use CacheError as E;
    match error {
        E::NotACache { .. } => "NotACacheError",
        E::Unfinished { .. } => "UnfinishedCacheError",
        E::NewerVersion { .. } => "NewerVersionError",
        E::ManifestSyntax { .. }
        | E::ManifestChecksum { .. }
        | E::ManifestField { .. }
        | E::MissingShard { .. }
        | E::ShardSize { .. }
        | E::Replaced { .. }
        | E::FooterChecksum { .. }
        | E::FooterSyntax { .. }
        | E::FooterFrame { .. }
        | E::ShardMetadata { .. }
        | E::ForeignShard { .. }
        | E::ColumnType { .. }
        | E::GroupLayout { .. }
        | E::PageHeader { .. }
        | E::ColumnChecksum { .. }
        | E::ColumnDecode { .. }
        | E::ColumnValue { .. }
        | E::ContentHash { .. }
        | E::ShardGap { .. } => "DamagedCacheError",
        E::JobDiffers { .. } | E::InputsDiffer { .. } | E::Requirement { .. } | E::PublishedByAnother { .. } => {
            "CacheMismatchError"
        }
        E::InvalidGrid { .. }
        | E::InvalidJob { .. }
        | E::InvalidRow { .. }
        | E::InvalidLoader { .. }
        | E::ImageOrder { .. }
        | E::IncompleteRank { .. }
        | E::FolderNotEmpty { .. }
        | E::Empty { .. } => "CacheValueError",
        E::RowOutOfRange { .. } => "RowIndexError",
        E::Locked { .. } | E::Leased { .. } | E::LeaseLost { .. } => "CacheInUseError",
        E::Io { .. } | E::DiskFull { .. } | E::ReadOnly { .. } | E::Store(_) => "CacheIOError",
        _ => "CacheError",
    }
}

/// The exception of an error: its text is the one that the command prints, causes included.
pub(crate) fn raise(py: Python<'_>, error: &CacheError) -> PyErr {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    of_class(py, class_of(error), &text)
}

/// An exception of a class of `tokengrid._errors`.
pub(crate) fn of_class(py: Python<'_>, class: &str, text: &str) -> PyErr {
    let exception = py.import("tokengrid._errors").and_then(|module| module.getattr(class)?.call1((text,)));
    match exception {
        Ok(exception) => PyErr::from_value(exception),
        // Only where the package is not whole.
        Err(_) => PyRuntimeError::new_err(text.to_owned()),
    }
}
