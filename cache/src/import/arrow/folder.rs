//! Which files a saved data set consists of.

use crate::error::CacheError;
use crate::files::small::{list_names, read_at_most};
use crate::import::error::import_error;
use serde_json::Value;
use std::path::{Path, PathBuf};

const DICTIONARY_FILE: &str = "dataset_dict.json";
const STATE_FILE: &str = "state.json";
const INFO_FILE: &str = "dataset_info.json";
const ENDING: &str = ".arrow";

const JSON_BYTES_MAX: u64 = 64 << 20;

/// Files of one data set, in order.
pub(super) struct DataSet {
    pub(super) dir: PathBuf,
    /// Its name in a dictionary.
    pub(super) split: Option<String>,
    pub(super) files: Vec<PathBuf>,
}

/// Whether `path` is what `save_to_disk` writes, or one of its files.
pub fn is_data_set(path: &Path) -> bool {
    let is_file = path.is_file() && path.extension().is_some_and(|ending| ending == &ENDING[1..]);
    is_file || [DICTIONARY_FILE, STATE_FILE].iter().any(|name| path.join(name).exists())
}

/// The data sets at `path`: that of a file, of a folder, or those of a dictionary in its order.
pub(super) fn parts_of(path: &Path) -> Result<Vec<DataSet>, CacheError> {
    if path.is_file() {
        let dir = path.parent().unwrap_or(Path::new("")).to_path_buf();
        return Ok(vec![DataSet { dir, split: None, files: vec![path.to_path_buf()] }]);
    }
    let dictionary = path.join(DICTIONARY_FILE);
    if !dictionary.exists() {
        return Ok(vec![DataSet { dir: path.into(), split: None, files: files_in(path)? }]);
    }
    let names = json(&dictionary)?["splits"].as_array().cloned().unwrap_or_default();
    let part = |name: &Value| {
        let name = name.as_str().filter(|name| is_name(name));
        let name = name.ok_or_else(|| import_error(&dictionary, "splits", "names of folders".into(), "others"))?;
        let dir = path.join(name);
        Ok(DataSet { files: files_in(&dir)?, dir, split: Some(name.to_owned()) })
    };
    let parts: Vec<DataSet> = names.iter().map(part).collect::<Result<_, CacheError>>()?;
    match parts.is_empty() {
        true => Err(import_error(&dictionary, "splits", "at least 1 name".into(), "none")),
        false => Ok(parts),
    }
}

/// The files that the state of a data set names, or all of the folder.
fn files_in(dir: &Path) -> Result<Vec<PathBuf>, CacheError> {
    let state = dir.join(STATE_FILE);
    let names = match state.exists() {
        true => {
            let listed = json(&state)?["_data_files"].as_array().cloned().unwrap_or_default();
            let name = |file: &Value| file["filename"].as_str().filter(|name| is_name(name)).map(str::to_owned);
            let names: Option<Vec<String>> = listed.iter().map(name).collect();
            names
                .ok_or_else(|| import_error(&state, "_data_files", "names of files in this folder".into(), "others"))?
        }
        false => list_names(dir)?.into_iter().filter(|name| name.ends_with(ENDING)).collect(),
    };
    match names.is_empty() {
        true => Err(import_error(dir, "number of .arrow files", "at least 1".into(), 0)),
        false => Ok(names.iter().map(|name| dir.join(name)).collect()),
    }
}

impl DataSet {
    /// The names of the classes, where the column of labels has names: the given one, or the first of the usual ones.
    pub(super) fn class_names(&self, usual: [&str; 5], given: Option<&str>) -> Result<Vec<String>, CacheError> {
        let path = self.dir.join(INFO_FILE);
        if !path.exists() {
            return Ok(Vec::new());
        }
        let info = json(&path)?;
        let features = &info["features"];
        let wanted = given.or_else(|| usual.into_iter().find(|name| !features[*name].is_null()));
        let names = wanted.map(|name| &features[name]["names"]).and_then(Value::as_array);
        Ok(names.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect())
    }
}

/// Whether a text is the name of something in a folder, and leads nowhere else.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text != "." && text != ".." && !text.contains(['/', '\\'])
}

fn json(path: &Path) -> Result<Value, CacheError> {
    let text = read_at_most(path, JSON_BYTES_MAX)?;
    serde_json::from_slice(&text).map_err(|error| {
        import_error(path, "file", "JSON, as save_to_disk writes: save the data set again".into(), error)
    })
}
