//! A cache of image token grids: written once, verified to the last bit, read without decoding.
//!
//! A tokenizer turns an image into a grid of small integers (18 bits each for a codebook of 2^18 entries). This crate
//! keeps millions of such grids in plain Parquet files that any Parquet reader opens, and reads them through a memory
//! map with no work but the unpacking of bits. It knows nothing of tensors, models or images.
//!
//! # On disk
//!
//! ```text
//! cache/
//!   manifest.json               written last, by rename: a folder without it is an unfinished job
//!   shard-00000-00000.parquet   shard-<rank>-<number>
//!   shard-00000-00001.parquet
//!   quarantine.jsonl            inputs that could not be decoded
//! ```
//!
//! A shard is one Parquet file. The token column of a row group is a single PLAIN, uncompressed page, so its grids lie
//! side by side:
//!
//! ```text
//! "PAR1"                                                             0
//! row group 0   tokens: page header | grid 0 | grid 1 | ... | grid r |   tokens_offset + r * row_bytes
//!               label | key | view | crop_x | crop_y | flip          small encoded columns; split where there are splits
//! row group 1   ...
//! page index                                                         footer.offset in the manifest
//! Parquet footer with the `tokengrid.*` metadata and its checksums
//! footer length (u32) "PAR1"
//! ```
//!
//! ```text
//! one grid, bits = 18: token i is bits [18 i, 18 i + 18), least significant bit first
//!
//! byte     0        1        2        3        4        5        6        7        8
//!      |<----- token 0 -----> <------ token 1 -----> <------ token 2 -----> <----- token 3 ---->|
//! ```
//!
//! # The map of the crate
//!
//! | to | see |
//! |---|---|
//! | describe a job, and what it will come to | [`JobSpec`], [`TokenizerInfo`], [`SourceInfo`], [`GridSpec`], [`JobPlan`] |
//! | write a cache that survives being killed | [`CacheWriter`], [`Row`], [`OpenMode`] |
//! | read rows | [`TokenCache`], [`RowMeta`], [`Access`], [`Manifest`] |
//! | train from it | [`Loader`], [`LoaderConfig`], [`LoaderState`], [`Batch`], [`Requirement`] |
//! | trust it | [`verify()`], [`VerifyReport`], [`CacheError`]; [`check()`], [`CheckReport`] |
//! | mend it | [`repair()`], [`RepairReport`] |
//! | look at it | [`inspect()`], [`CacheInfo`]; [`stats()`], [`CacheStats`]; [`Inspection`]; [`find_rows`], [`ClassIndex`]; [`diff`] |
//! | make one of others, or be rid of one | [`remove_cache`]; [`merge()`], [`subset()`], [`import_npy`], [`import_npy_pairs`], [`import_parquet`] |
//! | take it elsewhere | [`export_npy`], [`export_parquet`] |
//! | measure it | [`LoaderBench`], [`LoaderFigures`], [`write_synthetic_cache`] |
//! | read or write the header of an array file | [`npy`] |
//! | write any other file safely | [`AtomicFile`], [`write_atomically`] |
//! | the bits themselves | [`pack()`], [`unpack()`], [`unpack_i64`], [`unpack_factorized`] |
//!
//! # Example
//!
//! ```
//! use std::sync::Arc;
//! use tokengrid_cache::{
//!     Batch, CacheWriter, GridSpec, JobSpec, Loader, LoaderConfig, OpenMode, Row, SourceInfo, TokenCache, TokenizerInfo,
//! };
//!
//! # fn main() -> Result<(), tokengrid_cache::CacheError> {
//! # let folder = tempfile::tempdir().unwrap();
//! # let dir = &folder.path().join("cache");
//! let grid = GridSpec { height: 2, width: 2, bits: 18 };
//! let mut job = JobSpec::new(grid, 10, 1); // 10 images, 1 view each
//! job.tokenizer = TokenizerInfo { fingerprint: "5a17".into(), name: "tiny".into(), ..Default::default() };
//! job.source = SourceInfo { kind: "class folders".into(), location: "/data/train".into(), images: 10, excluded: 0 };
//!
//! let mut writer = CacheWriter::open(dir, job, OpenMode::Resume)?;
//! for image in writer.next_image()..writer.images().end {
//!     let (tokens, key) = ([image as u32, 1, 2, 262_143], format!("{image}.png"));
//!     writer.push_image(image, &[Row { tokens: &tokens, label: -1, key: &key, view: 0, crop_x: 0, crop_y: 0, flip: false }])?;
//! }
//! assert!(writer.finish()?.published);
//!
//! let cache = Arc::new(TokenCache::open(dir)?);
//! let mut loader = Loader::new(cache, LoaderConfig { seed: 1, batch_size: 4, rank: 0, world_size: 1 })?;
//! let mut batch = Batch::default();
//! loader.next_batch(&mut batch);
//! assert_eq!(batch.tokens.len(), 4 * grid.num_tokens());
//! assert_eq!(batch.tokens[0], batch.rows[0] as i64);
//! # Ok(()) }
//! ```

