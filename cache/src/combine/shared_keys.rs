//! Keys that several caches share, found in bounded memory.

use crate::combine::input::{Input, Piece};
use crate::error::CacheError;
use crate::format::split::Split;

/// Hashes of keys that are held at a time: 64 MiB. More keys take several passes.
const HASHES_MAX: usize = 4 << 20;

/// Refuses inputs that share a key within a split: a row of theirs would be there twice.
///
/// 16 bytes of a hash stand for a key: two keys of 2^40 share one with a probability of 2^-49.
///
/// # Errors
/// [`CacheError::DuplicateKey`]; as [`TokenCache::meta`] where keys are damaged.
pub(crate) fn refuse_duplicates(inputs: &[Input]) -> Result<(), CacheError> {
    let images: usize = inputs.iter().map(Input::num_encoded).sum();
    if inputs.len() < 2 {
        return Ok(());
    }
    let passes = images.div_ceil(HASHES_MAX).max(1) as u128;
    for pass in 0..passes {
        // The hashes are spread evenly over the passes.
        let is_of_pass = |hash: u128| hash % passes == pass;
        // A little more than their share, so that the list need not move to a place of twice the size.
        let share = images / passes as usize;
        let mut hashes = Vec::with_capacity(share + share / 64 + 1024);
        for input in inputs {
            visit_hashes(input, &mut |hash, _| {
                if is_of_pass(hash) {
                    hashes.push(hash);
                }
                Ok(())
            })?;
        }
        hashes.sort_unstable();
        let repeated: Vec<u128> = hashes.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
        if !repeated.is_empty() {
            return Err(name_first(inputs, &repeated)?);
        }
    }
    Ok(())
}

/// The error for the first key that is there twice.
fn name_first(inputs: &[Input], repeated: &[u128]) -> Result<CacheError, CacheError> {
    let mut seen: Vec<(u128, usize)> = Vec::new();
    for (index, input) in inputs.iter().enumerate() {
        let found = visit_hashes(input, &mut |hash, key| {
            if repeated.binary_search(&hash).is_err() {
                return Ok(());
            }
            if let Some((_, other)) = seen.iter().find(|(other, _)| *other == hash) {
                let path = inputs[*other].cache.dir().into();
                return Err(CacheError::DuplicateKey { path, other: input.cache.dir().into(), key: key.to_owned() });
            }
            // Only until the first one is found: as many as there are in front of it.
            seen.push((hash, index));
            Ok(())
        });
        match found {
            Ok(()) => {}
            Err(error @ CacheError::DuplicateKey { .. }) => return Ok(error),
            Err(error) => return Err(error),
        }
    }
    unreachable!("a hash that was there twice is there twice")
}

/// Calls `visit` with the hash of split and key, and the key, of every image of an input.
fn visit_hashes(input: &Input, visit: &mut dyn FnMut(u128, &str) -> Result<(), CacheError>) -> Result<(), CacheError> {
    let splits = &input.identity.splits;
    for piece in input.pieces()? {
        let Piece::Encoded { images, source } = piece? else { continue };
        let (split, first) = (input.split.as_deref(), images.start);
        input.cache.visit_keys(images, &mut |image, key| {
            let split = split.unwrap_or_else(|| Split::name_of(splits, source + image - first));
            let mut hasher = blake3::Hasher::new();
            hasher.update(split.as_bytes()).update(b"\0").update(key.as_bytes());
            let hash = hasher.finalize();
            let (words, _) = hash.as_bytes().as_chunks::<16>();
            visit(u128::from_le_bytes(words[0]), key)
        })?;
    }
    Ok(())
}
