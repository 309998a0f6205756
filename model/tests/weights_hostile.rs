//! Broken and malicious files: each is refused with its name and what is wrong with it, and none costs much memory.
//! They are in fixtures/hostile.tar.gz, which make_hostile.py beside it makes.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use tokengrid_model::Weights;

/// Every file of the folder, with a part of the message that it must be refused with.
const EXPECTED: [(&str, &str); 104] = [
    ("header-beyond.safetensors", "safetensors header"),
    ("header-hole.safetensors", "safetensors header"),
    ("header-long.safetensors", "safetensors header"),
    ("header-longer-than-file.safetensors", "safetensors header"),
    ("header-negative.safetensors", "safetensors header"),
    ("header-no-tensors.safetensors", "holds no named tensors"),
    ("header-not-json.safetensors", "safetensors header"),
    ("header-not-utf8.safetensors", "safetensors header"),
    ("header-overflow-empty.safetensors", "tensor `w` has the shape [0, 9223372036854775808]"),
    ("header-overflow-stride.safetensors", "tensor `w` has the shape [0, 1099511627776, 1099511627776]"),
    ("header-overflow.safetensors", "safetensors header"),
    ("header-overlap.safetensors", "safetensors header"),
    ("header-reversed.safetensors", "safetensors header"),
    ("header-trailing.safetensors", "safetensors header"),
    ("header-twice.safetensors", "tensor `w` twice"),
    ("header-unknown-type.safetensors", "unknown variant `F128`"),
    ("header-unsupported-type.safetensors", "F8_E4M3 (tensor `w`)"),
    ("header-wrong-size.safetensors", "safetensors header"),
    ("id-absolute.pth", "a storage called `/etc/passwd`"),
    ("id-missing.pth", "storage `7`, which is not in the file"),
    ("id-module.pth", "a storage called `0`"),
    ("id-negative.pth", "storage `0` of -4 elements"),
    ("id-not-a-tuple.pth", "a storage of an unknown form"),
    ("id-tensor-of-none.pth", "a tensor of an unknown form"),
    ("id-traversal.pth", "a storage called `../../../etc/passwd`"),
    ("id-unknown-type.pth", "`torch.ComplexFloatStorage`"),
    ("legacy-big-endian.pth", "big-endian"),
    ("legacy-cut-pickle.pth", "data pickle: a line without an end"),
    ("legacy-cut.pth", "ends inside the storage `0`"),
    ("legacy-huge.pth", "storage `0` of 4611686018427387904 elements"),
    ("legacy-missing-key.pth", "storage `0`, which is not in the file"),
    ("legacy-negative.pth", "storage `0` of -4 elements"),
    ("legacy-protocol.pth", "protocol version"),
    ("legacy-size-lies.pth", "has 2 elements, the pickle says 4"),
    ("legacy-trailing.pth", "9 bytes behind the last storage"),
    ("legacy-twice.pth", "the storage `0` twice"),
    ("legacy-two-types.pth", "the storage `0` as Float and as Int64"),
    ("legacy-unknown-key.pth", "a storage `9` of unknown type"),
    ("other-empty.ckpt", "it is empty"),
    ("other-gzip.ckpt", "compressed with gzip"),
    ("other-lfs.ckpt", "git lfs pull"),
    ("other-page.ckpt", "a web page"),
    ("other-picture.ckpt", "a PNG picture"),
    ("other-tar.ckpt", "a tar archive"),
    ("other-text.ckpt", "a text that starts with `I am a text`"),
    ("other-zeros.ckpt", "of no kind that is known here"),
    ("pickle-copies.pth", "copied over and over"),
    ("pickle-cut.pth", "it ends inside a value"),
    ("pickle-deep.pth", "holds no named tensors"),
    ("pickle-empty.pth", "it ends inside a value"),
    ("pickle-knot.pth", "dictionaries that contain each other"),
    ("pickle-long-key.pth", "a tensor's name of 2000 characters"),
    ("pickle-long-lies.pth", "it ends inside a value"),
    ("pickle-long-name.pth", "a name of 2004 characters"),
    ("pickle-long.pth", "holds no named tensors"),
    ("pickle-marks.pth", "holds no named tensors"),
    ("pickle-no-memo.pth", "a memo entry that was never stored"),
    ("pickle-no-tensors.pth", "holds no named tensors"),
    ("pickle-not-utf8.pth", "not UTF-8"),
    ("pickle-odd-items.pth", "a dictionary key without a value"),
    ("pickle-text-lies.pth", "it ends inside a value"),
    ("run-bare.pth", "a pickle, but not one of `torch.save`"),
    ("run-build.pth", "asks to run `code.InteractiveInterpreter`"),
    ("run-dunder.pth", "asks to run `torch._utils.__builtins__.eval`"),
    ("run-eval.pth", "asks to run `__builtin__.eval`"),
    ("run-extension.pth", "opcode 0x82"),
    ("run-getattr.pth", "asks to run `builtins.getattr`"),
    ("run-inst.pth", "asks to run `os.system`"),
    ("run-legacy-keys.pth", "asks to run `os.system`"),
    ("run-legacy.pth", "asks to run `os.system`"),
    ("run-newobj.pth", "asks to run `subprocess.Popen`"),
    ("run-obj.pth", "asks to run `os.system`"),
    ("run-reduce.pth", "asks to run `posix.system`"),
    ("run-stack-global.pth", "asks to run `os.system`"),
    ("run-text-id.pth", "opcode 0x50"),
    ("size-aliases.pth", "its tensors would take"),
    ("size-dimensions.pth", "a tensor of 1000 dimensions"),
    ("size-expanded.pth", "its tensors would take"),
    ("size-huge-integer.pth", "a tensor's size that is not a number"),
    ("size-negative-offset.pth", "a negative size, stride or offset"),
    ("size-negative-stride.pth", "a negative size, stride or offset"),
    ("size-negative.pth", "a negative size, stride or offset"),
    ("size-offset-beyond.pth", "needs 20 bytes of a storage that has 16"),
    ("size-overflow-offset.pth", "sizes that overflow"),
    ("size-overflow-stride.pth", "sizes that overflow"),
    ("size-overflow.pth", "sizes that overflow"),
    ("size-storage-lies.pth", "storage `0` has 4 elements, the pickle says 1000"),
    ("size-storage-short.pth", "needs 64 bytes of a storage that has 16"),
    ("size-unequal.pth", "2 sizes but 3 strides"),
    ("zip-absolute.pth", "`/etc/evil` points outside"),
    ("zip-backslash.pth", "points outside"),
    ("zip-big-endian.pth", "big-endian"),
    ("zip-compressed.pth", "is compressed"),
    ("zip-count-lies.pth", "zip"),
    ("zip-cut-directory.pth", "zip"),
    ("zip-cut.pth", "zip"),
    ("zip-declared-size.pth", "reaches beyond the end of the file"),
    ("zip-duplicate.pth", "4 members under 3 names"),
    ("zip-encrypted.pth", "is encrypted"),
    ("zip-no-pickle.pth", "a zip archive, but not one of `torch.save`"),
    ("zip-offset-beyond.pth", "zip"),
    ("zip-overlap.pth", "zip"),
    ("zip-traversal.pth", "points outside"),
    ("zip-two-pickles.pth", "this one has 2"),
];