mod atomic;
mod bench;
mod bridge;
mod cancel;
mod check;
mod clock;
mod columns;
mod discard;
mod error;
mod footer;
mod fsio;
#[doc(hidden)]
pub mod fuzzing;
mod grid;
mod group;
mod hash;
mod info;
mod inspect;
mod job;
mod loader;
mod manifest;
mod margins;
mod merge;
mod merge_keys;
pub mod npy;
mod pack;
mod page_header;
mod parallel;
mod permutation;
mod plan;
mod progress;
mod quarantine;
mod reader;
mod repair;
mod require;
mod schema;
mod shard;
mod stats;
mod subset;
mod unpack;
mod vacant;
mod verify;
mod writer;

pub use atomic::{AtomicFile, is_temporary_name, write_atomically};
pub use bench::{LoaderBench, LoaderFigures, write_synthetic_cache};
pub use bridge::{ImportOptions, export_npy, export_parquet, import_npy, import_npy_pairs, import_parquet};
pub use cancel::cancel_with;
pub use check::{CheckReport, CheckedImage, CheckedView, Disagreement, EncodeSample, Mismatch, check, check_job};
pub use discard::remove_cache;
pub use error::CacheError;
pub use grid::{GRID_TOKENS_MAX, GridSpec, TOKEN_BITS_MAX};
pub use group::{CLASS_INDEX_MAX, KEY_BYTES_MAX, Row};
pub use info::{CacheInfo, ShardInfo, SplitInfo, inspect};
pub use inspect::{
    CacheDiff, ClassIndex, FoundRows, INSPECTION_FILE, Inspection, LabelConflict, LabelConflicts, NearDuplicates,
    NearPair, RowDiff, RowFilter, SameGrid, StoredAt, diff, find_rows,
};
pub use job::{DEFAULT_GROUPS_PER_SHARD, DEFAULT_ROWS_PER_GROUP, JobSpec, SourceInfo, Split, TokenizerInfo, VIEWS_MAX};
pub use loader::{Batch, Loader, LoaderConfig, LoaderState};
pub use manifest::{ByteRange, GroupEntry, MANIFEST_FILE, Manifest, QUARANTINE_FILE, QuarantineEntry, ShardEntry};
pub use margins::{MARGIN_EDGES, Margins};
pub use merge::{MergeInput, merge, views_extend};
pub use pack::{pack, packed_bytes};
pub use permutation::{Permutation, derive_key};
pub use plan::JobPlan;
pub use progress::images_done;
pub use quarantine::{QuarantineReader, QuarantineRecord, read_quarantine};
pub use reader::{Access, RowMeta, TokenCache, VisitImage};
pub use repair::{Deliver, Encode, Encoded, RepairReport, repair, surviving_keys};
pub use require::Requirement;
pub use schema::{FORMAT_VERSION, GROUP_BYTES_MAX};
pub use shard::map::{LostPages, handle_lost_pages};
pub use stats::{CacheStats, ClassRows, Duplicates, stats};
pub use subset::{Selection, subset};
pub use unpack::{kernel_name, unpack, unpack_factorized, unpack_i64};
pub use vacant::is_system_name;
pub use verify::{Problem, VerifyReport, verify, verify_with_threads};
pub use writer::{CacheWriter, Finished, OpenMode};
