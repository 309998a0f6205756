//! A cache out of a file that is nothing but tokens, as `numpy.memmap` reads and `ndarray.tofile` writes it.

use crate::cancel;
use crate::error::{CacheError, io_error};
use crate::import::arrays::PerRow;
use crate::import::error::import_error;
use crate::import::importer::{ImportOptions, Importer, width_of};
use crate::import::keys::Keys;
use crate::write::writer::{Finished, OpenMode};
use std::fmt;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::str::FromStr;

/// The type of a token in a file without a header, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenType {
    /// 16 bits: `uint16`.
    U16,
    /// 32 bits without a sign: `uint32`.
    U32,
    /// 32 bits: `int32`.
    I32,
    /// 64 bits: `int64`.
    I64,
}

impl TokenType {
    /// Bytes of a token.
    pub fn width(self) -> usize {
        match self {
            TokenType::U16 => 2,
            TokenType::U32 | TokenType::I32 => 4,
            TokenType::I64 => 8,
        }
    }

    /// The token in `bytes`, which are as many as it has.
    fn read(self, bytes: &[u8]) -> i64 {
        let mut wide = [0; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        let raw = i64::from_le_bytes(wide);
        if self == TokenType::I32 { i64::from(raw as i32) } else { raw }
    }

    /// Appends a token, which must fit.
    pub(crate) fn put(self, token: u32, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&u64::from(token).to_le_bytes()[..self.width()]);
    }
}

impl fmt::Display for TokenType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TokenType::U16 => "uint16",
            TokenType::U32 => "uint32",
            TokenType::I32 => "int32",
            TokenType::I64 => "int64",
        })
    }
}

impl FromStr for TokenType {
    type Err = String;

    fn from_str(text: &str) -> Result<TokenType, String> {
        match text {
            "uint16" => Ok(TokenType::U16),
            "uint32" => Ok(TokenType::U32),
            "int32" => Ok(TokenType::I32),
            "int64" => Ok(TokenType::I64),
            _ => Err("expected uint16, uint32, int32 or int64".to_owned()),
        }
    }
}

/// What the shards of nanoGPT's speedruns begin with: this number, a version, a count of tokens, as int32 in 1024 bytes.
const SPEEDRUN_MAGIC: u32 = 20_240_520;
const SPEEDRUN_VERSION: u32 = 1;
const SPEEDRUN_HEADER_BYTES: u64 = 1024;

/// Images that are read at a time.
const CHUNK_IMAGES: usize = 256;

/// Imports `tokens`, `[images, views, H * W]` of `kind` without a header, or with that of nanoGPT's speedruns; `labels` and
/// `keys` as for [`crate::import_npy`].
///
/// # Errors
/// As [`crate::import_npy`]; [`CacheError::Import`] for a header that does not fit the file.
pub fn import_memmap(
    tokens: &Path,
    kind: TokenType,
    labels: Option<&Path>,
    keys: Option<&Path>,
    options: &ImportOptions,
    out: &Path,
    mode: OpenMode,
) -> Result<Finished, CacheError> {
    let views = options.views.max(1) as usize;
    let image_tokens = options.grid.0 as usize * options.grid.1 as usize * views;
    let image_bytes = (image_tokens * kind.width()) as u64;
    let (header, bytes) = sizes_of(tokens, kind)?;
    if bytes == 0 {
        return Err(CacheError::NoRows { path: tokens.into(), what: "it has no tokens".into() });
    }
    if image_bytes == 0 || !bytes.is_multiple_of(image_bytes) {
        let expected = format!("a multiple of {image_bytes} bytes: {image_tokens} tokens of {}", kind.width());
        return Err(import_error(tokens, "size", expected, format!("{bytes} bytes")));
    }
    let images = (bytes / image_bytes) as usize;
    let mut labels = labels.map(|path| PerRow::labels(path, images, views)).transpose()?;
    let mut keys = keys.map(|path| Keys::open(path, images, views)).transpose()?;
    let bits = match options.bits {
        Some(bits) => bits,
        None => {
            let mut largest = 0;
            visit_images(tokens, kind, header, images, image_tokens, &mut |_, tokens| {
                largest = tokens.iter().copied().fold(largest, i64::max);
                Ok(())
            })?;
            width_of(largest)
        }
    };
    let mut importer = Importer::open(tokens, images, bits, options, out, mode)?;
    visit_images(tokens, kind, header, images, image_tokens, &mut |image, tokens| {
        let label = labels.as_mut().map_or(Ok(-1), |labels| labels.next(views))?;
        let key = keys.as_mut().map_or(Ok(format!("{image:08}")), Keys::next)?;
        importer.push(image, tokens, label, &key)
    })?;
    importer.writer.finish()
}

