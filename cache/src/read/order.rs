//! The order of a stream of samples, which is computed and not stored.

use crate::permutation::{Permutation, derive_key, mix, shuffled_item};
use std::ops::Range;

/// Images whose places are computed at a time.
const RUN_IMAGES: usize = 256;

/// What keys are derived for: the order of the images, the order of an image's views.
const ORDER: u64 = 1;

const VIEWS: u64 = 2;

/// Which row each sample of a [`crate::Loader`]'s stream is, for who reads rows in another way.
#[derive(Clone, Debug)]
pub struct SampleOrder {
    seed: u64,
    images: Range<usize>,
    num_views: usize,
    order: EpochOrder,
}

impl SampleOrder {
    /// The stream over `images` of a cache with `views` views of each.
    ///
    /// # Panics
    /// When there are no images, or no views.
    pub fn new(seed: u64, images: Range<usize>, num_views: usize) -> SampleOrder {
        assert!(!images.is_empty() && num_views > 0, "a stream needs samples");
        let order = EpochOrder::new(seed, 0, &images, num_views);
        SampleOrder { seed, images, num_views, order }
    }

    /// The rows of `count` samples from place `first` of the whole job's stream on.
    pub fn rows_at(&mut self, first: u64, count: usize, rows: &mut Vec<usize>) {
        rows.clear();
        let mut sample = first;
        let num_images = self.images.len() as u64;
        while rows.len() < count {
            // Runs to the end of the batch or of the epoch, whichever comes first.
            let epoch = sample / num_images;
            if epoch != self.order.epoch {
                self.order = EpochOrder::new(self.seed, epoch, &self.images, self.num_views);
            }
            let offset = sample % num_images;
            let run = (num_images - offset).min((count - rows.len()) as u64);
            self.order.push_rows(offset, run, rows);
            sample += run;
        }
    }
}

/// One epoch's choice: which image at each place, and which of its views.
#[derive(Clone, Copy, Debug)]
struct EpochOrder {
    epoch: u64,
    images: Permutation,
    first_image: u64,
    num_views: u64,
    /// Key of the block of epochs in which every view is used once.
    block_key: u64,
    /// The epoch's place in its block.
    turn: u64,
}

impl EpochOrder {
    fn new(seed: u64, epoch: u64, images: &Range<usize>, num_views: usize) -> EpochOrder {
        let num_views = num_views as u64;
        EpochOrder {
            epoch,
            images: Permutation::new(derive_key(seed, ORDER, epoch), images.len() as u64),
            first_image: images.start as u64,
            num_views,
            block_key: derive_key(seed, VIEWS, epoch / num_views),
            turn: epoch % num_views,
        }
    }

    /// Appends the rows at places `offset .. offset + run` of the epoch.
    fn push_rows(&self, offset: u64, run: u64, rows: &mut Vec<usize>) {
        let mut images = [0; RUN_IMAGES];
        let mut done = 0;
        while done < run {
            let images = &mut images[..(run - done).min(RUN_IMAGES as u64) as usize];
            self.images.apply_run(offset + done, images);
            rows.extend(images.iter().map(|image| self.row(self.first_image + image)));
            done += images.len() as u64;
        }
    }

    /// The row of an image in this epoch.
    fn row(&self, image: u64) -> usize {
        let view = match self.num_views {
            1 => 0,
            views => shuffled_item(mix(self.block_key ^ image), views, self.turn),
        };
        (image * self.num_views + view) as usize
    }
}
