//! Two caches, row by row: which rows only one of them has, and where labels, crops and tokens differ.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::Value;

use crate::error::CacheError;
use crate::reader::{RowMeta, TokenCache};

/// Images that are compared at a time.
const BLOCK_IMAGES: usize = 4096;

/// How two caches differ.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct CacheDiff {
    /// Whether they hold the same rows: key, view, label, crop and tokens.
    pub same: bool,
    /// What the manifests say differently: field, first cache, second cache.
    pub manifests: Vec<(&'static str, Value, Value)>,
    /// Rows of the first cache, and of the second.
    pub rows: [usize; 2],
    /// Rows that both have, by key and view.
    pub common_rows: usize,
    /// Rows that only the first has, and only the second.
    pub only_in: [usize; 2],
    /// Keys of the first images that only one of them has.
    pub only_keys: [Vec<String>; 2],
    /// Common rows with different labels.
    pub labels_differ: usize,
    /// Common rows with different crops or mirroring.
    pub crops_differ: usize,
    /// Common rows with different tokens; 0 where grid or bits differ, so that tokens cannot be compared.
    pub tokens_differ: usize,
    /// Tokens that were compared.
    pub tokens: u64,
    /// Tokens that are equal.
    pub equal_tokens: u64,
    /// Bits that were compared.
    pub bits: u64,
    /// Bits that are equal.
    pub equal_bits: u64,
    /// For every bit of a token, from the least significant one: in how many tokens it differs.
    pub unequal_by_bit: Vec<u64>,
    /// The first rows that differ.
    pub listed: Vec<RowDiff>,
}

/// A row that two caches have differently.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RowDiff {
    /// Key of the image.
    pub key: String,
    /// View.
    pub view: u32,
    /// The row in each cache.
    pub rows: [usize; 2],
    /// Labels, where they differ.
    pub labels: Option<[i32; 2]>,
    /// Left edge, top edge and mirroring of the crops, where they differ.
    pub crops: Option<[(i32, i32, bool); 2]>,
    /// Tokens that differ.
    pub unequal_tokens: usize,
    /// Bits that differ.
    pub unequal_bits: usize,
}

