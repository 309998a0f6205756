//! The label of every image, in two bytes where that is enough: there may be ten million.

use crate::error::CacheError;
use crate::parallel;
use crate::shard::open::Shard;
use bytes::Bytes;
use std::sync::{Arc, Mutex, PoisonError};

/// The largest label that fits two bytes, beside -1.
const NARROW_MAX: i32 = u16::MAX as i32 - 1;

pub(super) enum Labels {
    /// Each plus one.
    Narrow(Vec<u16>),
    Wide(Vec<i32>),
}

impl Labels {
    /// Reads and verifies the labels of all shards. `releases`: the pages around them need not stay in memory.
    pub(super) fn read(shards: &[(Shard, Arc<Bytes>)], threads: usize, releases: bool) -> Result<Labels, CacheError> {
        let groups =
            || shards.iter().flat_map(|(shard, bytes)| (0..shard.num_groups()).map(move |g| (shard, bytes, g)));
        let images = groups().map(|(shard, _, group)| shard.group_images(group)).sum();
        // The footers say so, and are believed only as far as the labels agree.
        let is_narrow = groups().all(|(shard, _, group)| shard.label_max(group).is_some_and(|max| max <= NARROW_MAX));
        if is_narrow {
            let mut labels = vec![0; images];
            let narrow = |label: i32| u16::try_from(label + 1).ok();
            if fill(&mut labels, &groups().collect::<Vec<_>>(), threads, releases, narrow)? {
                return Ok(Labels::Narrow(labels));
            }
        }
        let mut labels = vec![0; images];
        fill(&mut labels, &groups().collect::<Vec<_>>(), threads, releases, Some)?;
        Ok(Labels::Wide(labels))
    }

    #[inline]
    pub(super) fn get(&self, image: usize) -> i32 {
        match self {
            Labels::Narrow(labels) => i32::from(labels[image]) - 1,
            Labels::Wide(labels) => labels[image],
        }
    }
}

/// Reads the labels of row groups into `out`, each through `convert`. Whether all of them could be converted.
fn fill<T: Send>(
    mut out: &mut [T],
    groups: &[(&Shard, &Arc<Bytes>, usize)],
    threads: usize,
    releases: bool,
    convert: impl Fn(i32) -> Option<T> + Sync,
) -> Result<bool, CacheError> {
    let mut parts = Vec::with_capacity(groups.len());
    for (shard, _, group) in groups {
        let (part, rest) = out.split_at_mut(shard.group_images(*group));
        parts.push(Mutex::new(part));
        out = rest;
    }
    let converted = parallel::map(threads, groups.len(), &mut |_| {}, |index, _| {
        let (shard, bytes, group) = groups[index];
        let mut part = parts[index].lock().unwrap_or_else(PoisonError::into_inner);
        for (slot, label) in part.iter_mut().zip(shard.image_labels(bytes, group)?) {
            match convert(label) {
                Some(label) => *slot = label,
                None => return Ok(false),
            }
        }
        if releases {
            shard.release(bytes, group);
        }
        Ok(true)
    })?;
    Ok(converted.into_iter().all(|is_converted| is_converted))
}
