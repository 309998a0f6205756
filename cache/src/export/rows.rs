//! A cache as other programs' files of rows: lines of JSON, tokens without a header, a file per image.

use crate::error::{CacheError, io_error};
use crate::export::folder::ExportFolder;
use crate::export::visit_all;
use crate::import::error::import_error;
use crate::import::llamagen::{CODES, LABELS};
use crate::import::memmap::TokenType;
use crate::npy::Header;
use crate::read::cache::TokenCache;
use crate::write::writer::OpenMode;
use std::fmt::Write as _;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// RAR's name.
const JSONL_FILE: &str = "pretokenized.jsonl";

/// Writes `out/pretokenized.jsonl`: a line `{"class_id": L, "tokens": [...]}` per row, the views of an image next to each
/// other, byte by byte as Python's `json.dump` writes it. Returns the name.
///
/// # Errors
/// As [`crate::export_npy`].
pub fn export_jsonl(cache: &TokenCache, out: &Path, mode: OpenMode) -> Result<Vec<String>, CacheError> {
    let folder = ExportFolder::open(out, &[JSONL_FILE], mode)?;
    let mut output = folder.create(JSONL_FILE)?;
    let mut line = String::new();
    visit_all(cache, &mut |_, rows| {
        for row in rows {
            line.clear();
            // Writing to a string cannot fail.
            let _ = write!(line, r#"{{"class_id": {}, "tokens": ["#, row.label);
            for (i, token) in row.tokens.iter().enumerate() {
                let _ = write!(line, "{}{token}", if i == 0 { "" } else { ", " });
            }
            line.push_str("]}\n");
            output.put(line.as_bytes())?;
        }
        Ok(())
    })?;
    folder.publish(vec![output])?;
    Ok(vec![JSONL_FILE.to_owned()])
}

/// Writes `out/tokens.bin`, `[rows, H * W]` of `kind` without a header, and `out/labels.npy` (int64, `[rows]`). Returns the
/// names.
///
/// # Errors
/// [`CacheError::Import`] where tokens do not fit `kind`; otherwise as [`crate::export_npy`].
pub fn export_memmap(
    cache: &TokenCache,
    kind: TokenType,
    out: &Path,
    mode: OpenMode,
) -> Result<Vec<String>, CacheError> {
    let bits = cache.grid().bits;
    if kind == TokenType::U16 && bits > 16 {
        return Err(import_error(
            cache.dir(),
            "bits of a token",
            "at most 16 for uint16; give --dtype uint32".into(),
            bits,
        ));
    }
    let names = ["tokens.bin", "labels.npy"];
    let folder = ExportFolder::open(out, &names, mode)?;
    let (mut tokens, mut labels) = (folder.create(names[0])?, folder.create(names[1])?);
    Header::write(&mut labels, "<i8", &[cache.num_rows()]).map_err(io_error("write", labels.path()))?;
    let mut bytes = Vec::new();
    visit_all(cache, &mut |_, rows| {
        for row in rows {
            bytes.clear();
            row.tokens.iter().for_each(|token| kind.put(*token, &mut bytes));
            tokens.put(&bytes)?;
            labels.put(&i64::from(row.label).to_le_bytes())?;
        }
        Ok(())
    })?;
    folder.publish(vec![tokens, labels])?;
    Ok(names.map(str::to_owned).to_vec())
}

/// Writes LlamaGen's layout: `out/imagenet<size>_codes/<i>.npy` (int64, `[1, views, H * W]`) and
/// `out/imagenet<size>_labels/<i>.npy` (int64, `[1]`) for image i. The size is the recipe's, else 16 times the grid's height.
/// Returns the names of the folders, which get them when they are whole.
///
/// # Errors
/// [`CacheError::ExportTarget`] where there are such folders already, unless `mode` says to replace them; [`CacheError::Io`];
/// the variant that names the damage of the cache.
pub fn export_llamagen(cache: &TokenCache, out: &Path, mode: OpenMode) -> Result<Vec<String>, CacheError> {
    // Whether the folder is free for an export, and one at a time.
    let _folder = ExportFolder::open(out, &[], mode)?;
    let recorded = cache.manifest().recipe["size"].as_u64();
    let size = recorded.unwrap_or(u64::from(cache.grid().height) * 16);
    let names = [CODES, LABELS].map(|ending| format!("imagenet{size}{ending}"));
    let finals = names.each_ref().map(|name| out.join(name));
    for path in &finals {
        if path.exists() && mode != OpenMode::Overwrite {
            return Err(CacheError::ExportTarget { path: path.clone() });
        }
    }
    let begun = names.each_ref().map(|name| out.join(format!(".{name}.tmp")));
    for path in &begun {
        remove_folder(path)?;
        fs::create_dir_all(path).map_err(io_error("create folder", path))?;
    }
    let shape = [1, cache.num_views(), cache.grid().num_tokens()];
    let mut bytes = Vec::new();
    visit_all(cache, &mut |image, rows| {
        let tokens = rows.iter().flat_map(|row| row.tokens).map(|token| i64::from(*token));
        write_array(&begun[0].join(format!("{image}.npy")), &shape, tokens, &mut bytes)?;
        let label = rows.first().map_or(-1, |row| row.label);
        write_array(&begun[1].join(format!("{image}.npy")), &[1], [i64::from(label)], &mut bytes)
    })?;
    for (begun, path) in begun.iter().zip(&finals) {
        remove_folder(path)?;
        fs::rename(begun, path).map_err(io_error("rename to its final name", path))?;
    }
    Ok(names.to_vec())
}

pub(super) fn remove_folder(path: &PathBuf) -> Result<(), CacheError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io_error("remove", path)(error)),
        _ => Ok(()),
    }
}

fn write_array(
    path: &Path,
    shape: &[usize],
    values: impl IntoIterator<Item = i64>,
    bytes: &mut Vec<u8>,
) -> Result<(), CacheError> {
    bytes.clear();
    Header::write(bytes, "<i8", shape).map_err(io_error("write", path))?;
    values.into_iter().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
    let mut file = fs::File::create(path).map_err(io_error("create", path))?;
    file.write_all(bytes).map_err(io_error("write", path))
}
