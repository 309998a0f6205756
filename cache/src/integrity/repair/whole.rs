//! A cache as a whole: shard by shard, then the lists.

use crate::error::CacheError;
use crate::files::lock::Lock;
use crate::files::temporary::TempFile;
use crate::format::job::JobSpec;
use crate::format::manifest::Manifest;
use crate::format::names::{MANIFEST_FILE, Name, QUARANTINE_FILE, list_ours};
use crate::integrity::repair::manifest::usable_manifest;
use crate::integrity::repair::report::{Encode, RepairReport};
use crate::integrity::repair::shard::ShardRepair;
use crate::integrity::verify::{damaged_parts, problem, verify, verify_quarantine, verify_shard};
use crate::shard::open::Shard;
use crate::write::folder::remove_leftovers;
use std::path::Path;

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
/// `encode` returned; [`CacheError::JobDiffers`] when `job` is not the cache's; [`CacheError::Io`],
/// [`CacheError::DiskFull`] and [`CacheError::ReadOnly`] when a file cannot be read or written.
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
