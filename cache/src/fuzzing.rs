//! Entry points of the fuzz targets, and of the test that replays their corpus. No part of the interface.
//!
//! Each takes arbitrary bytes and must return: an error is allowed, a panic is a defect.

use crate::format::grid::GridSpec;
use crate::format::hash::blake3_hex;
use crate::format::manifest::{Manifest, manifest_of};
use crate::format::names::MANIFEST_FILE;
use crate::format::pack::TOKEN_BITS_MAX;
use crate::format::quarantine::quarantine_list;
use crate::read::cache::TokenCache;
use crate::shard::access::Access;
use crate::shard::open::Shard;
use crate::shard::page_header::DataPageHeader;
use crate::unpack::Kernels;
use std::fs;
use std::path::Path;

/// A manifest with a valid signature around arbitrary content: what lies behind the checksum.
pub fn manifest(body: &[u8]) {
    let path = Path::new(MANIFEST_FILE);
    let _ = Manifest::parse(path, body);
    let signed_with = |digits: &str| {
        let end = format!(",\n  \"checksum\": \"{digits}\"\n}}\n");
        [body.trim_ascii_end().strip_suffix(b"}").unwrap_or(body).trim_ascii_end(), end.as_bytes()].concat()
    };
    let checksum = blake3_hex(&signed_with(&"0".repeat(64)));
    if let Ok(manifest) = Manifest::parse(path, &signed_with(&checksum)) {
        // What was accepted is written and read as the same.
        let text = manifest.to_text(path).expect("a manifest is JSON");
        let again = Manifest::parse(path, text.as_bytes()).expect("what is written is read");
        assert_eq!(again.content_hash, manifest.content_hash);
    }
}

/// A shard of arbitrary bytes, and a cache that vouches for it. `dir` is an empty folder that may be written to.
pub fn footer(dir: &Path, bytes: &[u8]) {
    let name = "shard-00000-00000.parquet";
    let path = dir.join(name);
    fs::write(&path, bytes).expect("the folder can be written to");
    let Ok(shard) = Shard::open(&path, None) else { return };
    let Ok(file) = shard.load(Access::Copy) else { return };
    for group in 0..shard.num_groups() {
        let _ = shard.verify_group(&file, group);
        let _ = shard.row_metas(&file, group, 0..shard.group_rows(group));
    }
    let Ok(identity) = shard.identity() else { return };
    let list = quarantine_list(&shard.footer.quarantined);
    let manifest = manifest_of(identity, vec![shard.describe(name, &file)], shard.footer.quarantined.len(), &list);
    let Ok(text) = manifest.to_text(&path) else { return };
    fs::write(dir.join(MANIFEST_FILE), text).expect("the folder can be written to");
    for access in [Access::Map, Access::Copy] {
        if let Ok(cache) = TokenCache::open_with(dir, access) {
            read_everything(&cache);
        }
    }
}

fn read_everything(cache: &TokenCache) {
    let mut tokens = vec![0; cache.grid().num_tokens()];
    for row in 0..cache.num_rows() {
        cache.tokens_into(row, &mut tokens);
        assert!(tokens.iter().all(|token| token >> cache.grid().bits == 0));
        let _ = cache.label(row);
    }
    let _ = cache.metas(0..cache.num_rows());
    let _ = cache.recompute_content_hash();
}

/// Arbitrary bits of any width and length, unpacked by the machine's kernels and by the plain ones: equal.
pub fn packed_rows(data: &[u8]) {
    let [width, split, length_low, length_high, packed @ ..] = data else { return };
    let bits = u32::from(*width) % TOKEN_BITS_MAX + 1;
    let low_bits = u32::from(*split) % (bits + 1);
    let most = packed.len() * 8 / bits as usize;
    let n = usize::from(u16::from_le_bytes([*length_low, *length_high])) % (most + 1);
    // The row's bytes are an allocation of their own, whose end a sanitizer watches.
    let bytes = crate::format::pack::packed_bytes(n, bits);
    let packed: Box<[u8]> = packed[..bytes].into();
    let outputs = [Kernels::best(bits), Kernels::scalar(bits)].map(|kernels| {
        let (mut narrow, mut wide, mut pre, mut post) = (vec![0; n], vec![0; n], vec![0; n], vec![0; n]);
        kernels.narrow(&packed, &mut narrow);
        kernels.wide(&packed, &mut wide);
        kernels.split(&packed, low_bits, &mut pre, &mut post);
        (narrow, wide, pre, post)
    });
    assert_eq!(outputs[0], outputs[1]);
    let mut again = vec![0; bytes];
    crate::format::pack::pack(&outputs[0].0, bits, &mut again);
    let spare = (bytes * 8 - n * bits as usize) as u32;
    let last = |bytes: &[u8]| bytes.last().map(|last| last << spare.min(7) >> spare.min(7));
    assert_eq!((&again[..bytes.saturating_sub(1)], last(&again)), (&packed[..bytes.saturating_sub(1)], last(&packed)));
    let _ = DataPageHeader::parse(&packed);
    let _ = GridSpec::parse(&String::from_utf8_lossy(&packed), bits);
}

/// An array file of arbitrary bytes. `dir` is an empty folder that may be written to.
pub fn npy(dir: &Path, bytes: &[u8]) {
    let (path, out) = (dir.join("tokens.npy"), dir.join("out"));
    fs::write(&path, bytes).expect("the folder can be written to");
    let options = crate::import::importer::ImportOptions { grid: (2, 2), ..Default::default() };
    let _ =
        crate::import::arrays::import_npy(&path, None, None, &options, &out, crate::write::writer::OpenMode::Overwrite);
}
