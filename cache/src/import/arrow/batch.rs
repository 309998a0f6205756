//! The rows of a record batch, decoded.

use crate::import::arrow::flatbuffer::Table;
use crate::import::arrow::schema::{Field, Kind};
use parquet::data_type::ByteArray;

/// A record batch: what its message says, and its body.
pub(super) struct Batch {
    pub(super) num_rows: usize,
    /// Length and number of nulls of each column and column within one.
    nodes: Vec<[i64; 2]>,
    /// Offset and length of each buffer in the body.
    buffers: Vec<[i64; 2]>,
    body: Vec<u8>,
}

/// Values of a column within lists or without, and how many of them each row has.
type Flat = (Vec<i64>, Vec<usize>);

const DAMAGED: &str = "its buffers do not fit its rows";

impl Batch {
    /// An error is a sentence about the batch.
    pub(super) fn new(message: Table<'_>, body: Vec<u8>) -> Result<Batch, String> {
        const DAMAGED: &str = "its description is damaged";
        if message.table(3).ok_or(DAMAGED)?.is_some() {
            return Err("its buffers are compressed: write it again without compression, as save_to_disk does".into());
        }
        Ok(Batch {
            num_rows: usize::try_from(message.i64(0).ok_or(DAMAGED)?).map_err(|_| DAMAGED)?,
            nodes: message.pairs(1).ok_or(DAMAGED)?,
            buffers: message.pairs(2).ok_or(DAMAGED)?,
            body,
        })
    }

    /// The column `index` of `fields`: integers, in lists of any depth, and how many each row has. Nulls are errors, but a row
    /// that is null itself is `null`.
    pub(super) fn integers(&self, fields: &[Field], index: usize, null: Option<i64>) -> Result<Flat, String> {
        self.cursor(fields, index)?.flat(&fields[index], null).map_err(|what| about(&fields[index], what))
    }

    /// A column of text.
    pub(super) fn texts(&self, fields: &[Field], index: usize) -> Result<Vec<ByteArray>, String> {
        let field = &fields[index];
        let Kind::Text { is_large } = field.kind else { return Err(about(field, "it holds no text".into())) };
        let read = || -> Result<Vec<ByteArray>, String> {
            let mut cursor = self.cursor(fields, index)?;
            let length = cursor.node(None)?;
            let bounds = cursor.offsets(length, is_large)?;
            let bytes = cursor.buffer()?;
            let text =
                |bounds: &[usize]| bytes.get(bounds[0]..bounds[1]).map(ByteArray::from).ok_or(DAMAGED.to_owned());
            bounds.windows(2).map(text).collect()
        };
        read().map_err(|what| about(field, what))
    }

    fn cursor(&self, fields: &[Field], index: usize) -> Result<Cursor<'_>, String> {
        let before = fields[..index].iter().map(Field::size);
        let (node, buffer) = before.fold((0, 0), |(nodes, buffers), (n, b)| (nodes + n, buffers + b));
        let length = self.nodes.get(node).map(|[length, _]| *length);
        match length.and_then(|length| usize::try_from(length).ok()) {
            Some(length) if length == self.num_rows => Ok(Cursor { batch: self, node, buffer, nulls: None }),
            _ => Err(about(&fields[index], DAMAGED.into())),
        }
    }
}

fn about(field: &Field, what: String) -> String {
    format!("column {}: {what}", field.name)
}

/// Reads nodes and buffers in their order.
struct Cursor<'a> {
    batch: &'a Batch,
    node: usize,
    buffer: usize,
    /// Which rows of the last node are there, one bit each; `None`: all.
    nulls: Option<&'a [u8]>,
}

