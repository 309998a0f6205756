//! Extended headers: what pax records say about the member that follows.

use super::header::until_nul;

/// What replaces fields of the next header.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Extension {
    pub(super) name: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    /// The data are pieces of a sparse file.
    pub(super) sparse: bool,
}

impl Extension {
    /// Reads records of the form `length key=value\n`. `None` when they are not of it: names and sizes in them cannot be
    /// trusted then.
    pub(super) fn read_records(&mut self, mut data: &[u8]) -> Option<()> {
        data = until_nul_tail(data);
        while !data.is_empty() {
            let space = data.iter().take(20).position(|&byte| byte == b' ')?;
            let length: usize = std::str::from_utf8(&data[..space]).ok()?.parse().ok()?;
            let record = data.get(space + 1..length)?.strip_suffix(b"\n")?;
            let equals = record.iter().position(|&byte| byte == b'=')?;
            self.set(&record[..equals], &record[equals + 1..])?;
            data = &data[length..];
        }
        Some(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match key {
            b"path" | b"GNU.sparse.name" => self.name = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(std::str::from_utf8(value).ok()?.parse().ok()?),
            _ => {}
        }
        self.sparse |= key.starts_with(b"GNU.sparse.");
        Some(())
    }

    /// This, with what it does not say taken from `other`.
    pub(super) fn or(self, other: &Extension) -> Extension {
        Extension {
            name: self.name.or_else(|| other.name.clone()),
            link: self.link.or_else(|| other.link.clone()),
            size: self.size.or(other.size),
            sparse: self.sparse || other.sparse,
        }
    }

    /// A GNU long name: text up to a NUL.
    pub(super) fn long_name(data: &[u8]) -> Vec<u8> {
        until_nul(data).to_vec()
    }
}

/// Without the NULs at the end that some programs pad with.
fn until_nul_tail(data: &[u8]) -> &[u8] {
    let end = data.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    &data[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_to_the_byte() {
        let mut extension = Extension::default();
        assert!(
            extension.read_records(b"17 path=a b\nc.jpg\n30 mtime=1350244992.023960108\n12 size=12\n\0\0").is_none()
        );
        let mut extension = Extension::default();
        let records = b"18 path=a b\nc.jpg\n30 mtime=1350244992.023960108\n11 size=12\n\0\0";
        assert!(extension.read_records(records).is_some());
        assert_eq!((extension.name.as_deref(), extension.size), (Some(&b"a b\nc.jpg"[..]), Some(12)));
        for bad in [&b"x"[..], b"5", b"99 path=a\n", b"9 path:a\n", b"0 \n", b"13 size=1234", b"11 size=-1\n"] {
            assert!(Extension::default().read_records(bad).is_none(), "{}", bad.escape_ascii());
        }
    }
}
