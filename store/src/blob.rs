//! A file or an object, read by position from many threads.

use crate::bucket::{Bucket, Object};
use crate::error::StoreError;
use bytes::Bytes;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes by position: a local file by `pread`, an object by ranges.
#[derive(Debug)]
pub enum Blob {
    /// A local file.
    File(File),
    /// An object, in the version that was listed.
    Object(Bucket, Object),
}

impl Blob {
    /// The length in bytes.
    ///
    /// # Errors
    /// The file system cannot give the size of a local file.
    pub fn len(&self) -> io::Result<u64> {
        match self {
            Blob::File(file) => Ok(file.metadata()?.len()),
            Blob::Object(_, object) => Ok(object.bytes),
        }
    }

    /// Whether there is nothing in it.
    ///
    /// # Errors
    /// As [`Blob::len`].
    pub fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Whether a read costs a request.
    pub fn is_remote(&self) -> bool {
        matches!(self, Blob::Object(..))
    }

    /// Reads up to `into.len()` bytes from offset `at` on, and returns how many there were: fewer only at the end.
    ///
    /// # Errors
    /// The file cannot be read; a [`StoreError`] of the object store, wrapped, after the retries.
    pub fn read_up_to(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        match self {
            Blob::File(file) => read_file(file, into, at),
            Blob::Object(bucket, object) => {
                let end = object.bytes.min(at.saturating_add(into.len() as u64));
                let length = end.saturating_sub(at) as usize;
                if length > 0 {
                    into[..length].copy_from_slice(&range(bucket, object, at, length)?);
                }
                Ok(length)
            }
        }
    }

    /// Fills `into` with the bytes from offset `at` on.
    ///
    /// # Errors
    /// As [`Blob::read_up_to`]; [`io::ErrorKind::UnexpectedEof`] where there are fewer.
    pub fn read_exact_at(&self, into: &mut [u8], at: u64) -> io::Result<()> {
        match self {
            Blob::File(file) => file.read_exact_at(into, at),
            Blob::Object(..) if self.read_up_to(into, at)? == into.len() => Ok(()),
            Blob::Object(..) => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

fn range(bucket: &Bucket, object: &Object, at: u64, length: usize) -> Result<Bytes, StoreError> {
    bucket.fetch(&object.key, at..at + length as u64, object.tag.as_deref())?.wait()
}

fn read_file(file: &File, into: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < into.len() {
        match file.read_at(&mut into[done..], at + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_objects_answer_alike() {
        let folder = tempfile::tempdir().unwrap();
        let (path, content) = (folder.path().join("f"), (0..=255).collect::<Vec<u8>>());
        std::fs::write(&path, &content).unwrap();
        let bucket = Bucket::in_memory();
        bucket.put("f", content.clone().into()).unwrap();
        let object = bucket.head("f").unwrap().unwrap();
        for blob in [Blob::File(File::open(&path).unwrap()), Blob::Object(bucket.clone(), object)] {
            assert_eq!(blob.len().unwrap(), 256);
            let mut bytes = [0; 10];
            assert_eq!(blob.read_up_to(&mut bytes, 250).unwrap(), 6);
            assert_eq!(bytes[..6], content[250..]);
            assert_eq!(blob.read_up_to(&mut bytes, 256).unwrap(), 0);
            assert_eq!(blob.read_up_to(&mut bytes, u64::MAX - 3).unwrap_or(0), 0);
            blob.read_exact_at(&mut bytes, 100).unwrap();
            assert_eq!(bytes[..], content[100..110]);
            assert_eq!(blob.read_exact_at(&mut bytes, 250).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }
    }
}
