//! Row groups of a cache in a bucket, read by ranges: for whoever looks at some rows and stages nothing.
//!
//! A column is compared with its checksum. The grid of a single row is covered by none; the store's tag of the object ensures
//! that it is of the shard whose footer was checked.

use super::staged::{files_of, read_manifest};
use super::stream::labels::{missing, objects_of};
use super::stream::rows::joined;
use crate::cancel;
use crate::error::{CacheError, io_error};
use crate::format::manifest::Manifest;
use crate::format::schema::{KEY, LABEL};
use crate::shard::open::Shard;
use bytes::Bytes;
use std::collections::VecDeque;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use tokengrid_store::{Bucket, Fetch, Object, Place, Staging, StoreError};

/// Row groups whose columns are on their way while others are searched: 16,384 rows take some 100 kB.
const GROUPS_AHEAD: usize = 64;

/// A finished cache in a bucket, of which nothing is kept on this machine.
pub(crate) struct Ranges {
    dir: PathBuf,
    bucket: Bucket,
    objects: Vec<Object>,
    shards: Vec<OnceLock<Shard>>,
    /// The row group whose columns were read last.
    last: Mutex<Option<Columns>>,
}

/// A row group, by shard and number in it, and the file of which only its columns are here.
type Columns = (usize, usize, Arc<Bytes>);

impl Ranges {
    /// Opens the cache at `dir`; `None` where it is a local one, or all of it is staged.
    pub(crate) fn open_unstaged(dir: &Path) -> Result<Option<(Manifest, Ranges)>, CacheError> {
        let Some(place) = Place::parse(dir)? else { return Ok(None) };
        let bucket = Bucket::of(&place)?;
        let (manifest, text) = read_manifest(dir, &place, &bucket)?;
        // A stage folder that cannot be used is no obstacle here.
        let staging = Staging::begin(&place, &bucket, files_of(&place, &manifest, &text));
        if staging.is_ok_and(|staging| staging.is_complete()) {
            return Ok(None);
        }
        let objects = objects_of(dir, &place, &bucket, &manifest)?;
        let shards = objects.iter().map(|_| OnceLock::new()).collect();
        let ranges = Ranges { dir: dir.to_owned(), bucket, objects, shards, last: Mutex::default() };
        Ok(Some((manifest, ranges)))
    }

    /// A shard of which only the footer is here.
    pub(crate) fn shard(&self, manifest: &Manifest, index: usize) -> Result<&Shard, CacheError> {
        match self.shards[index].get() {
            Some(shard) => Ok(shard),
            None => self.keep_footer(manifest, index, self.begin_footer(manifest, index)?),
        }
    }

