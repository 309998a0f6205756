//! One bucket: listing, reading, writing.

use crate::connect::connect;
use crate::error::{StoreError, classify};
use crate::fetch::{Fetch, again, is_torn, read_whole};
use crate::place::{Place, Scheme};
use crate::runtime::{wait, wait_through};
use crate::traffic::count_sent;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::aws::AmazonS3;
use object_store::path::Path as Key;
use object_store::{
    Error, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, PutResult,
    UpdateVersion,
};
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// Folders that are listed at once.
const LISTINGS: usize = 32;

/// A bucket, connected. Cheap to clone.
#[derive(Clone)]
pub struct Bucket {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) s3: Option<AmazonS3>,
    root: Place,
}

/// An object as a listing has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its name in the bucket.
    pub key: String,
    /// Its size, in bytes.
    pub bytes: u64,
    /// Its entity tag, which changes with its contents; `None` where the server gives none.
    pub tag: Option<String>,
    /// When it was written, by the server's clock, in seconds since 1970.
    pub modified_secs: i64,
}

/// One version of an object, for [`Bucket::replace`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version(UpdateVersion);

impl From<ObjectMeta> for Object {
    fn from(meta: ObjectMeta) -> Object {
        let (key, modified_secs) = (meta.location.to_string(), meta.last_modified.timestamp());
        Object { key, bytes: meta.size, tag: meta.e_tag, modified_secs }
    }
}

/// Clients by process and bucket: connections and credentials are shared, but not with a forked process, whose parent's connections
/// are served by threads that it has not.
static CLIENTS: LazyLock<Mutex<HashMap<(u32, String), Bucket>>> = LazyLock::new(Mutex::default);

impl Bucket {
    /// The bucket of a place. No request is made yet.
    ///
    /// # Errors
    /// [`StoreError::NoCredentials`], [`StoreError::Endpoint`] and [`StoreError::Settings`] for an environment that lacks settings,
    /// or has some that the client cannot use.
    pub fn of(place: &Place) -> Result<Bucket, StoreError> {
        let mut clients = CLIENTS.lock().unwrap_or_else(PoisonError::into_inner);
        let owner = (std::process::id(), place.root().to_owned());
        if let Some(known) = clients.get(&owner) {
            return Ok(known.clone());
        }
        // Clients start tasks as they are built.
        let _runtime = crate::runtime::runtime().enter();
        let client = connect(place)?;
        let bucket = Bucket { store: client.store, s3: client.s3, root: place.with_key("") };
        clients.insert(owner, bucket.clone());
        Ok(bucket)
    }

    /// A bucket in memory, for tests.
    #[cfg(test)]
    pub(crate) fn in_memory() -> Bucket {
        let root = Place::parse("s3://memory".as_ref()).ok().flatten().expect("a URL");
        Bucket { store: Arc::new(object_store::memory::InMemory::new()), s3: None, root }
    }

    /// The place of a key.
    pub fn place(&self, key: &str) -> Place {
        self.root.with_key(key)
    }

    /// All objects below a prefix, which ends where a part of the key does, sorted by key.
    ///
    /// # Errors
    /// [`StoreError::Unsupported`] for a web server, which has no listing; the variant that names why a request failed after all
    /// retries.
    pub fn list(&self, prefix: &str) -> Result<Vec<Object>, StoreError> {
        let place = self.place(prefix);
        if place.scheme() == Scheme::Http {
            let what = "a web server cannot be listed: name the files, for example by a pattern such as {000..099}.tar";
            return Err(StoreError::Unsupported { place, what });
        }
        let failed = |error: Error| classify(&place, "list", &error);
        let prefix = key_of(&place)?;
        let below = async |folder: &Key| {
            again(async || self.store.list(Some(folder)).map_ok(Object::from).try_collect::<Vec<_>>().await, is_torn)
                .await
        };
        let mut found: Vec<Object> = wait(async {
            let top = again(async || self.store.list_with_delimiter(Some(&prefix)).await, is_torn).await;
            let top = top.map_err(failed)?;
            let folders = stream::iter(&top.common_prefixes).map(below).buffer_unordered(LISTINGS);
            let below: Vec<Vec<Object>> = folders.try_collect().await.map_err(failed)?;
            Ok(top.objects.into_iter().map(Object::from).chain(below.into_iter().flatten()).collect())
        })?;
        found.sort_by(|a, b| a.key.cmp(&b.key));
        drop_folder_markers(&mut found, place.key());
        Ok(found)
    }

