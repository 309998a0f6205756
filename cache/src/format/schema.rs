//! The Parquet side of the format: columns, encodings, metadata keys.

use crate::format::grid::GridSpec;
use parquet::basic::{Compression, Encoding};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesPtr, WriterVersion};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::{ColumnPath, TypePtr};
use std::sync::Arc;

/// The version that this crate writes, and the newest that it reads.
pub const FORMAT_VERSION: u32 = 1;

/// Row groups stay below this size in the file (64 MiB), so that every reader can hold one.
pub const GROUP_BYTES_MAX: usize = 64 << 20;

pub(crate) const TOKENS: &str = "tokens";

pub(crate) const LABEL: &str = "label";

pub(crate) const KEY: &str = "key";

pub(crate) const VIEW: &str = "view";

pub(crate) const CROP_X: &str = "crop_x";

pub(crate) const CROP_Y: &str = "crop_y";

pub(crate) const FLIP: &str = "flip";

/// The name of the row's split; only in shards of caches with splits.
pub(crate) const SPLIT: &str = "split";

/// The clip that a video frame belongs to; only in shards of video frames.
pub(crate) const SEGMENT: &str = "segment";

/// The number of a video frame in its set; only in shards of video frames.
pub(crate) const FRAME: &str = "frame";

/// Columns that a shard has behind [`COLUMNS`], in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MoreColumns {
    /// [`SPLIT`].
    pub(crate) split: bool,
    /// [`SEGMENT`] and [`FRAME`], which are those of the key.
    pub(crate) frames: bool,
}

impl MoreColumns {
    /// Their names.
    pub(crate) fn names(self) -> impl Iterator<Item = &'static str> {
        let split = self.split.then_some(SPLIT);
        let frames = self.frames.then_some([SEGMENT, FRAME]);
        split.into_iter().chain(frames.into_iter().flatten())
    }

    /// Those of a list of names; names that this version does not know are ignored.
    pub(crate) fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> MoreColumns {
        let mut columns = MoreColumns::default();
        for name in names {
            columns.split |= name == SPLIT;
            columns.frames |= name == FRAME;
        }
        columns
    }
}

/// The columns that every shard has, in file order. Others may follow, of which this version knows [`MoreColumns`].
pub(crate) const COLUMNS: [&str; 7] = [TOKENS, LABEL, KEY, VIEW, CROP_X, CROP_Y, FLIP];

/// Keys of a footer's key-value metadata.
pub(crate) mod keys {
    pub(crate) const FORMAT_VERSION: &str = "tokengrid.format_version";
    pub(crate) const GRID: &str = "tokengrid.grid";
    pub(crate) const BITS: &str = "tokengrid.bits";
    pub(crate) const VIEWS: &str = "tokengrid.views";
    pub(crate) const TOKENIZER: &str = "tokengrid.tokenizer";
    pub(crate) const RECIPE: &str = "tokengrid.recipe";
    pub(crate) const FIRST_VIEW: &str = "tokengrid.first_view";
    pub(crate) const SOURCE: &str = "tokengrid.source";
    pub(crate) const CLASSES: &str = "tokengrid.classes";
    pub(crate) const SPLITS: &str = "tokengrid.splits";
    pub(crate) const JOB: &str = "tokengrid.job";
    pub(crate) const IMAGES: &str = "tokengrid.images";
    pub(crate) const QUARANTINED: &str = "tokengrid.quarantined";
    pub(crate) const ROW_GROUPS: &str = "tokengrid.row_groups";
    pub(crate) const CONTENT_SUM: &str = "tokengrid.content_sum";
    pub(crate) const MARGINS: &str = "tokengrid.margins";
}

/// The Parquet schema of a shard.
pub(crate) fn parquet_schema(grid: GridSpec, more: MoreColumns) -> Result<TypePtr, ParquetError> {
    let more: String = more
        .names()
        .map(|name| match name {
            SPLIT => format!("required binary {name} (STRING);"),
            _ => format!("required int32 {name};"),
        })
        .collect();
    let message = format!(
        "message tokengrid {{
            required fixed_len_byte_array({}) {TOKENS};
            required int32 {LABEL};
            required binary {KEY} (STRING);
            required int32 {VIEW};
            required int32 {CROP_X};
            required int32 {CROP_Y};
            required boolean {FLIP};
            {more}
        }}",
        grid.row_bytes()
    );
    parse_message_type(&message).map(Arc::new)
}

/// How columns are encoded. The tokens: PLAIN, one page however long. Keys: front coding, since neighbours in a source
/// share their folder, and Snappy for what repeats otherwise. The rest: dictionaries, which take a few bits per row.
pub(crate) fn writer_properties() -> WriterPropertiesPtr {
    let tokens = || ColumnPath::from(TOKENS);
    let key = || ColumnPath::from(KEY);
    let properties = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        // Bound to the format and not to the release, so that a shard that is written again is the same bytes.
        .set_created_by("tokengrid version 1.0.0".to_owned())
        .set_compression(Compression::UNCOMPRESSED)
        .set_column_dictionary_enabled(tokens(), false)
        .set_column_encoding(tokens(), Encoding::PLAIN)
        .set_column_statistics_enabled(tokens(), EnabledStatistics::None)
        .set_column_data_page_size_limit(tokens(), 2 * GROUP_BYTES_MAX)
        .set_column_data_page_row_count_limit(tokens(), usize::MAX)
        .set_column_dictionary_enabled(key(), false)
        .set_column_encoding(key(), Encoding::DELTA_BYTE_ARRAY)
        .set_column_compression(key(), Compression::SNAPPY)
        // Numbers that count up: differences take less than a dictionary in which each is once.
        .set_column_dictionary_enabled(ColumnPath::from(SEGMENT), false)
        .set_column_encoding(ColumnPath::from(SEGMENT), Encoding::DELTA_BINARY_PACKED)
        .set_column_dictionary_enabled(ColumnPath::from(FRAME), false)
        .set_column_encoding(ColumnPath::from(FRAME), Encoding::DELTA_BINARY_PACKED)
        .build();
    Arc::new(properties)
}

/// The `format` of every manifest.
pub(crate) const FORMAT: &str = "tokengrid-cache";
