//! Keys and labels of some consecutive images, packed: neighbours share most of their keys, and labels come in runs.
//!
//! Keys: for each, the length of the prefix that it shares with the one before, the length of the rest, the rest. Labels:
//! for each run, the label plus one, and its images. Numbers are varints.

use crate::lookup::signature;

/// Images of a block.
pub(super) const BLOCK_IMAGES: usize = 1024;

/// What goes into a block.
#[derive(Default)]
pub(super) struct BlockWriter {
    pub(super) keys: Vec<u8>,
    pub(super) labels: Vec<u8>,
    pub(super) images: usize,
    previous: Vec<u8>,
    run: Option<(i32, u64)>,
}

impl BlockWriter {
    pub(super) fn push(&mut self, key: &str, label: i32, signature: &mut [u8]) {
        let key = key.as_bytes();
        let shared = key.iter().zip(&self.previous).take_while(|(a, b)| a == b).count();
        put(&mut self.keys, shared as u64);
        put(&mut self.keys, (key.len() - shared) as u64);
        self.keys.extend_from_slice(&key[shared..]);
        signature::add(signature, key, shared);
        self.previous.truncate(shared);
        self.previous.extend_from_slice(&key[shared..]);
        match &mut self.run {
            Some((of_run, images)) if *of_run == label => *images += 1,
            _ => {
                self.end_run();
                self.run = Some((label, 1));
            }
        }
        self.images += 1;
    }

    pub(super) fn end_run(&mut self) {
        if let Some((label, images)) = self.run.take() {
            put(&mut self.labels, (i64::from(label) + 1) as u64);
            put(&mut self.labels, images);
        }
    }

    pub(super) fn clear(&mut self) {
        self.keys.clear();
        self.labels.clear();
        self.previous.clear();
        self.images = 0;
    }
}

/// Calls `visit` with the place of each of a block's `images` keys that has `text` as a part. `None` where the bytes are
/// not those of such a block.
pub(super) fn visit_keys_with(keys: &[u8], images: usize, text: &[u8], visit: &mut dyn FnMut(usize)) -> Option<()> {
    let mut rest = keys;
    let mut key = Vec::new();
    // Where the first occurrence in the key ends.
    let mut end: Option<usize> = None;
    for image in 0..images {
        let (shared, length) = (take(&mut rest)? as usize, take(&mut rest)? as usize);
        let more = rest.get(..length)?;
        rest = &rest[length..];
        if shared > key.len() {
            return None;
        }
        key.truncate(shared);
        key.extend_from_slice(more);
        // What the key before had in the part that both share, this one has, too.
        end = end.filter(|end| *end <= shared).or_else(|| {
            let from = (shared + 1).saturating_sub(text.len()).min(shared);
            position(&key[from..], text).map(|place| from + place + text.len())
        });
        if end.is_some() {
            visit(image);
        }
    }
    rest.is_empty().then_some(())
}

fn position(key: &[u8], text: &[u8]) -> Option<usize> {
    let Some(first) = text.first() else { return Some(0) };
    key.windows(text.len()).position(|part| part[0] == *first && part == text)
}

/// The labels of a block's `images`, as runs: each label and its images.
pub(super) fn visit_runs(labels: &[u8], images: usize, visit: &mut dyn FnMut(i32, usize)) -> Option<()> {
    let mut rest = labels;
    let mut left = images;
    while left > 0 {
        let (label, run) = (take(&mut rest)?, take(&mut rest)? as usize);
        left = left.checked_sub(run).filter(|_| run > 0)?;
        visit(i32::try_from(label as i64 - 1).ok()?, run);
    }
    rest.is_empty().then_some(())
}

fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..35).step_by(7) {
        let (byte, tail) = rest.split_first()?;
        *rest = tail;
        number |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lookup::signature::{SIGNATURE_BYTES, Wanted};
    use proptest::prelude::*;

    fn block(rows: &[(String, i32)]) -> (BlockWriter, Vec<u8>) {
        let (mut block, mut signature) = (BlockWriter::default(), vec![0; SIGNATURE_BYTES]);
        rows.iter().for_each(|(key, label)| block.push(key, *label, &mut signature));
        block.end_run();
        (block, signature)
    }

    proptest! {
        #[test]
        fn keys_with_a_text_and_labels_are_found_again(
            rows in prop::collection::vec(("[ab]{0,3}/?[ab0é]{0,9}", -1i32..3), 0..40), text in "[ab0é/]{0,6}"
        ) {
            let (block, signature) = block(&rows);
            let mut found = Vec::new();
            visit_keys_with(&block.keys, rows.len(), text.as_bytes(), &mut |image| found.push(image)).expect("whole");
            let expected: Vec<_> = (0..rows.len()).filter(|image| rows[*image].0.contains(&text)).collect();
            prop_assert!(found.is_empty() || Wanted::new(text.as_bytes()).may_be_in(&signature));
            prop_assert_eq!(found, expected);
            let mut labels = Vec::new();
            let mut push = |label, run| labels.extend(std::iter::repeat_n(label, run));
            visit_runs(&block.labels, rows.len(), &mut push).expect("whole");
            prop_assert_eq!(labels, rows.iter().map(|(_, label)| *label).collect::<Vec<_>>());
        }

        #[test]
        fn any_bytes_are_safe(bytes in prop::collection::vec(any::<u8>(), 0..60), images in 0usize..9) {
            let _ = visit_keys_with(&bytes, images, b"ab", &mut |_| {});
            let _ = visit_runs(&bytes, images, &mut |_, _| {});
        }
    }
}
