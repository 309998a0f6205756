//! A cache that is written into a bucket: the writer works in a folder of this machine, and what is finished there is uploaded.
//!
//! The bucket is authoritative. It holds the same files as a local folder: the job file, parts, shards, done-markers, last the
//! manifest; and a lease for each rank. A writer that starts takes the rank's lease, makes its folder equal to the bucket, and
//! continues from there, on any machine: finished work that was not uploaded is repeated. Objects appear complete. The manifest
//! is written last, if there is none: of two publishers only one succeeds.

use super::lease::{Lease, is_held, is_known_dead};
use crate::error::{CacheError, io_error};
use crate::files::small::{list_names, remove_if_present};
use crate::format::hash::blake3_hex;
use crate::format::job::JobSpec;
use crate::format::job_file::JobFile;
use crate::format::manifest::Manifest;
use crate::format::names::{Name, parse_name};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use tokengrid_store::{Bucket, Object, Place, StoreError, stage_folder};

static SINGLE_WRITER: AtomicBool = AtomicBool::new(false);

/// States that no other process writes where this one does: stores without conditional writes are then allowed, on which
/// one of two publishers could overwrite the other.
pub fn allow_single_writer() {
    SINGLE_WRITER.store(true, Ordering::Relaxed);
}

/// A rank's hold on a cache in a bucket.
pub(crate) struct Remote {
    place: Place,
    bucket: Bucket,
    rank: u32,
    /// The working folder on this machine.
    folder: PathBuf,
    /// `None` where the store has no conditional writes.
    lease: Option<Lease>,
}

impl Remote {
    /// Takes the rank's lease and makes the working folder equal to the bucket. `None` for a local path.
    pub(crate) fn open(dir: &Path, job: &JobSpec, overwrite: bool) -> Result<Option<Remote>, CacheError> {
        let Some(place) = Place::parse(dir)? else { return Ok(None) };
        let (bucket, rank) = (Bucket::of(&place)?, job.rank);
        let id = &blake3_hex(format!("{place} {rank}").as_bytes())[..24];
        let folder = stage_folder().join("out").join(id);
        fs::create_dir_all(&folder).map_err(io_error("create folder", &folder))?;
        let mut remote = Remote { place, bucket, rank, folder, lease: None };
        let found = remote.list()?;
        remote.refuse_foreign(&found)?;
        if overwrite {
            remote.remove_replaced(&found, job)?;
        }
        remote.download(Name::Manifest)?;
        if !remote.has(Name::Manifest) {
            remote.lease = remote.take_lease()?;
            // What an earlier holder has written until it lost the lease.
            let mut found = remote.list()?;
            if !found.has(Name::Job) {
                // Of a job that was being removed when its process died.
                remote.remove_work(&mut found)?;
            }
            remote.pull(&found)?;
        }
        Ok(Some(remote))
    }

    /// Where the cache lies.
    pub(crate) fn url(&self) -> PathBuf {
        self.place.to_string().into()
    }