    /// The columns of a row group, all but the tokens, where they lie in the file.
    pub(crate) fn columns(&self, manifest: &Manifest, index: usize, group: usize) -> Result<Arc<Bytes>, CacheError> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, _, file)) = last.filter(|(shard, known, _)| (*shard, *known) == (index, group)) {
            return Ok(file);
        }
        let shard = self.shard(manifest, index)?;
        let range = shard.columns_range(group);
        let bytes = self.begin(index, range.clone())?.wait().map_err(self.missing(manifest, index))?;
        let file = with_holes(shard, &[(range, bytes)])?;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((index, group, Arc::clone(&file)));
        Ok(file)
    }

    /// Appends the `row_bytes` bytes at each of these places, by shard and offset, to `out`. Those near each other are read together, and
    /// all at once.
    pub(crate) fn read(
        &self,
        manifest: &Manifest,
        places: &[(usize, u64)],
        row_bytes: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), CacheError> {
        let begin = |(index, range): (usize, Range<u64>)| Ok((index, range.start, self.begin(index, range)?));
        let spans = joined(places.to_vec(), row_bytes as u64).into_iter().map(begin);
        let mut read = Vec::new();
        for (index, start, fetch) in spans.collect::<Result<Vec<_>, CacheError>>()? {
            read.push((index, start, fetch.wait().map_err(self.missing(manifest, index))?));
        }
        for place in places {
            let span = read.partition_point(|(index, start, _)| (*index, *start) <= *place) - 1;
            let (_, start, bytes) = &read[span];
            let start = (place.1 - start) as usize;
            out.extend_from_slice(&bytes[start..start + row_bytes]);
        }
        Ok(())
    }

    /// The images among `images` of a class, and with a text in their key.
    pub(crate) fn find(
        &self,
        manifest: &Manifest,
        images: &Range<usize>,
        label: Option<i32>,
        text: Option<&str>,
    ) -> Result<Vec<u32>, CacheError> {
        let mut found = Vec::new();
        let mut groups = self.groups(manifest, images)?.into_iter();
        let mut ahead = VecDeque::new();
        loop {
            cancel::check()?;
            while ahead.len() < GROUPS_AHEAD
                && let Some((index, group, first)) = groups.next()
            {
                let shard = self.shard(manifest, index)?;
                let begin = |name| {
                    let range = shard.column_range(group, name);
                    self.begin(index, range.clone()).map(|fetch| (range, fetch))
                };
                let columns = [label.map(|_| LABEL), text.map(|_| KEY)].into_iter().flatten().map(begin);
                ahead.push_back((index, group, first, columns.collect::<Result<Vec<_>, _>>()?));
            }
            let Some((index, group, first, columns)) = ahead.pop_front() else { return Ok(found) };
            let shard = self.shard(manifest, index)?;
            let wait = |(range, fetch): (_, Fetch)| Ok((range, fetch.wait().map_err(self.missing(manifest, index))?));
            let file = with_holes(shard, &columns.into_iter().map(wait).collect::<Result<Vec<_>, CacheError>>()?)?;
            let num_images = shard.group_images(group);
            let mut is_wanted = vec![true; num_images];
            if let Some(label) = label {
                is_wanted
                    .iter_mut()
                    .zip(shard.image_labels(&file, group)?)
                    .for_each(|(is, other)| *is = other == label);
            }
            if let Some(text) = text {
                let keys = shard.keys(&file, group, 0..shard.group_rows(group))?;
                for (is, key) in is_wanted.iter_mut().zip(keys.iter().step_by(manifest.views as usize)) {
                    *is = *is && shard.key_text(group, key)?.contains(text);
                }
            }
            let matching = (first..first + num_images).zip(is_wanted);
            let matching = matching.filter(|(image, is)| *is && images.contains(image)).map(|(image, _)| image);
            found.extend(matching.map(|image| u32::try_from(image).expect("fewer than 2^32 images")));
        }
    }

    /// The row groups with any of `images`: shard, number in it, first image. The footers of their shards are read, all at once.
    fn groups(&self, manifest: &Manifest, images: &Range<usize>) -> Result<Vec<(usize, usize, usize)>, CacheError> {
        let (mut groups, mut next) = (Vec::new(), 0);
        for (index, entry) in manifest.shards.iter().enumerate() {
            for (group, entry) in entry.row_groups.iter().enumerate() {
                let end = next + entry.rows / manifest.views as usize;
                if next < images.end && end > images.start {
                    groups.push((index, group, next));
                }
                next = end;
            }
        }
        let is_new = |index: &usize| self.shards[*index].get().is_none();
        let mut unread: Vec<usize> = groups.iter().map(|(index, ..)| *index).filter(is_new).collect();
        unread.dedup();
        let footers = unread.iter().map(|index| Ok((*index, self.begin_footer(manifest, *index)?)));
        for (index, footer) in footers.collect::<Result<Vec<_>, CacheError>>()? {
            self.keep_footer(manifest, index, footer)?;
        }
        Ok(groups)
    }

    fn begin(&self, index: usize, range: Range<u64>) -> Result<Fetch, CacheError> {
        let object = &self.objects[index];
        Ok(self.bucket.fetch(&object.key, range, object.tag.as_deref())?)
    }

    fn missing(&self, manifest: &Manifest, index: usize) -> impl FnOnce(StoreError) -> CacheError {
        missing(&self.dir, &manifest.shards[index])
    }

    fn begin_footer(&self, manifest: &Manifest, index: usize) -> Result<Fetch, CacheError> {
        let entry = &manifest.shards[index];
        self.begin(index, entry.footer.offset..entry.bytes)
    }

    fn keep_footer(&self, manifest: &Manifest, index: usize, footer: Fetch) -> Result<&Shard, CacheError> {
        let entry = &manifest.shards[index];
        let footer = footer.wait().map_err(self.missing(manifest, index))?;
        let shard = Shard::from_tail(&self.dir.join(&entry.file), entry, &footer)?;
        shard.check_belongs(&manifest.job, manifest.grid_spec(), manifest.views)?;
        shard.check_entry(entry)?;
        Ok(self.shards[index].get_or_init(|| shard))
    }
}

/// A shard's file of which only these parts are here. The holes take no memory.
pub(super) fn with_holes(shard: &Shard, parts: &[(Range<u64>, Bytes)]) -> Result<Arc<Bytes>, CacheError> {
    let failed = |source| io_error("map", &shard.path)(source);
    let mut file =
        memmap2::MmapOptions::new().len(shard.bytes as usize).no_reserve_swap().map_anon().map_err(failed)?;
    for (range, bytes) in parts {
        file[range.start as usize..range.end as usize].copy_from_slice(bytes);
    }
    Ok(Arc::new(Bytes::from_owner(file.make_read_only().map_err(failed)?)))
}