    /// An object's size and tag; `None` where there is none.
    ///
    /// # Errors
    /// The variant that names why the request failed after all retries.
    pub fn head(&self, key: &str) -> Result<Option<Object>, StoreError> {
        let place = self.place(key);
        let path = key_of(&place)?;
        let found = wait(async {
            let error = match self.store.head(&path).await {
                Err(error) if !matches!(error, Error::NotFound { .. }) => error,
                found => return Ok(found),
            };
            // No server was reached: a second request would fail in the same way.
            let told = classify(&place, "look for", &error);
            if matches!(told, StoreError::Unreachable { .. } | StoreError::Lost { .. } | StoreError::Certificate { .. })
            {
                return Err(told);
            }
            // An answer to `HEAD` has no body: only the answer to `GET` names the reason.
            let first = GetOptions { range: Some(GetRange::Bounded(0..1)), ..GetOptions::default() };
            match self.store.get_opts(&path, first).await {
                Err(told) if !matches!(told, Error::NotFound { .. }) => Ok(Err(told)),
                _ => Ok(Err(error)),
            }
        })?;
        found_or_none(&place, "look for", found.map(Object::from))
    }

    /// A whole object of up to 256 MiB; `None` where there is none.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`]; the variant that names why the request failed after all retries.
    pub fn read(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        Ok(self.read_version(key)?.map(|(bytes, _)| bytes))
    }

    /// A whole object with its version; `None` where there is none.
    ///
    /// # Errors
    /// As [`Bucket::read`].
    pub fn read_version(&self, key: &str) -> Result<Option<(Bytes, Version)>, StoreError> {
        let place = self.place(key);
        let path = key_of(&place)?;
        match wait(read_whole(&self.store, &place, &path)) {
            Ok((bytes, meta)) => Ok(Some((bytes, version_of(meta.e_tag, meta.version)))),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Begins to read a byte range of an object; with a tag, only of the version that has this tag.
    ///
    /// # Errors
    /// [`StoreError::Url`] for a key that no object can have. What the server answers comes from [`Fetch::wait`].
    pub fn fetch(&self, key: &str, range: Range<u64>, tag: Option<&str>) -> Result<Fetch, StoreError> {
        let place = self.place(key);
        let path = key_of(&place)?;
        Ok(Fetch::begin(Arc::clone(&self.store), place, path, range, tag.map(str::to_owned)))
    }

    /// Begins to read a whole object of unknown size; one of more than `bytes_max` bytes is [`StoreError::TooLarge`].
    ///
    /// # Errors
    /// As [`Bucket::fetch`].
    pub fn fetch_all(&self, key: &str, bytes_max: u64) -> Result<Fetch, StoreError> {
        let place = self.place(key);
        let path = key_of(&place)?;
        Ok(Fetch::begin_all(Arc::clone(&self.store), place, path, bytes_max))
    }

    /// Writes a small object by one request, replacing an existing one.
    ///
    /// # Errors
    /// [`StoreError::Unsupported`] for a web server; the variant that names why the request failed after all retries.
    pub fn put(&self, key: &str, bytes: Bytes) -> Result<Version, StoreError> {
        let place = self.place(key);
        self.put_with(&place, bytes, PutMode::Overwrite)
            .and_then(|written| written.map_err(|error| classify(&place, "write", &error)))
            .map(|written| version_of(written.e_tag, written.version))
    }

    /// Writes a small object if there is none of that name: `None` where there is one.
    ///
    /// # Errors
    /// [`StoreError::Unsupported`] where the store has no conditional writes; otherwise as [`Bucket::put`].
    pub fn create(&self, key: &str, bytes: Bytes) -> Result<Option<Version>, StoreError> {
        self.put_if(key, bytes, PutMode::Create)
    }

    /// Writes a small object if it is still of this version: `None` where it is not.
    ///
    /// # Errors
    /// As [`Bucket::create`].
    pub fn replace(&self, key: &str, bytes: Bytes, version: &Version) -> Result<Option<Version>, StoreError> {
        self.put_if(key, bytes, PutMode::Update(version.0.clone()))
    }

    fn put_if(&self, key: &str, bytes: Bytes, mode: PutMode) -> Result<Option<Version>, StoreError> {
        let place = self.place(key);
        match self.put_with(&place, bytes, mode)? {
            Ok(written) => Ok(Some(version_of(written.e_tag, written.version))),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. } | Error::NotFound { .. }) => Ok(None),
            Err(Error::NotImplemented { .. } | Error::NotSupported { .. }) => {
                Err(StoreError::Unsupported { place, what: "the store has no conditional writes" })
            }
            Err(error) => Err(classify(&place, "write", &error)),
        }
    }

