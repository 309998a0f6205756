//! A cache of image token grids: written once, verified to the last bit, read without decoding.
//!
//! A tokenizer turns an image into a grid of small integers (18 bits each for a codebook of 2^18 entries). This crate
//! keeps millions of such grids in plain Parquet files that any Parquet reader opens, and reads them through a memory
//! map with no work but the unpacking of bits. It does not depend on tensors, models or images.
//!
//! # On disk
//!
//! ```text
//! cache/
//!   manifest.json               written last, by rename: a folder without it is an unfinished job
//!   shard-00000-00000.parquet   shard-<rank>-<number>
//!   shard-00000-00001.parquet
//!   quarantine.jsonl            inputs that could not be decoded
//!   keys.index                  beside a large cache: finds keys; made again where it is missing
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
//! | to | see | in `src/` |
//! |---|---|---|
//! | describe a job, and what it will write | [`JobSpec`], [`TokenizerInfo`], [`SourceInfo`], [`GridSpec`], [`JobPlan`] | `format/`, `write/plan.rs` |
//! | write a cache that survives being killed | [`CacheWriter`], [`Row`], [`OpenMode`] | `write/` |
//! | read rows | [`TokenCache`], [`RowMeta`], [`Access`], [`Manifest`] | `read/`, `format/` |
//! | train from it | [`Loader`], [`LoaderConfig`], [`LoaderState`], [`Batch`], [`Requirement`] | `read/loader.rs` |
//! | train while its shards are on their way | [`StreamedCache`], [`PendingRows`], [`SampleOrder`] | `remote/stream/`, `read/order.rs` |
//! | trust it | [`verify()`], [`VerifyReport`], [`CacheError`]; [`check()`], [`CheckReport`] | `integrity/` |
//! | repair it | [`repair()`], [`RepairReport`] | `integrity/repair/` |
//! | look at it | [`inspect()`], [`CacheInfo`]; [`stats()`], [`CacheStats`]; [`Inspection`]; [`find_rows`], [`find_rows_with_progress`], [`rows_with_code`], [`ClassIndex`], [`ClassNames`]; [`diff`] | `inspect/` |
//! | look at a few rows of a large one | [`RowReader`] | `lookup/` |
//! | find rows that are alike | [`near_rows`], [`leak()`]; [`Survey`] | `distance/`, `survey/` |
//! | make one of others, or remove one | [`remove_cache`]; [`merge()`], [`subset()`], [`import_npy`], [`import_npy_pairs`], [`import_parquet`] | `combine/`, `import/` |
//! | take it elsewhere | [`export_npy`], [`export_parquet`] | `export/` |
//! | measure it | [`LoaderBench`], [`LoaderFigures`], [`write_synthetic_cache`], [`write_synthetic_grids`] | `bench/` |
//! | read or write the header of an array file | [`npy`] | `npy.rs` |
//! | write any other file safely | [`AtomicFile`], [`write_atomically`] | `files/` |
//! | the bits themselves | [`pack()`], [`unpack()`], [`unpack_i64`], [`unpack_factorized`] | `format/pack.rs`, `unpack/` |
//!
//! Below them: `shard/`, one Parquet file; `error.rs`; `progress.rs`; `cancel.rs` and `parallel.rs`, work that can be stopped and shared by
//! threads; `permutation.rs`, orders that are computed and not stored.
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
//! job.source = SourceInfo { kind: "class folders".into(), location: "/data/train".into(), images: 10, ..Default::default() };
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

mod bench;
mod cancel;
mod combine;
mod distance;
mod error;
mod export;
mod files;
mod format;
#[doc(hidden)]
pub mod fuzzing;
mod import;
mod inspect;
mod integrity;
mod lookup;
pub mod npy;
mod parallel;
mod permutation;
mod progress;
mod read;
mod remote;
mod shard;
mod survey;
mod unpack;
mod write;