impl<'a> Cursor<'a> {
    fn buffer(&mut self) -> Result<&'a [u8], String> {
        let [offset, length] = *self.batch.buffers.get(self.buffer).ok_or(DAMAGED)?;
        self.buffer += 1;
        let (start, length) = (usize::try_from(offset).ok(), usize::try_from(length).ok());
        let range = start.zip(length).and_then(|(start, length)| Some(start..start.checked_add(length)?));
        range.and_then(|range| self.batch.body.get(range)).ok_or_else(|| DAMAGED.into())
    }

    /// The length of the next node, and which of its values are there. Nulls are refused, unless something stands for them.
    fn node(&mut self, null: Option<i64>) -> Result<usize, String> {
        let [length, nulls] = *self.batch.nodes.get(self.node).ok_or(DAMAGED)?;
        self.node += 1;
        let length = usize::try_from(length).map_err(|_| DAMAGED)?;
        let validity = self.buffer()?;
        self.nulls = None;
        if nulls != 0 {
            if null.is_none() {
                return Err("it has nulls".into());
            }
            self.nulls = Some(validity.get(..length.div_ceil(8)).ok_or(DAMAGED)?);
        }
        Ok(length)
    }

    fn is_null(&self, row: usize) -> bool {
        self.nulls.is_some_and(|bits| bits[row / 8] >> (row % 8) & 1 == 0)
    }

    /// The bounds of `length` lists or texts.
    fn offsets(&mut self, length: usize, is_large: bool) -> Result<Vec<usize>, String> {
        let bytes = self.buffer()?;
        let count = length.checked_add(1).ok_or(DAMAGED)?;
        // Of no lists at all, some writers leave the bounds out.
        if length == 0 && bytes.is_empty() {
            return Ok(vec![0]);
        }
        let offsets: Option<Vec<usize>> = match is_large {
            true => {
                let numbers = bytes.as_chunks::<8>().0.get(..count).ok_or(DAMAGED)?;
                numbers.iter().map(|number| usize::try_from(i64::from_le_bytes(*number)).ok()).collect()
            }
            false => {
                let numbers = bytes.as_chunks::<4>().0.get(..count).ok_or(DAMAGED)?;
                numbers.iter().map(|number| usize::try_from(i32::from_le_bytes(*number)).ok()).collect()
            }
        };
        offsets.filter(|offsets| offsets.is_sorted()).ok_or_else(|| DAMAGED.into())
    }

    fn flat(&mut self, field: &Field, null: Option<i64>) -> Result<Flat, String> {
        match field.kind {
            Kind::Int { bytes, is_signed } => {
                let length = self.node(null)?;
                let values = self.buffer()?;
                let values = values.get(..length.checked_mul(bytes).ok_or(DAMAGED)?).ok_or(DAMAGED)?;
                let values = values.chunks_exact(bytes).enumerate().map(|(row, value)| match null {
                    Some(null) if self.is_null(row) => null,
                    _ => integer(value, is_signed),
                });
                Ok((values.collect(), vec![1; length]))
            }
            Kind::Bool => {
                let length = self.node(null)?;
                let bits = self.buffer()?.get(..length.div_ceil(8)).ok_or(DAMAGED)?;
                let values = (0..length).map(|row| match null {
                    Some(null) if self.is_null(row) => null,
                    _ => i64::from(bits[row / 8] >> (row % 8) & 1),
                });
                Ok((values.collect(), vec![1; length]))
            }
            Kind::List { is_large } => {
                let length = self.node(None)?;
                let bounds = self.offsets(length, is_large)?;
                gathered(self.flat(&field.children[0], None)?, &bounds)
            }
            Kind::FixedList { size } => {
                let length = self.node(None)?;
                length.checked_mul(size).ok_or(DAMAGED)?;
                let inner = self.flat(&field.children[0], None)?;
                // Before a list of bounds is made: there must be values for all of them.
                if inner.1.len() < length * size || size == 0 {
                    return Err(DAMAGED.into());
                }
                let bounds: Vec<usize> = (0..=length).map(|row| row * size).collect();
                gathered(inner, &bounds)
            }
            Kind::Text { .. } | Kind::Other { .. } => Err("it holds no integers".into()),
        }
    }
}

/// What lists with these bounds hold of the rows of the column within them.
fn gathered((mut values, lengths): Flat, bounds: &[usize]) -> Result<Flat, String> {
    let (first, last) = (bounds[0], bounds[bounds.len() - 1]);
    if last > lengths.len() {
        return Err(DAMAGED.into());
    }
    let before: usize = lengths[..first].iter().sum();
    let within: usize = lengths[first..last].iter().sum();
    values.truncate(before + within);
    values.drain(..before);
    let of_list = |bounds: &[usize]| lengths[bounds[0]..bounds[1]].iter().sum();
    Ok((values, bounds.windows(2).map(of_list).collect()))
}

/// An integer of 1 to 8 bytes.
fn integer(bytes: &[u8], is_signed: bool) -> i64 {
    let mut wide = [0; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    let (raw, unused) = (u64::from_le_bytes(wide), 64 - 8 * bytes.len() as u32);
    match is_signed {
        true => ((raw << unused) as i64) >> unused,
        // What does not fit is no token, and is refused as the largest number.
        false => i64::try_from(raw).unwrap_or(i64::MAX),
    }
}
