//! Which exception an error becomes, and in which words. The classes are those of `tokengrid/_errors.py`.

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

/// Flags of the command that texts name, and what they are called in Python.
const FLAGS: [(&str, &str); 6] = [
    ("--overwrite", "overwrite=True"),
    ("--single-writer", "single_writer=True"),
    ("--rank", "rank"),
    ("--world-size", "world_size"),
    ("--stage-size", "limit_bytes of tokengrid.stage_in"),
    ("--stage-dir", "tokengrid.stage_in"),
];

/// A text of the command for those who did not type one.
fn in_python(text: &str) -> String {
    let of_flag = |word: &str| {
        let flag = word.trim_start_matches('(').trim_end_matches([',', ';', '.', ')']);
        let (_, python) = FLAGS.iter().find(|(known, _)| *known == flag)?;
        Some(word.replace(flag, python))
    };
    let words: Vec<String> = text.split(' ').map(|word| of_flag(word).unwrap_or_else(|| word.to_owned())).collect();
    words.join(" ").replace("the same command again", "the same again").replace("run the command again", "try again")
}

/// The exception of an error: its text is the one that the command prints, causes included, with names of Python.
pub(crate) fn raise(py: Python<'_>, error: &CacheError) -> PyErr {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    of_class(py, class_of(error), &in_python(&text))
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
