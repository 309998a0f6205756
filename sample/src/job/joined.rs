//! What is made of all images once they are there: the grid, one array of pictures, one of tokens.
//!
//! Images are read back one by one, so a run of any size takes the memory of one.

use super::folder::ImageFiles;
use super::{Outputs, SampleJob};
use crate::SampleError;
use crate::arrays::{Dtype, NpzImages, write_npy};
use crate::captions::captioned;
use crate::sampler::Wanted;
use std::path::{Path, PathBuf};
use tokengrid_tokenize::Picture;

/// Pictures in the grid at most.
const GRID_MAX: usize = 100;

/// Makes `path` by way of a temporary file that no other rank writes.
fn whole(path: &Path, rank: u32, write: impl FnOnce(&Path) -> Result<(), SampleError>) -> Result<(), SampleError> {
    let mut name = std::ffi::OsString::from(format!("rank{rank}-"));
    name.push(path.file_name().unwrap_or_default());
    let temporary = path.with_file_name(name);
    write(&temporary).inspect_err(|_| {
        // What is left of it is of no use.
        let _ = std::fs::remove_file(&temporary);
    })?;
    std::fs::rename(&temporary, path).map_err(SampleError::io("write", path))
}

impl SampleJob<'_> {
    /// All joined files; the path of the grid.
    pub(super) fn join(&self, outputs: &Outputs, all: &[Wanted]) -> Result<PathBuf, SampleError> {
        let grid = self.write_grid(&outputs.out, all)?;
        if let Some(path) = &outputs.npz {
            whole(path, self.rank, |path| self.write_npz(path, &outputs.out, all))?;
        }
        if let Some(path) = &outputs.tokens {
            whole(path, self.rank, |path| self.write_tokens(path, &outputs.out, all))?;
        }
        Ok(grid)
    }

    fn write_grid(&self, out: &Path, all: &[Wanted]) -> Result<PathBuf, SampleError> {
        let path = out.join("grid.png");
        let columns = grid_columns(self.classes.len(), self.per_class);
        let picture = |image: &Wanted| -> Result<Picture, SampleError> {
            let picture = load(&ImageFiles::new(out, image).picture)?;
            Ok(captioned(&picture, &self.caption(image.class)))
        };
        let pictures: Result<Vec<Picture>, SampleError> = all.iter().take(GRID_MAX).map(picture).collect();
        let grid = Picture::grid(&pictures?, columns);
        whole(&path, self.rank, |path| std::fs::write(path, grid.to_png()).map_err(SampleError::io("write", path)))?;
        Ok(path)
    }

    /// Index and, where it is known, name of a class.
    fn caption(&self, class: i64) -> String {
        match self.class_names.get(class as usize) {
            Some(name) => format!("{class} {name}"),
            None => class.to_string(),
        }
    }

    fn write_npz(&self, path: &Path, out: &Path, all: &[Wanted]) -> Result<(), SampleError> {
        let side = (self.model.config.side() as usize) * self.tokenizer.architecture.factor() as usize;
        let mut npz = NpzImages::create(path, all.len(), side)?;
        for image in all {
            npz.push(&load(&ImageFiles::new(out, image).picture)?.rgb)?;
        }
        npz.finish()
    }

    fn write_tokens(&self, path: &Path, out: &Path, all: &[Wanted]) -> Result<(), SampleError> {
        let n = self.model.config.block_size as usize;
        let mut bytes = Vec::with_capacity(all.len() * n * 4);
        for image in all {
            bytes.extend_from_slice(&token_bytes(&ImageFiles::new(out, image).tokens, n)?);
        }
        write_npy(path, Dtype::I32, &[all.len(), n], &bytes)
    }
}

/// The tokens of one image, int32 little-endian. The header of our own files is one block; the rest is the tokens.
fn token_bytes(file: &Path, n: usize) -> Result<Vec<u8>, SampleError> {
    let mut npy = std::fs::read(file).map_err(SampleError::io("read", file))?;
    let header = npy.len().checked_sub(n * 4).ok_or_else(|| SampleError::Array {
        path: file.into(),
        what: format!("it is too short for {n} tokens; remove it, and run again"),
    })?;
    Ok(npy.split_off(header))
}

/// Pictures a row of the grid: whole classes side by side, about as wide as a screen.
fn grid_columns(classes: usize, per_class: usize) -> usize {
    const WIDE: usize = 12;
    match (classes, per_class) {
        (1, n) => (n as f64).sqrt().ceil() as usize,
        (_, n) if n >= WIDE => WIDE,
        (_, n) => WIDE / n.max(1) * n.max(1),
    }
}

fn load(path: &Path) -> Result<Picture, SampleError> {
    let refuse = |reason: String| SampleError::Picture { path: path.into(), reason };
    let bytes = std::fs::read(path).map_err(SampleError::io("read", path))?;
    let image = tokengrid_ingest::decode_rgb(&bytes, &Default::default()).map_err(|e| refuse(e.to_string()))?;
    Ok(Picture::new(image.width as usize, image.height as usize, image.pixels))
}
