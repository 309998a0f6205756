//! The columns that matter of a file in Arrow's streaming format, a batch of rows at a time. The format is read by `arrow-ipc`, which
//! decodes no other columns.

use crate::cancel;
use crate::error::{CacheError, io_error};
use crate::files::token_lists::Columns;
use crate::format::schema::{CROP_X, CROP_Y, FLIP, KEY, VIEW};
use crate::import::arrow::values::{Flat, integers, one_each, texts};
use crate::import::error::import_error;
use crate::import::importer::ImportOptions;
use crate::import::list_reader::find_columns;
use arrow_array::RecordBatch;
use arrow_ipc::convert::try_fb_to_schema;
use arrow_ipc::reader::StreamReader;
use arrow_ipc::{Endianness, root_as_message};
use arrow_schema::{ArrowError, Schema};
use std::cell::Cell;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Result as IoResult, Seek};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// What a message begins with, since version 0.15 of the format.
const CONTINUATION: [u8; 4] = [0xFF; 4];

/// What a file in the other format, for random access, begins with.
const FILE_MAGIC: &[u8] = b"ARROW1";

/// A file, open behind its schema.
pub(super) struct Reader {
    path: PathBuf,
    stream: StreamReader<Input>,
    tokens: String,
    label: Option<String>,
}

impl Reader {
    /// # Errors
    /// [`CacheError::Import`] for what is no such file or has no column of tokens; [`CacheError::Io`].
    pub(super) fn open(path: &Path, options: &ImportOptions) -> Result<Reader, CacheError> {
        let file = File::open(path).map_err(io_error("open", path))?;
        let mut input = Input { file: BufReader::with_capacity(1 << 18, file), place: 0 };
        if input.file.fill_buf().map_err(io_error("read", path))?.starts_with(FILE_MAGIC) {
            let text = "it is in the format for random access (it begins with ARROW1), not in that of streams";
            return Err(damaged(path, text));
        }
        let failed = |error| failed(path, error, |what| damaged(path, &format!("{what} (in its schema)")));
        let schema = guarded(|| read_schema(&mut input)).map_err(failed)?;
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let (tokens, label) =
            find_columns(path, &names, options.tokens_column.as_deref(), options.label_column.as_deref())?;
        let wanted = [tokens, label.unwrap_or(tokens), VIEW, CROP_X, CROP_Y, FLIP, KEY];
        let wanted = (0..names.len()).filter(|index| wanted.contains(&names[*index])).collect();
        let (tokens, label) = (tokens.to_owned(), label.map(str::to_owned));
        input.file.rewind().map_err(io_error("read", path))?;
        input.place = 0;
        let stream = guarded(|| StreamReader::try_new(input, Some(wanted))).map_err(failed)?;
        Ok(Reader { path: path.into(), stream, tokens, label })
    }

    /// The next batch; `None` at the mark of the end.
    pub(super) fn next_batch(&mut self) -> Result<Option<RecordBatch>, CacheError> {
        cancel::check()?;
        let batch = guarded(|| self.stream.next().transpose());
        batch.map_err(|error| failed(&self.path, error, |what| self.damaged(what)))
    }

    /// The rows of the next batch.
    pub(super) fn next(&mut self) -> Result<Option<Columns>, CacheError> {
        let Some(batch) = self.next_batch()? else { return Ok(None) };
        self.columns(&batch).map(Some).map_err(|what| self.damaged(&what))
    }

    /// The tokens of a batch, and how many each row has.
    pub(super) fn tokens(&self, batch: &RecordBatch) -> Result<Flat, CacheError> {
        integers(batch, &self.tokens, None).map_err(|what| self.damaged(&what))
    }

    /// The keys of a batch; none where the file has no such column.
    pub(super) fn keys(&self, batch: &RecordBatch) -> Result<Vec<String>, CacheError> {
        let keys = texts(batch, KEY).map_err(|what| self.damaged(&what))?;
        Ok(keys.iter().map(|key| String::from_utf8_lossy(key.data()).into_owned()).collect())
    }

    fn columns(&self, batch: &RecordBatch) -> Result<Columns, String> {
        let (tokens, lengths) = integers(batch, &self.tokens, None)?;
        Ok(Columns {
            tokens,
            lengths,
            labels: self.label.as_ref().map_or(Ok(Vec::new()), |label| one_each(batch, label, Some(-1)))?,
            keys: texts(batch, KEY)?,
            views: one_each(batch, VIEW, None)?,
            crop_x: one_each(batch, CROP_X, None)?,
            crop_y: one_each(batch, CROP_Y, None)?,
            flips: one_each(batch, FLIP, None)?.into_iter().map(|flip| flip != 0).collect(),
            ..Columns::default()
        })
    }

    /// An error about the batch that was read last.
    fn damaged(&self, what: &str) -> CacheError {
        damaged(&self.path, &format!("{what} (in the batch before byte {})", self.stream.get_ref().place))
    }
}

/// The schema, of which the library leaves the order of bytes unchecked.
fn read_schema(input: &mut Input) -> Result<Schema, ArrowError> {
    let mut length = [0; 4];
    input.read_exact(&mut length)?;
    if length == CONTINUATION {
        input.read_exact(&mut length)?;
    }
    let mut message = Vec::new();
    input.take(u32::from_le_bytes(length).into()).read_to_end(&mut message)?;
    let message = root_as_message(&message).map_err(|error| ArrowError::ParseError(error.to_string()))?;
    match message.header_as_schema() {
        None => Err(ArrowError::SchemaError("the first message is another".into())),
        Some(schema) if schema.endianness() == Endianness::Little => try_fb_to_schema(schema),
        Some(_) => Err(ArrowError::SchemaError("its numbers are big-endian".into())),
    }
}

thread_local! {
    /// Whether this thread is within [`guarded`].
    static IS_GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic of this thread becomes an error of a damaged file, so that a panic hook should not report it.
pub fn is_expected_panic() -> bool {
    IS_GUARDED.get()
}

/// Calls the library, which panics on some damaged files.
fn guarded<T>(call: impl FnOnce() -> Result<T, ArrowError>) -> Result<T, ArrowError> {
    let gave_up = |_| Err(ArrowError::IpcError("its buffers do not fit its rows".into()));
    IS_GUARDED.set(true);
    let ended = catch_unwind(AssertUnwindSafe(call));
    IS_GUARDED.set(false);
    ended.unwrap_or_else(gave_up)
}

fn failed(path: &Path, error: ArrowError, damaged: impl FnOnce(&str) -> CacheError) -> CacheError {
    match error {
        ArrowError::IoError(_, source) if source.kind() != ErrorKind::InvalidData => io_error("read", path)(source),
        ArrowError::InvalidArgumentError(text) if text.contains("decompression requires") => {
            damaged("its buffers are compressed: write it again without compression, as save_to_disk does")
        }
        error => damaged(&error.to_string()),
    }
}

fn damaged(path: &Path, what: &str) -> CacheError {
    let expected = "an Arrow stream, as save_to_disk writes: copy or save it again".to_owned();
    import_error(path, "file", expected, format!("another: {what}"))
}

/// A file whose end is an error: before it comes the mark of the end, behind which nothing is read.
struct Input {
    file: BufReader<File>,
    place: u64,
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> IoResult<usize> {
        let count = self.file.read(buffer)?;
        if count == 0 && !buffer.is_empty() {
            let text = format!("it ends at byte {} without the mark of its end: it was truncated", self.place);
            return Err(std::io::Error::new(ErrorKind::InvalidData, text));
        }
        self.place += count as u64;
        Ok(count)
    }
}
