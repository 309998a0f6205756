//! The file that keeps a survey beside the cache.
//!
//! ```text
//! "TGSURVEY"  version u32  rows u64  manifest's checksum, 64 characters  2 scales f32     little-endian
//! x | y | entropy | class_distance                                                       rows u16 each
//! BLAKE3 of all this, 32 bytes
//! ```

use super::Survey;
use crate::error::{CacheError, io_error};
use crate::files::atomic::AtomicFile;
use crate::inspect::kept::{places, write_to_first};
use crate::read::cache::TokenCache;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// Name of the file in the cache's folder.
pub const SURVEY_FILE: &str = "survey.bin";

const MAGIC: &[u8; 8] = b"TGSURVEY";

/// Raised when the same cache would give other numbers, or the file another form: older files are then made again.
const VERSION: u32 = 1;

/// Numbers that are converted at a time.
const BLOCK: usize = 1 << 15;

impl Survey {
    /// The survey that was kept for exactly this cache, in its folder or in `fallback`. A file that is damaged or of another
    /// version or cache counts as none.
    pub fn load(cache: &TokenCache, fallback: Option<&Path>) -> Option<Survey> {
        paths(cache, fallback).iter().find_map(|path| read(path, cache).ok().flatten())
    }

    /// Whether there is a file that [`Survey::load`] would read, as far as its beginning tells.
    pub fn is_kept(cache: &TokenCache, fallback: Option<&Path>) -> bool {
        let has_head =
            |path: &PathBuf| File::open(path).and_then(|mut file| has_head_of(&mut file, cache)).unwrap_or(false);
        paths(cache, fallback).iter().any(has_head)
    }

    /// The kept survey, or else a new one, which is then kept, in the cache's folder or in `fallback`; where neither can be
    /// written to, it is not. Other arguments as for [`Survey::of`].
    ///
    /// # Errors
    /// As [`Survey::of`].
    pub fn load_or_compute(
        cache: &TokenCache,
        fallback: Option<&Path>,
        threads: Option<usize>,
        cancel: &AtomicBool,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Survey, CacheError> {
        if let Some(survey) = Survey::load(cache, fallback) {
            return Ok(survey);
        }
        let survey = Survey::of(cache, threads, cancel, progress)?;
        let _ = write_to_first(paths(cache, fallback), &|path| survey.write(path).map_err(io_error("write", path)));
        Ok(survey)
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let mut hashing = Hashing { inner: BufWriter::new(AtomicFile::create(path)?), hash: blake3::Hasher::new() };
        hashing.write_all(MAGIC)?;
        hashing.write_all(&VERSION.to_le_bytes())?;
        hashing.write_all(&(self.x.len() as u64).to_le_bytes())?;
        hashing.write_all(self.manifest.as_bytes())?;
        for scale in self.scales {
            hashing.write_all(&scale.to_le_bytes())?;
        }
        for numbers in [&self.x, &self.y, &self.entropy, &self.class_distance] {
            for block in numbers.chunks(BLOCK) {
                let bytes: Vec<u8> = block.iter().flat_map(|number| number.to_le_bytes()).collect();
                hashing.write_all(&bytes)?;
            }
        }
        let Hashing { mut inner, hash } = hashing;
        inner.write_all(hash.finalize().as_bytes())?;
        inner.into_inner().map_err(io::IntoInnerError::into_error)?.publish()
    }
}

/// A survey from a file; `None` where it is not of this cache, or not whole.
fn read(path: &Path, cache: &TokenCache) -> io::Result<Option<Survey>> {
    let (rows, manifest) = (cache.num_rows(), &cache.manifest().checksum);
    let mut hashing = Hashing { inner: BufReader::new(File::open(path)?), hash: blake3::Hasher::new() };
    if !has_head_of(&mut hashing, cache)? {
        return Ok(None);
    }
    let mut scales = [0.0; 2];
    for scale in &mut scales {
        let mut bytes = [0; 4];
        hashing.read_exact(&mut bytes)?;
        *scale = f32::from_le_bytes(bytes);
    }
    let mut numbers = || {
        let mut numbers = Vec::with_capacity(rows);
        let mut bytes = vec![0; 2 * BLOCK];
        while numbers.len() < rows {
            let part = &mut bytes[..2 * (rows - numbers.len()).min(BLOCK)];
            hashing.read_exact(part)?;
            numbers.extend(part.as_chunks().0.iter().map(|number| u16::from_le_bytes(*number)));
        }
        Ok::<_, io::Error>(numbers)
    };
    let (x, y, entropy, class_distance) = (numbers()?, numbers()?, numbers()?, numbers()?);
    let Hashing { mut inner, hash } = hashing;
    let mut written = Vec::new();
    inner.by_ref().take(33).read_to_end(&mut written)?;
    let is_whole = written == hash.finalize().as_bytes();
    Ok(is_whole.then(|| Survey { manifest: manifest.clone(), x, y, entropy, class_distance, scales }))
}

/// Reads the beginning of a file, up to the scales. Whether it is that of a survey of this cache.
fn has_head_of(file: &mut impl Read, cache: &TokenCache) -> io::Result<bool> {
    let (rows, manifest) = (cache.num_rows() as u64, &cache.manifest().checksum);
    let expected = [&MAGIC[..], &VERSION.to_le_bytes(), &rows.to_le_bytes(), manifest.as_bytes()].concat();
    let mut head = vec![0; expected.len()];
    file.read_exact(&mut head)?;
    Ok(head == expected)
}

/// Hashes what goes through it.
struct Hashing<T> {
    inner: T,
    hash: blake3::Hasher,
}

impl<T: Write> Write for Hashing<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Hashing<T> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(into)?;
        self.hash.update(&into[..read]);
        Ok(read)
    }
}

/// Where a survey may lie, the best place first.
fn paths(cache: &TokenCache, fallback: Option<&Path>) -> Vec<PathBuf> {
    places(cache, fallback, SURVEY_FILE, "survey")
}
