//! Making a damaged cache whole again, to the same bytes.
//!
//! What is intact is kept: intact row groups of a damaged shard are read from it, and only the others are encoded again.
//! The repaired file must be, byte for byte, the one that the manifest vouches for; otherwise nothing is changed. A
//! damaged manifest is made again from the shards' footers, a damaged quarantine list likewise.

mod keys;
mod manifest;
mod shard;

use std::path::Path;

use serde::Serialize;

pub use self::keys::surviving_keys;
use self::manifest::usable_manifest;
use self::shard::ShardRepair;
use crate::error::CacheError;
use crate::fsio::{Lock, TempFile};
use crate::group::Row;
use crate::job::JobSpec;
use crate::manifest::{MANIFEST_FILE, Manifest, QUARANTINE_FILE};
use crate::quarantine::QuarantineRecord;
use crate::shard::Shard;
use crate::verify::{Problem, damaged_parts, problem, verify, verify_quarantine, verify_shard};
use crate::writer::{Name, list_ours, remove_leftovers};

/// What encoding an image again came to.
#[derive(Clone, Debug)]
pub enum Encoded<'a> {
    /// Its rows: all views, in order.
    Rows(&'a [Row<'a>]),
    /// It cannot be decoded, and was so when the cache was written.
    Quarantined(QuarantineRecord),
}

/// Takes one image that was encoded again.
pub type Deliver<'a> = dyn FnMut(usize, Encoded<'_>) -> Result<(), CacheError> + 'a;

/// Encodes images again: called with their numbers in the source, ascending; must deliver each of them, in order.
pub type Encode<'a> =
    dyn FnMut(&[usize], &mut Deliver<'_>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> + 'a;

/// What [`repair()`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RepairReport {
    /// What was wrong before.
    pub found: Vec<Problem>,
    /// What is still wrong: files that do not belong to the cache, which are left to their owner.
    pub remaining: Vec<Problem>,
    /// Whether the manifest was made again.
    pub manifest_rebuilt: bool,
    /// Whether the quarantine list was made again.
    pub quarantine_rebuilt: bool,
    /// Shards that were written again.
    pub shards: Vec<String>,
    /// Row groups that were encoded again; the others were kept.
    pub row_groups_encoded: usize,
    /// Images that were encoded again.
    pub images_encoded: usize,
}

impl RepairReport {
    /// Whether the cache is whole now.
    pub fn is_ok(&self) -> bool {
        self.remaining.is_empty()
    }
}

/// Repairs the cache in `dir`: verifies it, encodes again what is damaged or missing, and restores identical bytes.
///
/// `encode` is called for the images of damaged row groups only, shard by shard (where a shard's footer is damaged: of
/// all its row groups). `job` is what the cache was made by, as far as the caller knows; it is needed only where neither
/// the manifest nor an intact shard says so. Files are replaced by rename, so a reader that has them open is not
/// disturbed.
///
/// # Errors
/// [`CacheError::RepairDiffers`] when the rows are not those that were written, naming the row and the column;
/// [`CacheError::NoManifest`] when the manifest is damaged and cannot be made again; [`CacheError::Encoder`] with what
/// `encode` returned; [`CacheError::JobDiffers`] when `job` is not the cache's; reading or writing failed.
///
/// ```
/// use tokengrid_cache::{Encoded, Row, TokenCache, repair, verify, write_synthetic_cache};
/// # fn main() -> Result<(), tokengrid_cache::CacheError> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let dir = &folder.path().join("cache");
/// # let copy = &folder.path().join("copy");
/// write_synthetic_cache(dir, 100, 2)?;
/// write_synthetic_cache(copy, 100, 2)?; // stands in for the tokenizer below
/// let shard = dir.join("shard-00000-00000.parquet");
/// let mut bytes = std::fs::read(&shard).unwrap();
/// bytes[5000] ^= 1;
/// std::fs::write(&shard, bytes).unwrap();
///
/// let tokenizer = TokenCache::open(copy)?;
/// let report = repair(dir, None, &mut |images, deliver| {
///     let wanted = |image| images.binary_search(&image).is_ok();
///     tokenizer.visit_images(0..100, &wanted, &mut |image, rows| deliver(image, Encoded::Rows(rows)))?;
///     Ok(())
/// })?;
/// assert_eq!((report.is_ok(), report.row_groups_encoded), (true, 1));
/// assert!(verify(dir, &mut |_, _| {})?.is_ok());
/// # Ok(()) }
/// ```
pub fn repair(dir: &Path, job: Option<&JobSpec>, encode: &mut Encode<'_>) -> Result<RepairReport, CacheError> {
    let found = match verify(dir, &mut |_, _| {}) {
        // Shards without a manifest, and no trace of an unfinished job: the manifest was lost.
        Err(CacheError::NotACache { .. }) if has_shards(dir)? => {
            vec![problem(MANIFEST_FILE, None, "the file is missing")]
        }
        other => other?.problems,
    };
    let mut report = RepairReport { found, ..RepairReport::default() };
    if report.found.is_empty() {
        return Ok(report);
    }
    let lock = Lock::wait(&Name::FolderLock.path(dir))?;
    let repaired = repair_locked(dir, job, encode, &mut report);
    drop(lock);
    remove_leftovers(dir);
    repaired?;
    report.remaining = verify(dir, &mut |_, _| {})?.problems;
    Ok(report)
}

fn has_shards(dir: &Path) -> Result<bool, CacheError> {
    Ok(list_ours(dir)?.iter().any(|name| matches!(name, Name::Shard(..))))
}

fn repair_locked(
    dir: &Path,
    job: Option<&JobSpec>,
    encode: &mut Encode<'_>,
    report: &mut RepairReport,
) -> Result<(), CacheError> {
    let (manifest, rebuilt) = usable_manifest(dir, job)?;
    report.manifest_rebuilt = rebuilt;
    let shards = ShardRepair { dir, job: JobSpec::of(&manifest)?, identity: manifest.identity(), manifest: &manifest };
    for entry in &manifest.shards {
        if verify_shard(dir, &manifest, entry, &|_| {})?.is_empty() {
            continue;
        }
        let path = dir.join(&entry.file);
        let damaged = if path.exists() { damaged_parts(&path, entry)? } else { vec![None] };
        shards.repair(entry, &damaged, encode, report)?;
    }
    if !verify_quarantine(dir, &manifest, &|_| {})?.is_empty() {
        restore_quarantine(dir, &manifest)?;
        report.quarantine_rebuilt = true;
    }
    Ok(())
}

/// Writes the quarantine list from the shards' footers, which by now are intact.
fn restore_quarantine(dir: &Path, manifest: &Manifest) -> Result<(), CacheError> {
    let path = dir.join(QUARANTINE_FILE);
    let mut file = TempFile::create(Name::Temp(None).path(dir))?;
    let mut hasher = blake3::Hasher::new();
    // The shards are in the order of the source, and so is the list.
    for entry in &manifest.shards {
        let shard = Shard::open(&dir.join(&entry.file), Some(entry))?;
        for record in &shard.footer.quarantined {
            let line = record.to_line();
            hasher.update(line.as_bytes());
            file.write(line.as_bytes())?;
        }
    }
    if hasher.finalize().to_hex().as_str() != manifest.quarantine.blake3 {
        return Err(CacheError::RepairDiffers { path, what: "records of the shards".to_owned() });
    }
    file.sync()?;
    file.publish(&path)
}
