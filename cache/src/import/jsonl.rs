//! A cache out of lines of JSON: `{"class_id": L, "tokens": [...]}`, as RAR, TiTok and AliTok pretokenize.

use crate::cancel;
use crate::error::CacheError;
use crate::import::error::import_error;
use crate::import::importer::{ImportOptions, Importer, square_of, width_of};
use crate::import::lines::Lines;
use crate::write::writer::{Finished, OpenMode};
use serde::Deserialize;
use std::path::Path;

/// The longest line, in bytes: a million tokens of six digits.
const LINE_BYTES_MAX: usize = 8 << 20;

/// What a line says. Other fields are ignored.
#[derive(Deserialize)]
struct Line {
    #[serde(default = "unlabelled", alias = "label")]
    class_id: i64,
    tokens: Vec<i64>,
}

fn unlabelled() -> i64 {
    -1
}

/// Imports a file with a line per row, perhaps of gzip; the `options.views` views of an image follow each other. Keys are the numbers of images.
/// A grid of 0 x 0 stands for a square one of as many tokens as the first line has.
///
/// # Errors
/// [`CacheError::Import`] naming the line; [`CacheError::NoRows`]; otherwise as [`crate::import_npy`].
pub fn import_jsonl(path: &Path, options: &ImportOptions, out: &Path, mode: OpenMode) -> Result<Finished, CacheError> {
    let views = options.views.max(1) as usize;
    // Once to count, since a job knows its images from the beginning, and to learn how wide tokens are.
    let (mut rows, mut largest, mut num_tokens) = (0usize, 0, 0);
    let mut lines = Lines::open(path, LINE_BYTES_MAX)?;
    while let Some(line) = next_row(&mut lines)? {
        if rows == 0 {
            num_tokens = line.tokens.len();
        }
        if line.tokens.len() != num_tokens {
            let expected = format!("{num_tokens} as the first line's");
            return Err(lines.error("number of tokens", expected, line.tokens.len()));
        }
        largest = line.tokens.into_iter().fold(largest, i64::max);
        rows += 1;
        cancel::check()?;
    }
    if rows == 0 {
        return Err(CacheError::NoRows { path: path.into(), what: "it has no line that is not empty".into() });
    }
    if !rows.is_multiple_of(views) {
        return Err(import_error(path, "number of lines", format!("a multiple of --views {views}"), rows));
    }
    let mut options = options.clone();
    if options.grid == (0, 0) {
        options.grid = square_of(path, num_tokens)?;
    }
    let wanted = options.grid.0 as usize * options.grid.1 as usize;
    if wanted != num_tokens {
        return Err(import_error(path, "number of tokens", format!("{wanted} per line"), num_tokens));
    }
    let bits = options.bits.unwrap_or_else(|| width_of(largest));
    let mut importer = Importer::open(path, rows / views, bits, &options, out, mode)?;
    let mut lines = Lines::open(path, LINE_BYTES_MAX)?;
    for image in 0..rows / views {
        let (mut tokens, mut label) = (Vec::with_capacity(num_tokens * views), None);
        for _ in 0..views {
            let line = next_row(&mut lines)?
                .ok_or_else(|| import_error(path, "number of lines", rows.to_string(), "fewer"))?;
            if *label.get_or_insert(line.class_id) != line.class_id {
                let expected = format!("{} of the first view of image {image}", label.unwrap_or(-1));
                return Err(lines.error("class_id of a later view", expected, line.class_id));
            }
            tokens.extend(line.tokens);
        }
        importer.push(image, &tokens, label.unwrap_or(-1), &format!("{image:08}"))?;
        cancel::check()?;
    }
    importer.writer.finish()
}

/// The next line that is not empty.
fn next_row(lines: &mut Lines) -> Result<Option<Line>, CacheError> {
    loop {
        let Some(text) = lines.next()? else { return Ok(None) };
        if text.len() > LINE_BYTES_MAX {
            return Err(lines.error("length of a line", format!("at most {LINE_BYTES_MAX} bytes"), "longer"));
        }
        if !text.trim_ascii().is_empty() {
            let expected = r#"{"class_id": a number, "tokens": [numbers]}"#;
            return serde_json::from_slice(text).map(Some).map_err(|error| lines.error("line", expected, error));
        }
    }
}