    /// The working folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    fn key(&self, name: Name) -> String {
        self.place.join(&name.to_text()).key().to_owned()
    }

    fn local(&self, name: Name) -> PathBuf {
        name.path(&self.folder)
    }

    fn has(&self, name: Name) -> bool {
        self.local(name).exists()
    }

    /// Files of ours in the bucket, and the name of one that is not.
    fn list(&self) -> Result<Listing, CacheError> {
        let mut found = Listing::default();
        let prefix = self.place.prefix();
        for object in self.bucket.list(self.place.key())? {
            let name = object.key.strip_prefix(&prefix).unwrap_or(&object.key);
            match parse_name(name) {
                Some(name) => found.ours.push((name, object)),
                None => _ = found.foreign.get_or_insert_with(|| name.to_owned()),
            }
        }
        Ok(found)
    }

    fn refuse_foreign(&self, found: &Listing) -> Result<(), CacheError> {
        let is_job = found.has(Name::Manifest) || found.has(Name::Job);
        match &found.foreign {
            Some(name) if !is_job => Err(CacheError::FolderNotEmpty { path: self.url(), found: name.clone() }),
            _ => Ok(()),
        }
    }

    /// Removes what `--overwrite` replaces. Another rank of the same call may have begun already: then only this rank's part of
    /// it. Else all of it, the manifest first and the job file last: killed in between, the same call continues.
    fn remove_replaced(&self, found: &Listing, job: &JobSpec) -> Result<(), CacheError> {
        if !found.has(Name::Manifest) && self.is_begun(job)? {
            let own = found.ours.iter().map(|(name, _)| *name).filter(|name| name.is_work_of(self.rank));
            return self.remove(&own.collect::<Vec<_>>());
        }
        for (name, lease) in &found.ours {
            if matches!(name, Name::Lease(_)) && is_held(&self.bucket, &lease.key)? {
                let (path, holder) = (self.bucket.place(&lease.key).to_string().into(), "another process".to_owned());
                return Err(CacheError::Leased { path, holder });
            }
        }
        let others =
            found.ours.iter().map(|(name, _)| *name).filter(|name| !matches!(name, Name::Manifest | Name::Job));
        let all = [Name::Manifest].into_iter().chain(others).chain([Name::Job]);
        self.remove(&all.collect::<Vec<_>>())
    }

    /// Whether the bucket holds the beginning of just this job.
    fn is_begun(&self, job: &JobSpec) -> Result<bool, CacheError> {
        let Some(text) = self.bucket.read(&self.key(Name::Job))? else { return Ok(false) };
        let found: Option<JobFile> = serde_json::from_slice(&text).ok();
        Ok(found.is_some_and(|found| {
            found.world_size == job.world_size && found.job.first_difference(&job.identity()).is_none()
        }))
    }

    /// Removes this rank's files from the bucket and from the listing.
    fn remove_work(&self, found: &mut Listing) -> Result<(), CacheError> {
        let own: Vec<Name> =
            found.ours.iter().map(|(name, _)| *name).filter(|name| name.is_work_of(self.rank)).collect();
        found.ours.retain(|(name, _)| !own.contains(name));
        self.remove(&own)
    }

    /// Tries whether the store keeps two writers apart, and takes the lease if it does.
    fn take_lease(&self) -> Result<Option<Lease>, CacheError> {
        if let Err(error) = check_conditional(&self.bucket, &self.key(Name::Probe(random_number()))) {
            return match error {
                StoreError::Unsupported { .. } if SINGLE_WRITER.load(Ordering::Relaxed) => Ok(None),
                StoreError::Unsupported { .. } => {
                    Err(CacheError::NoConditionalWrites { path: self.place.root().to_owned().into() })
                }
                error => Err(error.into()),
            };
        }
        Lease::take(&self.bucket, &self.key(Name::Lease(self.rank))).map(Some)
    }

    /// Makes the working folder equal to what the bucket holds of the job and of this rank.
    fn pull(&self, found: &Listing) -> Result<(), CacheError> {
        let is_wanted = |name: &Name| name.is_work_of(self.rank) || *name == Name::Job;
        let wanted: Vec<&(Name, Object)> = found.ours.iter().filter(|(name, _)| is_wanted(name)).collect();
        for text in list_names(&self.folder)? {
            let Some(name) = parse_name(&text) else { continue };
            let is_same = |(other, object): &&(Name, Object)| {
                *other == name && fs::metadata(self.local(name)).is_ok_and(|file| file.len() == object.bytes)
            };
            // Names of shards and parts do not identify their contents, which are checked before the job continues from them.
            let is_kept = matches!(name, Name::Shard(..) | Name::Part(..)) && wanted.iter().any(is_same);
            if !is_kept && !matches!(name, Name::FolderLock | Name::RankLock(_)) {
                remove_if_present(&self.local(name))?;
            }
        }
        wanted.iter().filter(|(name, _)| !self.has(*name)).try_for_each(|(name, _)| self.download(*name))
    }

    /// Fetches a file into the working folder; one that is not there is removed there.
    fn download(&self, name: Name) -> Result<(), CacheError> {
        let local = self.local(name);
        remove_if_present(&local)?;
        let Some(object) = self.bucket.head(&self.key(name))? else { return Ok(()) };
        let temporary = self.local(Name::Temp(Some(self.rank)));
        let mut file = fs::File::create(&temporary).map_err(io_error("create", &temporary))?;
        let mut download = self.bucket.download(&object);
        while let Some(bytes) = download.next_range()? {
            std::io::Write::write_all(&mut file, &bytes).map_err(io_error("write", &temporary))?;
        }
        fs::rename(&temporary, &local).map_err(io_error("rename", &local))
    }

    /// Uploads a file of the working folder, while this rank is still ours.
    pub(crate) fn upload(&self, name: Name) -> Result<(), CacheError> {
        self.check()?;
        Ok(self.bucket.upload(&self.local(name), &self.key(name))?)
    }

    fn check(&self) -> Result<(), CacheError> {
        self.lease.as_ref().map_or(Ok(()), Lease::check)
    }

    /// Removes files from the bucket that are part of others now.
    pub(crate) fn remove(&self, names: &[Name]) -> Result<(), CacheError> {
        let keys: Vec<String> = names.iter().map(|name| self.key(*name)).collect();
        Ok(self.bucket.delete(&keys)?)
    }

    /// Writes the job file, unless another rank was faster; then its file replaces ours.
    pub(crate) fn begin(&self) -> Result<Begin, CacheError> {
        let text = fs::read(self.local(Name::Job)).map_err(io_error("read", &self.local(Name::Job)))?;
        if self.lease.is_none() {
            self.bucket.put(&self.key(Name::Job), text.into())?;
            return Ok(Begin::Ours);
        }
        if self.bucket.create(&self.key(Name::Job), text.clone().into())?.is_some() {
            return Ok(Begin::Ours);
        }
        self.download(Name::Job)?;
        let theirs = fs::read(self.local(Name::Job)).map_err(io_error("read", &self.local(Name::Job)))?;
        Ok(if theirs == text { Begin::Ours } else { Begin::Others })
    }

    /// Removes objects from the bucket that this rank no longer needs: parts that a shard contains, for example.
    pub(crate) fn forget_stale(&self) -> Result<(), CacheError> {
        let stale = |(name, _): &&(Name, Object)| name.is_work_of(self.rank) && !self.has(*name);
        let found = self.list()?;
        let names: Vec<Name> = found.ours.iter().filter(stale).map(|(name, _)| *name).collect();
        self.remove(&names)
    }

    /// Fetches what decides whether this rank is the last one: a manifest, or the done-markers of the others.
    pub(crate) fn pull_markers(&self) -> Result<(), CacheError> {
        let found = self.list()?;
        let is_marker = |name: &Name| matches!(name, Name::Done(rank) if *rank != self.rank) || *name == Name::Manifest;
        found.ours.iter().filter(|(name, _)| is_marker(name)).try_for_each(|(name, _)| self.download(*name))
    }

    /// Publishes the quarantine list and the manifest of the working folder. Another publisher may be faster: the same rows are
    /// no conflict.
    pub(crate) fn publish(&self, manifest: &Manifest) -> Result<(), CacheError> {
        self.upload(Name::Quarantine)?;
        let path = self.local(Name::Manifest);
        let text = fs::read(&path).map_err(io_error("read", &path))?;
        let key = self.key(Name::Manifest);
        let is_first = match self.lease {
            Some(_) => self.bucket.create(&key, text.into())?.is_some(),
            None if self.bucket.head(&key)?.is_some() => false,
            None => self.bucket.put(&key, text.into()).map(|_| true)?,
        };
        if is_first {
            return Ok(());
        }
        let theirs = Manifest::read(Path::new(&self.place.to_string()))?;
        if theirs.content_hash == manifest.content_hash && theirs.shards == manifest.shards {
            return Ok(());
        }
        Err(CacheError::PublishedByAnother { path: self.url(), content_hash: theirs.content_hash })
    }

    /// After publishing: removes from the bucket all that no reader needs, and the working folder. Other ranks may still be
    /// about to learn that they are done: their leases stay.
    pub(crate) fn clean(self, manifest: &Manifest) {
        let is_needed = |name: &Name| match name {
            Name::Manifest | Name::Quarantine => true,
            Name::Shard(..) => manifest.shards.iter().any(|shard| shard.file == name.to_text()),
            Name::Lease(_) => !is_known_dead(&self.bucket, &self.key(*name)),
            _ => false,
        };
        if let Ok(found) = self.list() {
            let names: Vec<Name> = found.ours.iter().map(|(name, _)| *name).filter(|name| !is_needed(name)).collect();
            // Remaining objects are found by `cache clean`; readers ignore them.
            let _ = self.remove(&names);
        }
        self.leave();
    }

    /// Gives the lease back and removes the working folder: what counts is in the bucket.
    pub(crate) fn leave(self) {
        let Remote { folder, lease, .. } = self;
        drop(lease);
        let _ = fs::remove_dir_all(folder);
    }
}

