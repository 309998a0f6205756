//! Batches of tokens back to images, in order.

use tokengrid_ingest::{Bad, BatchImage, BatchPlace};

/// An encoded view.
#[derive(Debug)]
pub struct Encoded {
    pub view: u32,
    pub crop_x: i32,
    pub crop_y: i32,
    pub flip: bool,
    /// Raster order.
    pub tokens: Vec<u32>,
}

/// An image with all its views encoded, or why it has none.
#[derive(Debug)]
pub struct EncodedImage {
    pub index: usize,
    pub label: i32,
    pub outcome: Result<Vec<Encoded>, Bad>,
}

/// Collects an image's views, which may lie in several batches.
#[derive(Debug)]
pub struct Assembler {
    num_views: u32,
    num_tokens: usize,
    current: Option<EncodedImage>,
}

impl Assembler {
    pub fn new(num_views: u32, num_tokens: usize) -> Assembler {
        Assembler { num_views, num_tokens, current: None }
    }

    /// Takes a batch's places and the tokens of those that have a picture, in the same order; hands every image that is
    /// complete to `done`.
    pub fn add<E>(
        &mut self,
        places: &[BatchPlace],
        images: &[BatchImage],
        tokens: &[u32],
        mut done: impl FnMut(EncodedImage) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut tokens = tokens.chunks_exact(self.num_tokens);
        for place in places {
            let image = &images[place.image];
            let mut current = self.current.take().unwrap_or_else(|| EncodedImage {
                index: image.index,
                label: image.label,
                outcome: image.outcome.clone().map(|()| Vec::new()),
            });
            assert_eq!(current.index, image.index, "the views of an image follow one another");
            if let Ok(views) = &mut current.outcome {
                let tokens = tokens.next().expect("tokens for every place with a picture").to_vec();
                let BatchPlace { view, crop_x, crop_y, flip, .. } = *place;
                views.push(Encoded { view, crop_x, crop_y, flip, tokens });
            }
            if place.view + 1 == self.num_views {
                done(current)?;
            } else {
                self.current = Some(current);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use tokengrid_ingest::Stage;

    fn image(index: usize, good: bool) -> BatchImage {
        let bad = || Bad { stage: Stage::Decode, reason: "broken".into() };
        BatchImage { index, label: 7, warnings: 0, outcome: if good { Ok(()) } else { Err(bad()) } }
    }

    fn place(image: usize, view: u32) -> BatchPlace {
        BatchPlace { image, view, crop_x: 0, crop_y: 0, flip: false }
    }

    #[test]
    fn views_straddle_batches_and_come_back_in_order() {
        // Three views an image, four places a batch, one token a view; the second image is bad.
        let batches = [
            (
                vec![place(0, 0), place(0, 1), place(0, 2), place(1, 0)],
                vec![image(3, true), image(4, false)],
                vec![1, 2, 3],
            ),
            (
                vec![place(0, 1), place(0, 2), place(1, 0), place(1, 1)],
                vec![image(4, false), image(5, true)],
                vec![4, 5],
            ),
            (vec![place(0, 2)], vec![image(5, true)], vec![6]),
        ];
        let mut assembler = Assembler::new(3, 1);
        let mut done = vec![];
        for (places, images, tokens) in &batches {
            let result: Result<(), Infallible> = assembler.add(places, images, tokens, |image| {
                done.push(image);
                Ok(())
            });
            result.expect("cannot fail");
        }
        assert_eq!(done.iter().map(|image| image.index).collect::<Vec<_>>(), [3, 4, 5]);
        let tokens = |image: &EncodedImage| -> Option<Vec<u32>> {
            Some(image.outcome.as_ref().ok()?.iter().map(|view| view.tokens[0]).collect())
        };
        assert_eq!(done.iter().map(tokens).collect::<Vec<_>>(), [Some(vec![1, 2, 3]), None, Some(vec![4, 5, 6])]);
    }
}