/// Compares two caches; of rows that differ, lists the first `listed_max`. `progress` is called with the images of the
/// first cache that are done, and all of them.
///
/// # Errors
/// A column of one of them is damaged, or its file cannot be read. Token bytes are compared as they are.
pub fn diff(
    caches: [&TokenCache; 2],
    listed_max: usize,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<CacheDiff, CacheError> {
    let [a, b] = caches;
    let mut found =
        CacheDiff { manifests: manifests(caches), rows: caches.map(TokenCache::num_rows), ..Default::default() };
    let mut compare = Compare::new(caches, listed_max);
    let mut others = Matches::new(b)?;
    let mut block_b = Block::default();
    for start in (0..a.num_images()).step_by(BLOCK_IMAGES) {
        let images = start..(start + BLOCK_IMAGES).min(a.num_images());
        let metas = a.metas(images.start * a.num_views()..images.end * a.num_views())?;
        for (image, metas) in images.clone().zip(metas.chunks_exact(a.num_views())) {
            let Some(other) = others.take(image, &metas[0].key) else {
                found.only_in[0] += metas.len();
                push_key(&mut found.only_keys[0], &metas[0].key, listed_max);
                continue;
            };
            let metas_b = block_b.metas(b, other)?;
            found.only_in[0] += compare.image(&mut found, [image, other], [metas, metas_b])?;
        }
        progress(images.end as u64, a.num_images() as u64);
    }
    found.only_in[1] = b.num_rows() - found.common_rows;
    others.visit_left(b, &mut |key| push_key(&mut found.only_keys[1], key, listed_max))?;
    found.unequal_by_bit = compare.unequal_by_bit;
    let differing =
        found.only_in.iter().sum::<usize>() + found.labels_differ + found.crops_differ + found.tokens_differ;
    found.same = differing == 0 && compare.is_comparable;
    Ok(found)
}

fn push_key(keys: &mut Vec<String>, key: &str, max: usize) {
    if keys.len() < max {
        keys.push(key.to_owned());
    }
}

fn manifests([a, b]: [&TokenCache; 2]) -> Vec<(&'static str, Value, Value)> {
    let (a, b) = (a.manifest(), b.manifest());
    let text = |value: &str| Value::from(value);
    let value = |value: serde_json::Result<Value>| value.unwrap_or_default();
    let fields = [
        ("content_hash", text(&a.content_hash), text(&b.content_hash)),
        ("grid", text(&a.grid), text(&b.grid)),
        ("bits", a.bits.into(), b.bits.into()),
        ("views", a.views.into(), b.views.into()),
        ("first_view", a.first_view.into(), b.first_view.into()),
        ("recipe", a.recipe.clone(), b.recipe.clone()),
        ("tokenizer", value(serde_json::to_value(&a.tokenizer)), value(serde_json::to_value(&b.tokenizer))),
        ("classes", value(serde_json::to_value(&a.classes)), value(serde_json::to_value(&b.classes))),
        ("quarantined", a.quarantine.images.into(), b.quarantine.images.into()),
    ];
    fields.into_iter().filter(|(_, a, b)| a != b).collect()
}

/// Finds the image of the second cache with a given key. As a rule it has the same number as in the first; only where it
/// has not, a table of all keys is made.
struct Matches {
    /// 64 bits of the hash of each key.
    keys: Vec<u64>,
    by_key: Option<HashMap<u64, u32>>,
    taken: Vec<bool>,
}

impl Matches {
    fn new(cache: &TokenCache) -> Result<Matches, CacheError> {
        let mut keys = Vec::with_capacity(cache.num_images());
        cache.visit_keys(0..cache.num_images(), &mut |_, key| {
            keys.push(short_hash(key));
            Ok(())
        })?;
        let taken = vec![false; keys.len()];
        Ok(Matches { keys, by_key: None, taken })
    }

    fn take(&mut self, image: usize, key: &str) -> Option<usize> {
        let hash = short_hash(key);
        let other = if self.keys.get(image) == Some(&hash) {
            image
        } else {
            let keys = &self.keys;
            *self.by_key.get_or_insert_with(|| keys.iter().copied().zip(0..).collect()).get(&hash)? as usize
        };
        // A key that is there twice finds its first image once.
        (!std::mem::replace(&mut self.taken[other], true)).then_some(other)
    }

    fn visit_left(&self, cache: &TokenCache, visit: &mut dyn FnMut(&str)) -> Result<(), CacheError> {
        if self.taken.iter().all(|taken| *taken) {
            return Ok(());
        }
        cache.visit_keys(0..cache.num_images(), &mut |image, key| {
            if !self.taken[image] {
                visit(key);
            }
            Ok(())
        })
    }
}

fn short_hash(key: &str) -> u64 {
    let hash = blake3::hash(key.as_bytes());
    let (words, _) = hash.as_bytes().as_chunks::<8>();
    u64::from_le_bytes(words[0])
}

/// Rows of the second cache around the last one that was asked for.
#[derive(Default)]
struct Block {
    first: usize,
    metas: Vec<RowMeta>,
}

impl Block {
    fn metas(&mut self, cache: &TokenCache, image: usize) -> Result<&[RowMeta], CacheError> {
        let views = cache.num_views();
        if !(self.first..self.first + self.metas.len() / views).contains(&image) {
            self.first = image / BLOCK_IMAGES * BLOCK_IMAGES;
            let end = (self.first + BLOCK_IMAGES).min(cache.num_images());
            self.metas = cache.metas(self.first * views..end * views)?;
        }
        Ok(&self.metas[(image - self.first) * views..][..views])
    }
}

struct Compare<'a> {
    caches: [&'a TokenCache; 2],
    listed_max: usize,
    is_comparable: bool,
    packed: [Vec<u8>; 2],
    tokens: [Vec<u32>; 2],
    unequal_by_bit: Vec<u64>,
}

impl<'a> Compare<'a> {
    fn new(caches: [&'a TokenCache; 2], listed_max: usize) -> Compare<'a> {
        let [grid, other] = caches.map(TokenCache::grid);
        Compare {
            caches,
            listed_max,
            is_comparable: grid == other,
            packed: Default::default(),
            tokens: [grid, other].map(|grid| vec![0; grid.num_tokens()]),
            unequal_by_bit: vec![0; grid.bits as usize],
        }
    }

    /// Compares the views of an image; returns how many of the first cache's the second one lacks.
    fn image(
        &mut self,
        found: &mut CacheDiff,
        images: [usize; 2],
        [metas_a, metas_b]: [&[RowMeta]; 2],
    ) -> Result<usize, CacheError> {
        let first_rows = [0, 1].map(|i| self.caches[i].image_rows(images[i]).start);
        let mut missing = 0;
        for (place_a, meta_a) in metas_a.iter().enumerate() {
            let Some(place_b) = metas_b.iter().position(|meta_b| meta_b.view == meta_a.view) else {
                missing += 1;
                continue;
            };
            found.common_rows += 1;
            let rows = [first_rows[0] + place_a, first_rows[1] + place_b];
            self.row(found, rows, [meta_a, &metas_b[place_b]])?;
        }
        Ok(missing)
    }

    fn row(&mut self, found: &mut CacheDiff, rows: [usize; 2], metas: [&RowMeta; 2]) -> Result<(), CacheError> {
        let labels = metas.map(|meta| meta.label);
        let crops = metas.map(|meta| (meta.crop_x, meta.crop_y, meta.flip));
        let (unequal_tokens, unequal_bits) = if self.is_comparable { self.tokens(found, rows)? } else { (0, 0) };
        let (labels_differ, crops_differ) = (labels[0] != labels[1], crops[0] != crops[1]);
        found.labels_differ += usize::from(labels_differ);
        found.crops_differ += usize::from(crops_differ);
        found.tokens_differ += usize::from(unequal_tokens > 0);
        if (labels_differ || crops_differ || unequal_tokens > 0) && found.listed.len() < self.listed_max {
            found.listed.push(RowDiff {
                key: metas[0].key.clone(),
                view: metas[0].view,
                rows,
                labels: labels_differ.then_some(labels),
                crops: crops_differ.then_some(crops),
                unequal_tokens,
                unequal_bits,
            });
        }
        Ok(())
    }

    /// Tokens and bits that differ.
    fn tokens(&mut self, found: &mut CacheDiff, rows: [usize; 2]) -> Result<(usize, usize), CacheError> {
        let bits = self.unequal_by_bit.len();
        for ((cache, row), packed) in self.caches.into_iter().zip(rows).zip(&mut self.packed) {
            cache.read_packed(row..row + 1, packed)?;
        }
        let num_tokens = self.tokens[0].len();
        found.tokens += num_tokens as u64;
        found.bits += (num_tokens * bits) as u64;
        let (mut unequal_tokens, mut unequal_bits) = (0, 0);
        if self.packed[0] != self.packed[1] {
            for (packed, tokens) in self.packed.iter().zip(&mut self.tokens) {
                crate::unpack::unpack(packed, bits as u32, tokens);
            }
            for different in self.tokens[0].iter().zip(&self.tokens[1]).map(|(a, b)| a ^ b).filter(|bits| *bits != 0) {
                unequal_tokens += 1;
                unequal_bits += different.count_ones() as usize;
                self.unequal_by_bit.iter_mut().enumerate().for_each(|(bit, n)| *n += u64::from(different >> bit & 1));
            }
        }
        found.equal_tokens += (num_tokens - unequal_tokens) as u64;
        found.equal_bits += (num_tokens * bits - unequal_bits) as u64;
        Ok((unequal_tokens, unequal_bits))
    }
}
