//! The central directory of a zip archive: which members there are, and where their bytes lie.
//!
//! ```text
//! local header, name, extra field, bytes      for each member
//! central directory                           an entry for each member, with the offset of its local header
//! [zip64 record, zip64 locator]               PyTorch always writes them
//! end record, comment
//! ```
//!
//! All offsets count from the first byte of the file. Other readers allow for bytes before the archive and guess how many
//! from the distances between the records, which PyTorch's zip64 records mislead: they refuse some of its files.

use std::collections::HashSet;
use std::ops::Range;

/// A member of an archive.
#[derive(Debug)]
pub(super) struct Member {
    /// Its path within the archive.
    pub name: String,
    /// 0: stored as it is.
    pub method: u16,
    /// Whether it is encrypted.
    pub is_encrypted: bool,
    /// Where its bytes, compressed or not, lie in the file.
    pub bytes: Range<usize>,
    /// Number of bytes after unpacking.
    pub unpacked_len: u64,
}

const END: &[u8] = b"PK\x05\x06";
const END_LEN: usize = 22;
const ZIP64_LOCATOR: &[u8] = b"PK\x06\x07";
const ZIP64_LOCATOR_LEN: usize = 20;
const ZIP64_END: &[u8] = b"PK\x06\x06";
const ZIP64_END_LEN: usize = 56;
const CENTRAL: &[u8] = b"PK\x01\x02";
const CENTRAL_LEN: usize = 46;
const LOCAL: &[u8] = b"PK\x03\x04";
const LOCAL_LEN: usize = 30;
const ZIP64_EXTRA: u16 = 1;
/// Values of 16 and 32 bits that stand for "see the zip64 record".
const FULL_16: u64 = 0xffff;
const FULL_32: u64 = 0xffff_ffff;

/// The members of the archive that `bytes` are, in the directory's order, names once each and in bounds.
///
/// # Errors
/// What is wrong with the archive.
pub(super) fn members(bytes: &[u8]) -> Result<Vec<Member>, String> {
    let directory = directory(bytes)?;
    let mut rest = &bytes[directory.bytes.clone()];
    let mut members = vec![];
    let mut names = HashSet::new();
    while !rest.is_empty() {
        let (member, len) = central_entry(bytes, rest, directory.bytes.start)?;
        names.insert(member.name.clone());
        members.push(member);
        rest = &rest[len..];
    }
    if members.len() as u64 != directory.num_entries {
        return Err(format!("its zip directory has {} entries instead of {}", members.len(), directory.num_entries));
    }
    if members.len() != names.len() {
        // Which one counts depends on the reader.
        return Err(format!("a zip of {} members under {} names", members.len(), names.len()));
    }
    Ok(members)
}

#[derive(Debug)]
struct Directory {
    bytes: Range<usize>,
    num_entries: u64,
}

/// Where the end records say that the central directory is.
fn directory(bytes: &[u8]) -> Result<Directory, String> {
    let end_at = end_record(bytes).ok_or("a zip archive without an end record")?;
    let end = &bytes[end_at..];
    let mut fields = [u16_at(end, 10).into(), u32_at(end, 12).into(), u32_at(end, 16).into()];
    let mut records_at = end_at;
    if let Some((at, wide)) = zip64_record(bytes, end_at)? {
        // A value that is in both records must be the same: some readers take one, some the other.
        let agrees =
            fields.iter().zip([FULL_16, FULL_32, FULL_32]).zip(wide).all(|((a, full), b)| *a == full || *a == b);
        if !agrees {
            return Err("a zip archive with two directories".into());
        }
        (records_at, fields) = (at, wide);
    }
    let [num_entries, len, start] = fields;
    let end = start.checked_add(len).filter(|&end| end <= records_at as u64);
    let end = end.ok_or_else(|| format!("its zip directory is said to have {len} bytes from byte {start} on"))?;
    Ok(Directory { bytes: start as usize..end as usize, num_entries })
}

/// Where the end record begins: the last one whose comment reaches to the end of the file.
fn end_record(bytes: &[u8]) -> Option<usize> {
    let last = bytes.len().checked_sub(END_LEN)?;
    let first = last.saturating_sub(usize::from(u16::MAX));
    let fits =
        |&at: &usize| bytes[at..].starts_with(END) && at + END_LEN + usize::from(u16_at(bytes, at + 20)) == bytes.len();
    (first..=last).rev().find(fits)
}

