//! Views of images into full encoder batches, and tokens back to their images, in order.

use std::collections::VecDeque;
use tokengrid_ingest::{Bad, ImageViews, View};

/// An encoded view.
#[derive(Debug)]
pub struct Encoded {
    pub view: u32,
    pub crop_x: i32,
    pub crop_y: i32,
    pub flip: bool,
    /// Raster order; empty until encoded.
    pub tokens: Vec<u32>,
}

/// An image on its way through the encoder.
#[derive(Debug)]
pub struct PendingImage {
    pub index: usize,
    pub key: String,
    pub label: i32,
    pub outcome: Result<Vec<Encoded>, Bad>,
}

impl PendingImage {
    fn is_done(&self) -> bool {
        self.outcome.as_ref().map_or(true, |views| views.iter().all(|view| !view.tokens.is_empty()))
    }
}

/// Collects views until a batch is full. Views of one image may lie in several batches.
#[derive(Debug)]
pub struct Assembler {
    batch_size: usize,
    view_bytes: usize,
    /// Pixels of views that were not encoded yet, side by side.
    pixels: VecDeque<Vec<u8>>,
    batch: Vec<u8>,
    images: VecDeque<PendingImage>,
}

impl Assembler {
    pub fn new(batch_size: usize, size: u32) -> Assembler {
        let view_bytes = (size * size * 3) as usize;
        let batch = vec![0; batch_size * view_bytes];
        Assembler { batch_size, view_bytes, pixels: VecDeque::new(), batch, images: VecDeque::new() }
    }

    pub fn push(&mut self, image: ImageViews) {
        let ImageViews { index, key, label, outcome, .. } = image;
        let outcome = outcome.map(|views| views.into_iter().map(|view| self.queue(view)).collect());
        self.images.push_back(PendingImage { index, key, label, outcome });
    }

    fn queue(&mut self, view: View) -> Encoded {
        assert_eq!(view.pixels.len(), self.view_bytes, "a view has the recipe's size");
        self.pixels.push_back(view.pixels);
        let View { view, crop_x, crop_y, flip, .. } = view;
        Encoded { view, crop_x, crop_y, flip, tokens: vec![] }
    }

    pub fn has_batch(&self) -> bool {
        self.pixels.len() >= self.batch_size
    }

    pub fn has_rest(&self) -> bool {
        !self.pixels.is_empty()
    }

    /// The next batch; unused places at its end are black.
    pub fn batch_pixels(&mut self) -> &[u8] {
        let count = self.pixels.len().min(self.batch_size);
        let (used, unused) = self.batch.split_at_mut(count * self.view_bytes);
        for (place, view) in used.chunks_exact_mut(self.view_bytes).zip(self.pixels.drain(..count)) {
            place.copy_from_slice(&view);
        }
        unused.fill(0);
        &self.batch
    }

    /// Gives the tokens of the batch to the views that wait longest; tokens of padding go nowhere.
    pub fn fill(&mut self, tokens: &[u32], num_tokens: usize) {
        let waiting = self.images.iter_mut().filter_map(|image| image.outcome.as_mut().ok()).flatten();
        let waiting = waiting.filter(|view| view.tokens.is_empty());
        for (view, tokens) in waiting.zip(tokens.chunks_exact(num_tokens)) {
            view.tokens.extend_from_slice(tokens);
        }
    }

    /// Takes the images at the front that are complete.
    pub fn finished(&mut self) -> Vec<PendingImage> {
        let done = self.images.iter().take_while(|image| image.is_done()).count();
        self.images.drain(..done).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokengrid_ingest::Stage;

    fn image(index: usize, views: &[u8]) -> ImageViews {
        let view = |(i, &value): (usize, &u8)| View {
            view: i as u32,
            crop_x: 0,
            crop_y: 0,
            flip: false,
            pixels: vec![value; 3],
        };
        let outcome = if views.is_empty() {
            Err(Bad { stage: Stage::Decode, reason: "broken".into() })
        } else {
            Ok(views.iter().enumerate().map(view).collect())
        };
        ImageViews { index, key: index.to_string(), label: 0, warnings: 0, outcome }
    }

    #[test]
    fn views_straddle_batches_and_come_back_in_order() {
        let mut assembler = Assembler::new(4, 1);
        let mut done = vec![];
        let images = [image(0, &[1, 2, 3]), image(1, &[]), image(2, &[4, 5, 6]), image(3, &[7])];
        let mut step = |assembler: &mut Assembler| {
            // The "encoder" copies the pixel's value.
            let tokens: Vec<u32> = assembler.batch_pixels().iter().step_by(3).map(|&v| u32::from(v)).collect();
            assembler.fill(&tokens, 1);
            done.extend(assembler.finished());
            tokens
        };
        for image in images {
            assembler.push(image);
            while assembler.has_batch() {
                step(&mut assembler);
            }
        }
        assert!(assembler.has_rest());
        assert_eq!(step(&mut assembler), [5, 6, 7, 0], "the last batch is padded");
        assert_eq!(done.iter().map(|image| image.index).collect::<Vec<_>>(), [0, 1, 2, 3]);
        let tokens: Vec<u32> =
            done.iter().filter_map(|i| i.outcome.as_ref().ok()).flatten().map(|v| v.tokens[0]).collect();
        assert_eq!(tokens, [1, 2, 3, 4, 5, 6, 7]);
        assert!(done[1].outcome.is_err());
    }
}