/// Bytes of the header, and of the tokens behind it.
///
/// A file that begins with the magic number of speedruns has their header: as tokens, its four bytes would be two of 16 bits that
/// follow each other in one of four billion files, and one of 32 bits that no cache can hold.
fn sizes_of(path: &Path, kind: TokenType) -> Result<(u64, u64), CacheError> {
    let mut file = File::open(path).map_err(io_error("open", path))?;
    let bytes = file.metadata().map_err(io_error("read the size of", path))?.len();
    let mut start = [0; 12];
    if bytes < start.len() as u64 {
        return Ok((0, bytes));
    }
    file.read_exact(&mut start).map_err(io_error("read", path))?;
    let number = |i: usize| u32::from_le_bytes([start[i], start[i + 1], start[i + 2], start[i + 3]]);
    let (magic, version, count) = (number(0), number(4), number(8));
    if magic != SPEEDRUN_MAGIC {
        return Ok((0, bytes));
    }
    if version != SPEEDRUN_VERSION {
        let expected = format!("{SPEEDRUN_VERSION} behind the magic number {SPEEDRUN_MAGIC} of a speedrun's shard");
        return Err(import_error(path, "version of the header", expected, version));
    }
    if kind != TokenType::U16 {
        let expected = "uint16 in a file with the header of a speedrun's shard: give --dtype uint16".to_owned();
        return Err(import_error(path, "type of a token", expected, kind));
    }
    let behind = bytes.saturating_sub(SPEEDRUN_HEADER_BYTES);
    if bytes < SPEEDRUN_HEADER_BYTES || u64::from(count) * 2 != behind {
        let there = behind / 2;
        let expected = format!("{count} by its header: the file was cut off, or another one was appended to it");
        let actual = format!("{there} ({bytes} bytes, of which {SPEEDRUN_HEADER_BYTES} are the header)");
        return Err(import_error(path, "number of tokens", expected, actual));
    }
    Ok((SPEEDRUN_HEADER_BYTES, behind))
}

/// Called with an image's index and its tokens.
type VisitImage<'a> = dyn FnMut(usize, &[i64]) -> Result<(), CacheError> + 'a;

fn visit_images(
    path: &Path,
    kind: TokenType,
    header: u64,
    images: usize,
    image_tokens: usize,
    visit: &mut VisitImage<'_>,
) -> Result<(), CacheError> {
    let mut input = BufReader::with_capacity(1 << 20, File::open(path).map_err(io_error("open", path))?);
    let skipped = std::io::copy(&mut input.by_ref().take(header), &mut std::io::sink());
    skipped.map_err(io_error("read", path))?;
    let (mut bytes, mut tokens) = (Vec::new(), Vec::new());
    for start in (0..images).step_by(CHUNK_IMAGES) {
        let chunk = start..(start + CHUNK_IMAGES).min(images);
        bytes.resize(chunk.len() * image_tokens * kind.width(), 0);
        input.read_exact(&mut bytes).map_err(io_error("read", path))?;
        tokens.clear();
        tokens.extend(bytes.chunks_exact(kind.width()).map(|token| kind.read(token)));
        for (image, tokens) in chunk.zip(tokens.chunks_exact(image_tokens)) {
            visit(image, tokens)?;
        }
        cancel::check()?;
    }
    Ok(())
}
