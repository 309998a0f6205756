//! A file in Arrow's streaming format: a schema and record batches, one message after the other.

use crate::cancel;
use crate::error::{CacheError, io_error};
use crate::import::arrow::batch::Batch;
use crate::import::arrow::flatbuffer::Table;
use crate::import::arrow::schema::Field;
use crate::import::error::import_error;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

/// What a message begins with, since version 0.15 of the format.
const CONTINUATION: u32 = u32::MAX;

/// What a file in the other format, for random access, begins with.
const FILE_MAGIC: &[u8; 6] = b"ARROW1";

/// The numbers of the messages' kinds.
const SCHEMA: u8 = 1;
const DICTIONARY: u8 = 2;
const RECORDS: u8 = 3;

/// The longest description of a message, in bytes.
const DESCRIPTION_BYTES_MAX: u64 = 64 << 20;

/// A file, open behind its schema.
pub(super) struct Stream {
    path: PathBuf,
    input: BufReader<File>,
    /// Bytes of the file, and those that were read.
    bytes: u64,
    place: u64,
    pub(super) fields: Vec<Field>,
}

impl Stream {
    /// # Errors
    /// [`CacheError::Import`] for what is no such file; [`CacheError::Io`].
    pub(super) fn open(path: &Path) -> Result<Stream, CacheError> {
        let file = File::open(path).map_err(io_error("open", path))?;
        let bytes = file.metadata().map_err(io_error("read the size of", path))?.len();
        let input = BufReader::with_capacity(1 << 18, file);
        let mut stream = Stream { path: path.into(), input, bytes, place: 0, fields: Vec::new() };
        let description = stream.description()?.ok_or_else(|| stream.damaged("it has no schema"))?;
        let message = Table::root(&description).ok_or_else(|| stream.damaged("its schema is damaged"))?;
        let schema = (message.u8(1) == Some(SCHEMA)).then(|| message.table(2)).flatten().flatten();
        let schema = schema.ok_or_else(|| stream.damaged("it does not begin with a schema"))?;
        stream.fields = Field::of_schema(schema).map_err(|what| stream.damaged(&what))?;
        Ok(stream)
    }

    /// The next record batch; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Batch>, CacheError> {
        loop {
            cancel::check()?;
            let Some(description) = self.description()? else { return Ok(None) };
            let message = Table::root(&description);
            let length = message.and_then(|message| u64::try_from(message.i64(3)?).ok());
            let (message, length) = message.zip(length).ok_or_else(|| self.damaged("a message is damaged"))?;
            // Dictionaries are those of columns that are not read.
            let kind = message.u8(1).filter(|kind| [DICTIONARY, RECORDS].contains(kind));
            let kind = kind.ok_or_else(|| self.damaged("a message is of an unknown kind"))?;
            let body = self.take(length, "the rows of a message")?;
            if kind == RECORDS {
                let header = message.table(2).flatten().ok_or_else(|| self.damaged("a message is damaged"))?;
                return Batch::new(header, body).map(Some).map_err(|what| self.damaged(&what));
            }
        }
    }

    /// What the next message says about itself; `None` at the mark of the end.
    fn description(&mut self) -> Result<Option<Vec<u8>>, CacheError> {
        let mut length = self.number()?;
        if length.to_le_bytes() == FILE_MAGIC[..4] {
            let text = "it is in the format for random access (it begins with ARROW1), not in that of streams, which save_to_disk writes";
            return Err(self.damaged(text));
        }
        if length == CONTINUATION {
            length = self.number()?;
        }
        if length == 0 {
            return Ok(None);
        }
        if u64::from(length) > DESCRIPTION_BYTES_MAX {
            return Err(self.damaged("a message is damaged"));
        }
        self.take(length.into(), "a message").map(Some)
    }

    fn number(&mut self) -> Result<u32, CacheError> {
        let bytes = self.take(4, "the mark of its end")?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// The next bytes, of which the file must have as many: so none are asked for that are not there.
    fn take(&mut self, length: u64, what: &str) -> Result<Vec<u8>, CacheError> {
        if length > self.bytes - self.place {
            return Err(self.damaged(&format!("it ends within {what}: it was truncated")));
        }
        let mut bytes = vec![0; length as usize];
        self.input.read_exact(&mut bytes).map_err(io_error("read", &self.path))?;
        self.place += length;
        Ok(bytes)
    }

    /// An error about the place that was reached.
    pub(super) fn damaged(&self, what: &str) -> CacheError {
        let actual = format!("another: {what} (before byte {} of {})", self.place, self.bytes);
        let expected = "an Arrow stream, as save_to_disk writes: copy or save it again".to_owned();
        import_error(&self.path, "file", expected, actual)
    }
}