    fn put_with(
        &self,
        place: &Place,
        bytes: Bytes,
        mode: PutMode,
    ) -> Result<object_store::Result<PutResult>, StoreError> {
        if place.scheme() == Scheme::Http {
            let what = "a web server is read only here: write to s3://, gs:// or az://";
            return Err(StoreError::Unsupported { place: place.clone(), what });
        }
        let path = key_of(place)?;
        count_sent(bytes.len());
        let options = PutOptions { mode, ..PutOptions::default() };
        Ok(wait_through(self.store.put_opts(&path, PutPayload::from_bytes(bytes), options)))
    }

    /// Removes objects, one after the other; a missing one counts as removed.
    ///
    /// # Errors
    /// Why the first one that could not be removed was not; those after it are not tried.
    pub fn delete(&self, keys: &[String]) -> Result<(), StoreError> {
        for key in keys {
            let place = self.place(key);
            let path = key_of(&place)?;
            match wait_through(self.store.delete(&path)) {
                Ok(()) | Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(classify(&place, "remove", &error)),
            }
        }
        Ok(())
    }
}

/// Leaves out the empty objects by which web consoles, and SeaweedFS, mark folders: `prefix/` itself, and `folder/` where something
/// lies below it. `object_store` strips the slash from their names.
fn drop_folder_markers(found: &mut Vec<Object>, prefix: &str) {
    let mut folders: HashSet<String> = HashSet::from([prefix.to_owned()]);
    for object in found.iter() {
        let mut key = object.key.as_str();
        while let Some((folder, _)) = key.rsplit_once('/').filter(|(folder, _)| !folders.contains(*folder)) {
            folders.insert(folder.to_owned());
            key = folder;
        }
    }
    found.retain(|object| object.bytes > 0 || !folders.contains(&object.key));
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bucket({})", self.root)
    }
}

fn version_of(e_tag: Option<String>, version: Option<String>) -> Version {
    Version(UpdateVersion { e_tag, version })
}

fn found_or_none<T>(
    place: &Place,
    action: &'static str,
    found: object_store::Result<T>,
) -> Result<Option<T>, StoreError> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) => match classify(place, action, &error) {
            StoreError::NotFound { .. } => Ok(None),
            other => Err(other),
        },
    }
}

/// The key as `object_store` wants it. Behind `https://` a user types a URL's path, which may be percent-encoded, elsewhere the key
/// itself.
pub(crate) fn key_of(place: &Place) -> Result<Key, StoreError> {
    let parsed = match place.scheme() {
        Scheme::Http => Key::from_url_path(place.key()),
        _ => Key::parse(place.key()),
    };
    parsed.map_err(|_| StoreError::Url {
        url: place.to_string(),
        problem: "the key has an empty part, `.` or `..`, or a character that no key has",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_of_folders_are_not_objects() {
        let object = |key: &str, bytes| Object { key: key.to_owned(), bytes, tag: None, modified_secs: 0 };
        let mut found = vec![
            object("a", 0),
            object("a/b", 0),
            object("a/b/c.jpg", 3),
            object("a/empty.jpg", 0),
            object("a/e", 2),
            object("a/e/f", 1),
        ];
        drop_folder_markers(&mut found, "a");
        let keys: Vec<&str> = found.iter().map(|object| object.key.as_str()).collect();
        // An empty file is an object, and an object with bytes is not a marker, even with objects below it.
        assert_eq!(keys, ["a/b/c.jpg", "a/empty.jpg", "a/e", "a/e/f"]);
    }
}