/// Whose job file is in the bucket.
pub(crate) enum Begin {
    Ours,
    Others,
}

#[derive(Default)]
struct Listing {
    ours: Vec<(Name, Object)>,
    foreign: Option<String>,
}

impl Listing {
    fn has(&self, wanted: Name) -> bool {
        self.ours.iter().any(|(name, _)| *name == wanted)
    }
}

/// A number that no other process has at this moment.
fn random_number() -> u32 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let machine = fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let text = [&now.as_nanos().to_le_bytes()[..], &std::process::id().to_le_bytes(), &machine].concat();
    let hash = blake3::hash(&text);
    let [a, b, c, d, ..] = *hash.as_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// Whether a write that must not replace anything is refused where there is something. Some stores take it and replace.
fn check_conditional(bucket: &Bucket, key: &str) -> Result<(), StoreError> {
    let write = || bucket.create(key, b"whether conditional writes work".to_vec().into());
    // The answer to the first write may be lost, and its repetition be refused; then the object exists nevertheless.
    let second = write().and_then(|_| write());
    bucket.delete(&[key.to_owned()])?;
    match second? {
        None => Ok(()),
        Some(_) => {
            Err(StoreError::Unsupported { place: bucket.place(key), what: "the store has no conditional writes" })
        }
    }
}