/// Where the zip64 record begins that belongs to an end record, and what it says: entries, bytes and start of the directory.
fn zip64_record(bytes: &[u8], end_at: usize) -> Result<Option<(usize, [u64; 3])>, String> {
    let locator = end_at.checked_sub(ZIP64_LOCATOR_LEN).map(|at| &bytes[at..end_at]);
    let Some(locator) = locator.filter(|locator| locator.starts_with(ZIP64_LOCATOR)) else { return Ok(None) };
    let at = u64_at(locator, 8);
    let fits = |&at: &usize| end_at.checked_sub(ZIP64_LOCATOR_LEN + ZIP64_END_LEN).is_some_and(|last| at <= last);
    let at =
        usize::try_from(at).ok().filter(fits).ok_or_else(|| format!("its zip64 record is said to be at byte {at}"))?;
    let record = &bytes[at..];
    if !record.starts_with(ZIP64_END) {
        return Err(format!("there is no zip64 record at byte {at}"));
    }
    Ok(Some((at, [u64_at(record, 32), u64_at(record, 40), u64_at(record, 48)])))
}

/// The member of the entry that `rest` begins with, and the entry's length. Members lie before `limit`.
fn central_entry(bytes: &[u8], rest: &[u8], limit: usize) -> Result<(Member, usize), String> {
    let cut = || "its zip directory is cut".to_string();
    let head = rest.get(..CENTRAL_LEN).filter(|head| head.starts_with(CENTRAL)).ok_or_else(cut)?;
    let [name_len, extra_len, comment_len] = [28, 30, 32].map(|at| usize::from(u16_at(head, at)));
    let (extra_at, len) = (CENTRAL_LEN + name_len, CENTRAL_LEN + name_len + extra_len + comment_len);
    let entry = rest.get(..len).ok_or_else(cut)?;
    let raw_name = &entry[CENTRAL_LEN..extra_at];
    let name = std::str::from_utf8(raw_name).map_err(|_| "a zip member whose name is not UTF-8")?.to_string();
    let narrow = [24, 20, 42].map(|at| u64::from(u32_at(head, at)));
    let extra = &entry[extra_at..extra_at + extra_len];
    let [unpacked_len, packed_len, local_at] =
        wide_fields(narrow, extra).ok_or_else(|| format!("zip member `{name}` has a broken zip64 field"))?;
    let start =
        data_start(bytes, local_at, raw_name).ok_or_else(|| format!("zip member `{name}` has no local header"))?;
    let end = (start as u64).checked_add(packed_len).filter(|&end| end <= limit as u64);
    let end = end.ok_or_else(|| format!("zip member `{name}` reaches beyond the end of the file"))?;
    let (method, is_encrypted) = (u16_at(head, 10), u16_at(head, 8) & 1 != 0);
    Ok((Member { name, method, is_encrypted, bytes: start..end as usize, unpacked_len }, len))
}

/// Unpacked length, packed length and offset: those of 32 bits, except that the extra field holds, in this order, those that
/// do not fit.
fn wide_fields(mut fields: [u64; 3], mut extra: &[u8]) -> Option<[u64; 3]> {
    if !fields.contains(&FULL_32) {
        return Some(fields);
    }
    let mut wide = None;
    while extra.len() >= 4 && wide.is_none() {
        let (id, len) = (u16_at(extra, 0), usize::from(u16_at(extra, 2)));
        let field = extra.get(4..4 + len)?;
        wide = (id == ZIP64_EXTRA).then_some(field);
        extra = &extra[4 + len..];
    }
    let mut wide = wide.unwrap_or_default();
    for field in fields.iter_mut().filter(|field| **field == FULL_32) {
        *field = u64_at(wide.get(..8)?, 0);
        wide = &wide[8..];
    }
    Some(fields)
}

/// Where the bytes behind a local header begin, whose name must be the directory's.
fn data_start(bytes: &[u8], local_at: u64, name: &[u8]) -> Option<usize> {
    let local_at = usize::try_from(local_at).ok()?;
    let head = bytes.get(local_at..local_at.checked_add(LOCAL_LEN)?)?;
    let [name_len, extra_len] = [26, 28].map(|at| usize::from(u16_at(head, at)));
    let name_at = local_at + LOCAL_LEN;
    let is_same = head.starts_with(LOCAL) && bytes.get(name_at..name_at + name_len)? == name;
    is_same.then_some(name_at + name_len + extra_len)
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("a range of N bytes")
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(number(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(number(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(number(bytes, at))
}
