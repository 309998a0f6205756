//! Batches of tokens back to images, in order.

use super::encode::Tokens;
use tokengrid_cache::{Margins, Row};
use tokengrid_ingest::{Bad, BatchImage, BatchSlot};

/// An encoded view.
#[derive(Debug)]
pub struct EncodedView {
    /// Number of the view, from 0.
    pub view: u32,
    /// Left edge of the crop in the resized image, in pixels.
    pub crop_x: i32,
    /// Top edge of the crop in the resized image, in pixels.
    pub crop_y: i32,
    /// Whether the crop was mirrored.
    pub flip: bool,
    /// Tokens, in raster order.
    pub tokens: Vec<u32>,
    /// For each token the bits that another machine's rounding may flip; empty unless requested.
    pub uncertain: Vec<u32>,
    /// Histogram of |h| over the bits of the view.
    pub margins: Margins,
}

/// An image with all its views encoded, or why it has none.
#[derive(Debug)]
pub struct EncodedImage {
    /// Position in the source.
    pub index: usize,
    /// Class index, -1 if unknown.
    pub label: i32,
    /// The views, in order.
    pub outcome: Result<Vec<EncodedView>, Bad>,
}

impl EncodedImage {
    /// Histogram of |h| over the bits of all views.
    pub fn margins(&self) -> Margins {
        let mut sum = Margins::default();
        self.outcome.iter().flatten().for_each(|view| sum.add(&view.margins));
        sum
    }

    /// The rows of a cache.
    pub fn rows<'a>(&self, key: &'a str, views: &'a [EncodedView]) -> Vec<Row<'a>> {
        let label = self.label;
        let row = |view: &'a EncodedView| {
            let EncodedView { view, crop_x, crop_y, flip, ref tokens, .. } = *view;
            Row { tokens, label, key, view, crop_x, crop_y, flip }
        };
        views.iter().map(row).collect()
    }
}

/// Collects an image's views, which may lie in several batches.
#[derive(Debug)]
pub(super) struct Assembler {
    first_view: u32,
    num_views: u32,
    num_tokens: usize,
    current: Option<EncodedImage>,
}

impl Assembler {
    /// For images of `num_views` views, of which those before `first_view` are not encoded.
    pub(super) fn new(first_view: u32, num_views: u32, num_tokens: usize) -> Assembler {
        Assembler { first_view, num_views, num_tokens, current: None }
    }

    /// Takes a batch's slots and the tokens of those that were encoded, in the same order; returns the images that are
    /// complete.
    pub(super) fn add(&mut self, slots: &[BatchSlot], images: &[BatchImage], tokens: &Tokens) -> Vec<EncodedImage> {
        let mut grids = tokens.tokens.chunks_exact(self.num_tokens);
        let mut uncertain = tokens.uncertain.chunks_exact(self.num_tokens);
        let mut margins = tokens.margins.iter();
        let mut done = Vec::new();
        for slot in slots {
            let image = &images[slot.image];
            let mut current = self.current.take().unwrap_or_else(|| EncodedImage {
                index: image.index,
                label: image.label,
                outcome: image.outcome.clone().map(|()| Vec::new()),
            });
            assert_eq!(current.index, image.index, "the views of an image follow one another");
            if let Ok(views) = &mut current.outcome
                && slot.view >= self.first_view
            {
                let tokens = grids.next().expect("tokens for every slot that is encoded").to_vec();
                let uncertain = uncertain.next().unwrap_or_default().to_vec();
                let margins = margins.next().copied().unwrap_or_default();
                let BatchSlot { view, crop_x, crop_y, flip, .. } = *slot;
                views.push(EncodedView { view, crop_x, crop_y, flip, tokens, uncertain, margins });
            }
            if slot.view + 1 == self.num_views {
                done.push(current);
            } else {
                self.current = Some(current);
            }
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokengrid_ingest::Stage;

    fn image(index: usize, good: bool) -> BatchImage {
        let bad = || Bad { stage: Stage::Decode, reason: "broken".into() };
        BatchImage { index, label: 7, warnings: 0, outcome: if good { Ok(()) } else { Err(bad()) } }
    }

    fn slot(image: usize, view: u32) -> BatchSlot {
        BatchSlot { image, view, crop_x: 0, crop_y: 0, flip: false }
    }

    #[test]
    fn views_that_cross_batches_are_returned_in_order() {
        // Three views per image, four slots per batch, one token per view; the second image is bad.
        let batches = [
            (
                vec![slot(0, 0), slot(0, 1), slot(0, 2), slot(1, 0)],
                vec![image(3, true), image(4, false)],
                vec![1, 2, 3],
            ),
            (vec![slot(0, 1), slot(0, 2), slot(1, 0), slot(1, 1)], vec![image(4, false), image(5, true)], vec![4, 5]),
            (vec![slot(0, 2)], vec![image(5, true)], vec![6]),
        ];
        let mut assembler = Assembler::new(0, 3, 1);
        let mut done = vec![];
        for (slots, images, tokens) in &batches {
            let tokens = Tokens { tokens: tokens.clone(), ..Tokens::default() };
            done.extend(assembler.add(slots, images, &tokens));
        }
        assert_eq!(done.iter().map(|image| image.index).collect::<Vec<_>>(), [3, 4, 5]);
        let tokens = |image: &EncodedImage| -> Option<Vec<u32>> {
            Some(image.outcome.as_ref().ok()?.iter().map(|view| view.tokens[0]).collect())
        };
        assert_eq!(done.iter().map(tokens).collect::<Vec<_>>(), [Some(vec![1, 2, 3]), None, Some(vec![4, 5, 6])]);
    }
}
