//! The joined files of a complete run: the grid, one array of pictures, one of tokens.
//!
//! Images are read back one by one, so a run of any size takes the memory of one. Each is checked once more: another
//! process may have written to the folder meanwhile.

use super::folder::{Folder, ImageFiles, Images, settings_of};
use super::record::{self, Found};
use super::{Outputs, SampleJob};
use crate::SampleError;
use crate::arrays::{Dtype, NpzImages, npy};
use crate::captions::captioned;
use crate::sampler::SampleRequest;
use std::io::Write;
use std::path::{Path, PathBuf};
use tokengrid_cache::{AtomicFile, Permutation, derive_key, write_atomically};
use tokengrid_model::Picture;

/// Pictures in the grid at most.
const GRID_MAX: usize = 100;

/// Purpose of the key of [`npz_order`], which keeps it apart from other keys of the same seed.
const NPZ_ORDER: u64 = 0x6e70_7a5f_6f72_6465;

/// Which of `images` images (counted class by class) is at each position of the `.npz` file.
///
/// The ADM suite cuts the inception score into runs of 5,000 consecutive pictures. Class by class, such a run would hold a
/// few classes only, and its score would be far too low.
pub(super) fn npz_order(seed: u64, images: usize) -> Vec<u64> {
    let images = images as u64;
    let permutation = Permutation::new(derive_key(seed, NPZ_ORDER, images), images.max(1));
    (0..images).map(|position| permutation.apply(position)).collect()
}

impl SampleJob<'_> {
    /// All joined files; the path of the grid.
    pub(super) fn join(
        &self,
        mut folder: Folder,
        outputs: &Outputs,
        all: &[SampleRequest],
        order: Option<&[u64]>,
    ) -> Result<PathBuf, SampleError> {
        let grid = self.write_grid(&folder.images, all)?;
        if let (Some(path), Some(order)) = (&outputs.npz, order) {
            let file = self.write_npz(path, &folder.images, all, order)?;
            folder.publish(path, file)?;
        }
        if let Some(path) = &outputs.tokens {
            let file = self.write_tokens(path, &folder.images, all)?;
            folder.publish(path, file)?;
        }
        Ok(grid)
    }

    /// Tokens `[H * W]` of every image of a run that is complete, in raster order, class by class.
    pub fn tokens(&self, out: &Path) -> impl Iterator<Item = Result<(SampleRequest, Vec<u32>), SampleError>> {
        let images = Images { out: out.into(), settings: settings_of(self) };
        self.wanted().into_iter().map(move |image| {
            let bytes = self.token_bytes(&images, &image)?;
            Ok((image, bytes.as_chunks().0.iter().map(|token| u32::from_le_bytes(*token)).collect()))
        })
    }

    fn write_grid(&self, images: &Images, all: &[SampleRequest]) -> Result<PathBuf, SampleError> {
        let columns = grid_columns(self.classes.len(), self.per_class);
        let mut pictures = vec![];
        for image in all.iter().take(GRID_MAX) {
            let (picture, _) = load(images, image)?;
            pictures.push(captioned(&picture, &self.caption(image.class)));
        }
        let path = images.grid();
        let text = record::text(&images.settings, &[]);
        let png = Picture::grid(&pictures, columns).to_png_with(&[(record::KEYWORD, &text)]);
        write_atomically(&path, &png).map_err(SampleError::io("write", &path))?;
        Ok(path)
    }

    /// Index and, where it is known, name of a class.
    fn caption(&self, class: i64) -> String {
        match self.class_names.get(class as usize) {
            Some(name) => format!("{class} {name}"),
            None => class.to_string(),
        }
    }

    fn write_npz(
        &self,
        path: &Path,
        images: &Images,
        all: &[SampleRequest],
        order: &[u64],
    ) -> Result<AtomicFile, SampleError> {
        let side = (self.model.config.side() as usize) * self.tokenizer.architecture.factor() as usize;
        let mut npz = NpzImages::create(path, all.len(), side)?;
        for &index in order {
            npz.push(&load(images, &all[index as usize])?.0.rgb)?;
        }
        Ok(npz.close()?)
    }

    fn write_tokens(&self, path: &Path, images: &Images, all: &[SampleRequest]) -> Result<AtomicFile, SampleError> {
        let n = self.model.config.block_size as usize;
        let mut bytes = Vec::with_capacity(all.len() * n * 4);
        for image in all {
            bytes.extend_from_slice(&self.token_bytes(images, image)?);
        }
        let array = npy(Dtype::I32, &[all.len(), n], &bytes);
        let mut file = AtomicFile::create(path).map_err(SampleError::io("write", path))?;
        file.write_all(&array).map_err(SampleError::io("write", path))?;
        Ok(file)
    }

    /// The tokens of one image, int32 little-endian. The header of our own files is one block; the rest is the tokens.
    fn token_bytes(&self, images: &Images, image: &SampleRequest) -> Result<Vec<u8>, SampleError> {
        let (_, mut npy) = load(images, image)?;
        let bytes = self.model.config.block_size as usize * 4;
        let header = npy.len().checked_sub(bytes).ok_or_else(|| SampleError::Damaged {
            path: ImageFiles::new(&images.out, image).tokens,
            what: format!("it is too short for {bytes} bytes of tokens; remove it, and run again"),
        })?;
        Ok(npy.split_off(header))
    }
}

/// Pictures per row of the grid: whole classes side by side, about as wide as a screen.
fn grid_columns(classes: usize, per_class: usize) -> usize {
    const WIDE: usize = 12;
    match (classes, per_class) {
        (1, n) => (n as f64).sqrt().ceil() as usize,
        (_, n) if n >= WIDE => WIDE,
        (_, n) => WIDE / n.max(1) * n.max(1),
    }
}

/// Picture and token file of a finished image.
fn load(images: &Images, image: &SampleRequest) -> Result<(Picture, Vec<u8>), SampleError> {
    let path = || ImageFiles::new(&images.out, image).picture;
    match images.find(image, false) {
        Found::Whole { picture, beside } => Ok((picture, beside)),
        Found::Foreign => Err(SampleError::ForeignImage { path: path() }),
        Found::Missing => Err(SampleError::Damaged {
            path: path(),
            what: "it was removed or damaged while the run went on; run the same command again".into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_a_permutation_that_mixes_the_classes() {
        let order = npz_order(0, 50_000);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert!(sorted.iter().copied().eq(0..50_000));
        // 50 images per class: a run of 5,000 holds nearly all of the 1,000 classes.
        let classes: std::collections::BTreeSet<u64> = order[..5000].iter().map(|image| image / 50).collect();
        assert!(classes.len() > 950, "{}", classes.len());
        // These numbers must never change: the records of existing files refer to them.
        assert_eq!(npz_order(7, 5), npz_order(7, 5));
        assert_ne!(npz_order(7, 50), npz_order(8, 50));
        assert!(npz_order(0, 0).is_empty());
    }
}