pub use bench::loader::{LoaderBench, LoaderFigures};
pub use bench::synthetic::{write_synthetic_cache, write_synthetic_grids};
pub use cancel::cancel_with;
pub use combine::input::MergeInput;
pub use combine::jobs::views_extend;
pub use combine::merge::merge;
pub use combine::subset::{Selection, images_of_keys, subset};
pub use distance::leak::{Leak, LeakPair, leak};
pub use distance::near_rows::{NearRow, NearRows, near_rows};
pub use error::CacheError;
pub use export::files::{export_npy, export_parquet};
pub use export::npz::export_npz;
pub use export::one_x::export_1x;
pub use export::rows::{export_jsonl, export_llamagen, export_memmap};
pub use export::webdataset::export_webdataset;
pub use files::atomic::{AtomicFile, is_temporary_name, write_atomically};
pub use files::system_names::is_system_name;
pub use format::attached::{ATTACHED_FOLDER, AttachedFile};
pub use format::bit_order::BitOrder;
pub use format::grid::{GRID_TOKENS_MAX, GridSpec};
pub use format::identity::{SourceInfo, TokenizerInfo};
pub use format::job::{DEFAULT_GROUPS_PER_SHARD, DEFAULT_ROWS_PER_GROUP, JobSpec, VIEWS_MAX};
pub use format::manifest::{ByteRange, GroupEntry, Manifest, QuarantineEntry, ShardEntry};
pub use format::margins::{MARGIN_EDGES, Margins};
pub use format::names::MANIFEST_FILE;
pub use format::pack::{TOKEN_BITS_MAX, pack, packed_bytes};
pub use format::quarantine::{QuarantineReader, QuarantineRecord};
pub use format::row::{CLASS_INDEX_MAX, KEY_BYTES_MAX, Row, RowMeta};
pub use format::schema::{FORMAT_VERSION, GROUP_BYTES_MAX};
pub use format::split::Split;
pub use import::arrays::{import_npy, import_npy_pairs};
pub use import::arrow::{import_arrow, is_data_set};
pub use import::bit_profile::{BitProfile, OrderFound};
pub use import::frame_set::FrameSet;
pub use import::importer::ImportOptions;
pub use import::jsonl::import_jsonl;
pub use import::llamagen::import_llamagen;
pub use import::memmap::{TokenType, import_memmap};
pub use import::npz::{holds_npz, import_npz};
pub use import::one_x::import_1x;
pub use import::parquet::import_parquet;
pub use import::webdataset::import_webdataset;
pub use inspect::class_names::{CLASS_NAMES_FILE, ClassNames};
pub use inspect::classes::ClassIndex;
pub use inspect::codes::rows_with_code;
pub use inspect::conflicts::{LabelConflict, LabelConflicts};
pub use inspect::diff::diff;
pub use inspect::differences::{CacheDiff, RowDiff};
pub use inspect::duplicates::SameGrid;
pub use inspect::find::{FoundRows, RowFilter, find_rows, find_rows_with_progress};
pub use inspect::images_by_key::ImagesByKey;
pub use inspect::info::{CacheInfo, ShardInfo, SplitInfo, inspect};
pub use inspect::inspection::{Inspection, stats};
pub use inspect::near::{NearDuplicates, NearPair};
pub use inspect::stats::{CacheStats, ClassRows, Duplicates};
pub use inspect::store::{INSPECTION_FILE, StoredAt};
pub use integrity::check::compare::{EncodeSample, check, check_job};
pub use integrity::check::report::{CheckReport, CheckedImage, CheckedView, Disagreement, Mismatch};
pub use integrity::repair::keys::surviving_keys;
pub use integrity::repair::report::{Deliver, Encode, Encoded, RepairReport};
pub use integrity::repair::whole::repair;
pub use integrity::verify::{Problem, VerifyReport, verify, verify_with_threads};
pub use lookup::key_index::KEY_INDEX_FILE;
pub use lookup::reader::RowReader;
pub use permutation::{Permutation, derive_key};
pub use progress::{CopyProgress, on_copy};
pub use read::cache::TokenCache;
pub use read::columns::VisitImage;
pub use read::loader::{Batch, Loader, LoaderConfig, LoaderState};
pub use read::order::SampleOrder;
pub use read::require::Requirement;
pub use remote::clean::{Cleaned, clean_bucket};
pub use remote::out::allow_single_writer;
pub use remote::stream::rows::PendingRows;
pub use remote::stream::{LeftOut, StreamedCache};
pub use shard::access::Access;
pub use shard::map::{LostPages, handle_lost_pages, lost_any_page};
pub use survey::{SURVEY_FILE, Survey};
pub use unpack::{unpack, unpack_factorized, unpack_i64};
pub use write::plan::JobPlan;
pub use write::progress::images_done;
pub use write::remove::remove_cache;
pub use write::writer::{CacheWriter, Finished, OpenMode};
