//! Everything that can be wrong with a cache, a job or a request, one variant each.

use parquet::errors::ParquetError;
use std::io;
use std::path::{Path, PathBuf};
use tokengrid_store::StoreError;

/// An error of this crate. The text says what is wrong, where, what was expected and what to do; the cause, where there
/// is one, is the `source()` and is not repeated in the text.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // The texts are the documentation; fields are named after what they hold.
pub enum CacheError {
    // ---- the file system -------------------------------------------------------------------------------------------
    #[error("cannot {action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },

    // Whether there is something to go on from differs from command to command; all of them find it by themselves.
    #[error("no space left while writing {}: free some space and run the same command again", path.display())]
    DiskFull { path: PathBuf, source: io::Error },

    #[error("{} is on a read-only file system: choose another output folder or remount it", path.display())]
    ReadOnly { path: PathBuf, source: io::Error },

    #[error(
        "{} is in use by another process (lock file {}): wait for it to end, or give this process another rank",
        path.display(), lock.display()
    )]
    Locked { path: PathBuf, lock: PathBuf },

    // ---- what a folder is ------------------------------------------------------------------------------------------
    #[error("{} is not a token cache: it has no manifest.json", path.display())]
    NotACache { path: PathBuf },

    #[error(
        "{} is an unfinished job ({done} of {expected} ranks are done): {advice}",
        path.display()
    )]
    Unfinished { path: PathBuf, done: usize, expected: usize, advice: String },

    #[error(
        "{} is not empty and is not a token cache (found {found}): choose an empty or new folder",
        path.display()
    )]
    FolderNotEmpty { path: PathBuf, found: String },

    // ---- the manifest ----------------------------------------------------------------------------------------------
    #[error("{}: format version {found} is newer than {supported}, the newest known here: update this program", path.display())]
    NewerVersion { path: PathBuf, found: u64, supported: u32 },

    #[error("{} is damaged: it is not the JSON that was written", path.display())]
    ManifestSyntax { path: PathBuf, source: serde_json::Error },

    #[error("{} was altered: its checksum is {actual}, expected {expected}; restore it from a copy", path.display())]
    ManifestChecksum { path: PathBuf, expected: String, actual: String },

    #[error("{}: field {field} is {actual}, expected {expected}; the manifest does not describe one cache", path.display())]
    ManifestField { path: PathBuf, field: &'static str, expected: String, actual: String },

    // ---- shards ----------------------------------------------------------------------------------------------------
    #[error("shard {} is missing: restore it from a copy or write the cache again", path.display())]
    MissingShard { path: PathBuf },

    #[error("shard {} has {actual} bytes, expected {expected}: it was truncated or replaced", path.display())]
    ShardSize { path: PathBuf, expected: u64, actual: u64 },

    #[error("shard {} was replaced while the cache was opened: open it again", path.display())]
    Replaced { path: PathBuf },

    #[error("shard {}: the footer's checksum is {actual}, expected {expected}: it was altered or replaced", path.display())]
    FooterChecksum { path: PathBuf, expected: String, actual: String },

    #[error("shard {}: the Parquet footer cannot be read: the file is damaged or no shard", path.display())]
    FooterSyntax { path: PathBuf, source: ParquetError },

    #[error("shard {}: the file does not end with a Parquet footer ({what}): it was truncated or is not a shard", path.display())]
    FooterFrame { path: PathBuf, what: &'static str },

    #[error("shard {}: metadata {key} is {actual}, expected {expected}", path.display())]
    ShardMetadata { path: PathBuf, key: &'static str, expected: String, actual: String },

    #[error("shard {} belongs to another job: {field} is {actual}, expected {expected}", path.display())]
    ForeignShard { path: PathBuf, field: &'static str, expected: String, actual: String },

    #[error("shard {}: column {column} is {actual}, expected {expected}", path.display())]
    ColumnType { path: PathBuf, column: &'static str, expected: String, actual: String },

    #[error("shard {}, row group {row_group}: {what} is {actual}, expected {expected}", path.display())]
    GroupLayout { path: PathBuf, row_group: usize, what: &'static str, expected: String, actual: String },

    #[error("shard {}, row group {row_group}: the token page's header is damaged ({what})", path.display())]
    PageHeader { path: PathBuf, row_group: usize, what: &'static str },

    #[error("shard {}, row group {row_group}: column {column} was altered: checksum {actual}, expected {expected}", path.display())]
    ColumnChecksum { path: PathBuf, row_group: usize, column: &'static str, expected: String, actual: String },

    #[error("shard {}, row group {row_group}: column {column} cannot be decoded", path.display())]
    ColumnDecode { path: PathBuf, row_group: usize, column: &'static str, source: ParquetError },

    #[error("shard {}, row group {row_group}: column {column} holds {actual}, expected {expected}", path.display())]
    ColumnValue { path: PathBuf, row_group: usize, column: &'static str, expected: String, actual: String },

    #[error("{}: content hash {actual} of the rows differs from the manifest's {expected}", path.display())]
    ContentHash { path: PathBuf, expected: String, actual: String },

    #[error(
        "shard {}: row {row} is another one than when it was first read: the shard was replaced or damaged on its way; steps since \
         the start of this process may have used wrong tokens: go on from an earlier checkpoint",
        path.display()
    )]
    RowChanged { path: PathBuf, row: usize },

    // ---- jobs and writing ------------------------------------------------------------------------------------------
    #[error("grid {grid} at {bits} bits is out of range: 1 to 1048576 tokens of 1 to 24 bits")]
    InvalidGrid { grid: String, bits: u32 },

    #[error("job field {field} is {actual}, expected {expected}")]
    InvalidJob { field: &'static str, expected: String, actual: String },

    #[error(
        "{} holds a cache of another job: {field} is {found} there, {wanted} here; choose another folder, or --overwrite",
        path.display()
    )]
    JobDiffers { path: PathBuf, field: String, found: String, wanted: String },

    #[error(
        "{} was begun with other inputs: what it holds of the first {images} images is not what these inputs give; choose \
         another folder, or --overwrite",
        path.display()
    )]
    InputsDiffer { path: PathBuf, images: usize },

    #[error("{} has {bytes} bytes, more than the {bytes_max} that are read of such a file: it is damaged or another file", path.display())]
    TooLarge { path: PathBuf, bytes: u64, bytes_max: u64 },

    #[error("{}: later shards exist without {}: delete rank {rank}'s later shards and run again", path.display(), missing.display())]
    ShardGap { path: PathBuf, missing: PathBuf, rank: u32 },

    #[error("image {actual} was pushed, expected image {expected}: images come in source order")]
    ImageOrder { expected: usize, actual: usize },

    #[error("image {image} ({key}): {what} is {actual}, expected {expected}")]
    InvalidRow { image: usize, key: String, what: &'static str, expected: String, actual: String },

    #[error("rank {rank} is finished too early: {} images of its part, from image {next} on, were not pushed", end - next)]
    IncompleteRank { rank: u32, next: usize, end: usize },

    #[error("cannot encode {} as Parquet", path.display())]
    Encode { path: PathBuf, source: ParquetError },

    // ---- buckets ---------------------------------------------------------------------------------------------------
    #[error(
        "{} is held by {holder}, which is alive: wait for it to end, or give this process another rank",
        path.display()
    )]
    Leased { path: PathBuf, holder: String },

    #[error(
        "{} was taken over by another process, since it was not renewed for too long: this one stops; what it had uploaded is kept",
        path.display()
    )]
    LeaseLost { path: PathBuf },

    #[error(
        "{} has no conditional writes, without which two writers are not kept apart: write to a local folder and copy it, or say \
         with --single-writer that nobody else writes there",
        path.display()
    )]
    NoConditionalWrites { path: PathBuf },

    #[error(
        "{} was published by another job meanwhile (content hash {content_hash}): nothing of it was changed; choose another \
         place, or --overwrite",
        path.display()
    )]
    PublishedByAnother { path: PathBuf, content_hash: String },

    // ---- caches made of others, and repairs -----------------------------------------------------------------------
    #[error("{} cannot be merged with {}: {field} is {actual}, expected {expected}", other.display(), path.display())]
    CachesDiffer { path: PathBuf, other: PathBuf, field: String, expected: String, actual: String },

    #[error(
        "{key} is both in {} and in {}: merging them would hold it twice; make each a split of its own (NAME=DIR), or, of token sets \
         that were imported, import one again with --key-prefix NAME",
        path.display(), other.display()
    )]
    DuplicateKey { path: PathBuf, other: PathBuf, key: String },

    #[error("there is nothing to merge: name at least one cache")]
    NothingToMerge,

    #[error("{}: {what} is {actual}, expected {expected}", path.display())]
    Selection { path: PathBuf, what: &'static str, expected: String, actual: String },

    #[error("{} has no class names: {what}", path.display())]
    ClassNames { path: PathBuf, what: String },

    #[error("{} exists, and it is not what an export wrote: choose another folder, or --overwrite", path.display())]
    ExportTarget { path: PathBuf },

    #[error("{} holds a cache, among whose files nothing else may be: choose another folder for the export", path.display())]
    ExportIntoCache { path: PathBuf },

    #[error(
        "{} is in use by another process that exports to it (lock file {}): wait for it to end, or choose another folder",
        path.display(), lock.display()
    )]
    ExportInUse { path: PathBuf, lock: PathBuf },

    #[error("{} is not an array file that can be imported: {what}", path.display())]
    NotNpy { path: PathBuf, what: String },

    #[error("{}: {what} is {actual}, expected {expected}", path.display())]
    Import { path: PathBuf, what: &'static str, expected: String, actual: String },

    #[error(
        "{} holds a record of input {index}, expected one of {first} to {}: records are in the order of the source, each once",
        path.display(), end.saturating_sub(1)
    )]
    QuarantineOrder { path: PathBuf, index: usize, first: usize, end: usize },

    #[error("no rows in {}: {what}", path.display())]
    NoRows { path: PathBuf, what: String },

    #[error("{} cannot be read as Parquet", path.display())]
    ImportParquet { path: PathBuf, source: ParquetError },

    #[error("images cannot be encoded again")]
    Encoder { source: Box<dyn std::error::Error + Send + Sync> },

    #[error("image {image} was not encoded again: every image that was asked for must be delivered, in order")]
    NotEncoded { image: usize },

    #[error(
        "encoding {} again gives other rows than it was written with ({what}): nothing was changed; use the same source, \
         tokenizer, device and precision",
        path.display()
    )]
    RepairDiffers { path: PathBuf, what: String },

    #[error("{} cannot be made again from the shards: {what}", path.display())]
    NoManifest { path: PathBuf, what: String },

    #[error("the cache {} does not fit: {field} is {actual}, expected {expected}", path.display())]
    Requirement { path: PathBuf, field: &'static str, expected: String, actual: String },

    #[error(transparent)]
    Store(StoreError),

    #[error("stopped before it was done")]
    Cancelled,

    // ---- requests --------------------------------------------------------------------------------------------------
    #[error("row {row} does not exist: the cache has {num_rows} rows, counted from 0")]
    RowOutOfRange { row: usize, num_rows: usize },

    #[error("the cache {} has no rows: nothing to train on", path.display())]
    Empty { path: PathBuf },

    #[error("loader setting {field} is {actual}, expected {expected}")]
    InvalidLoader { field: &'static str, expected: String, actual: String },
}

impl From<StoreError> for CacheError {
    fn from(error: StoreError) -> CacheError {
        match error {
            StoreError::Cancelled => CacheError::Cancelled,
            StoreError::Io { action, path, source } => io_error(action, &path)(source),
            error => CacheError::Store(error),
        }
    }
}

impl CacheError {
    /// What keeps Parquet from being written to `path`. What the file system says is an error of the file system's.
    pub(crate) fn encode(path: &Path, source: ParquetError) -> CacheError {
        match source {
            ParquetError::External(cause) => match cause.downcast::<io::Error>() {
                Ok(error) => io_error("write", path)(*error),
                Err(cause) => CacheError::Encode { path: path.into(), source: ParquetError::External(cause) },
            },
            source => CacheError::Encode { path: path.into(), source },
        }
    }
}

/// Turns an I/O error into ours, naming the path and giving the two failures that have a remedy their own variants.
pub(crate) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CacheError {
    let path = path.to_owned();
    move |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => CacheError::DiskFull { path, source },
        io::ErrorKind::ReadOnlyFilesystem => CacheError::ReadOnly { path, source },
        _ => CacheError::Io { action, path, source },
    }
}
