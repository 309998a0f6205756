//! Names of objects: `s3://bucket/key`, `gs://`, `az://`, `https://`.

use crate::error::StoreError;
use std::fmt;
use std::path::Path;

/// Kinds of object stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Amazon S3 and stores with its protocol.
    S3,
    /// Google Cloud Storage.
    Gs,
    /// Azure Blob Storage.
    Az,
    /// A web server; read only.
    Http,
}

/// An object, or a prefix of objects, by its URL.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    scheme: Scheme,
    /// `s3://bucket`, `https://host:port`.
    root: String,
    /// Without slashes at its ends.
    key: String,
}

/// Schemes by the text in front of `://`.
const SCHEMES: [(&str, Scheme); 5] =
    [("s3", Scheme::S3), ("gs", Scheme::Gs), ("az", Scheme::Az), ("https", Scheme::Http), ("http", Scheme::Http)];

/// Whether a path as a user typed it is a URL, of a known scheme or not.
pub fn is_remote(path: &Path) -> bool {
    path.to_str().and_then(|text| text.split_once("://")).is_some_and(|(scheme, _)| {
        !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'+')
    })
}

impl Place {
    /// The place that a path names; `None` for a local path.
    ///
    /// # Errors
    /// [`StoreError::Url`] for an unknown scheme, a URL without a bucket, or a query after `https://`.
    pub fn parse(path: &Path) -> Result<Option<Place>, StoreError> {
        if !is_remote(path) {
            return Ok(None);
        }
        let text = path.to_string_lossy().into_owned();
        let refuse = |problem| StoreError::Url { url: text.clone(), problem };
        let (name, rest) = text.split_once("://").unwrap_or_default();
        let scheme = SCHEMES.iter().find(|(known, _)| *known == name);
        let scheme = scheme.ok_or_else(|| refuse("the scheme is unknown"))?.1;
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(refuse("it names no bucket"));
        }
        if scheme == Scheme::Http && key.contains(['?', '#']) {
            return Err(refuse("a query is not supported"));
        }
        Ok(Some(Place { scheme, root: format!("{name}://{bucket}"), key: key.trim_matches('/').to_owned() }))
    }

    /// The kind of store.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The store with its bucket: `s3://bucket`.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// The bucket's name, or the host.
    pub fn bucket(&self) -> &str {
        self.root.split_once("://").map_or("", |(_, bucket)| bucket)
    }

    /// The object's name in the bucket.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The last part of the key.
    pub fn file_name(&self) -> &str {
        self.key.rsplit('/').next().unwrap_or_default()
    }

    /// Another key of the same bucket.
    pub fn with_key(&self, key: &str) -> Place {
        Place { key: key.trim_matches('/').to_owned(), ..self.clone() }
    }

    /// What the keys of the objects below this one begin with: the key and a `/`; empty for the root of a bucket.
    pub fn prefix(&self) -> String {
        if self.key.is_empty() { String::new() } else { format!("{}/", self.key) }
    }

    /// `name` below this prefix.
    pub fn join(&self, name: &str) -> Place {
        self.with_key(&(self.prefix() + name))
    }

    /// The key's folder; empty for the bucket itself.
    pub fn folder(&self) -> Place {
        self.with_key(self.key.rsplit_once('/').map_or("", |(folder, _)| folder))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.is_empty() { f.write_str(&self.root) } else { write!(f, "{}/{}", self.root, self.key) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_places_and_paths_are_not() {
        let place = Place::parse(Path::new("s3://b/x/{0..3}.tar/")).unwrap().unwrap();
        assert_eq!((place.root(), place.bucket(), place.key()), ("s3://b", "b", "x/{0..3}.tar"));
        assert_eq!(place.join("m.json").to_string(), "s3://b/x/{0..3}.tar/m.json");
        assert_eq!(place.folder().to_string(), "s3://b/x");
        assert_eq!(Place::parse(Path::new("gs://b")).unwrap().unwrap().join("a").to_string(), "gs://b/a");
        assert_eq!(Place::parse(Path::new("https://h:8/a/b.tar")).unwrap().unwrap().root(), "https://h:8");
        for local in ["a/b", "/a://b", "c:\\x", ""] {
            assert!(Place::parse(Path::new(local)).unwrap().is_none(), "{local}");
        }
        for bad in ["ftp://h/x", "s3://", "s3:///x", "https://h/a?b=c"] {
            assert!(Place::parse(Path::new(bad)).is_err(), "{bad}");
        }
    }
}