/// The files, unpacked.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let archive = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/hostile.tar.gz");
    for (name, bytes) in tokengrid_test_support::archived(&archive) {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

fn refusal(path: &Path) -> String {
    match Weights::open(path) {
        Ok(weights) => panic!("{} was read: {:?}", path.display(), weights.names().take(5).collect::<Vec<_>>()),
        Err(error) => error.to_string(),
    }
}

#[test]
fn every_hostile_file_is_refused_for_what_is_wrong_with_it() {
    let (mut wrong, folder) = (vec![], folder());
    for (name, expected) in EXPECTED {
        let message = refusal(&folder.path().join(name));
        if !message.contains(name) || !message.contains(expected) || message.lines().count() != 1 {
            wrong.push(format!("{name}: expected `{expected}`, got: {message}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_file_of_the_corpus_is_without_an_expectation() {
    let folder = folder();
    let entries = std::fs::read_dir(&folder).unwrap();
    let files: BTreeSet<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let expected: BTreeSet<String> = EXPECTED.iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(files, expected);
}

/// Peak of resident memory in bytes, if the system reports it.
fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

#[test]
fn a_pickle_cannot_fill_memory() {
    const MEBIBYTE: u64 = 1 << 20;
    let Some(before) = peak_bytes() else {
        tokengrid_test_support::skip_anywhere("this system does not tell a process its peak of memory");
        return;
    };
    let folder = folder();
    for (name, _) in EXPECTED {
        refusal(&folder.path().join(name));
    }
    // A small opcode repeated: as much memory as a pickle can take, however long it is.
    let file = tempfile::NamedTempFile::new().unwrap();
    let magic = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
    std::fs::write(file.path(), [&magic[..], &vec![b']'; 64 << 20]].concat()).unwrap();
    let message = refusal(file.path());
    assert!(message.contains("opcodes, which no checkpoint needs"), "{message}");
    let grown = peak_bytes().unwrap() - before;
    assert!(grown < 512 * MEBIBYTE, "{} MiB", grown / MEBIBYTE);
}
