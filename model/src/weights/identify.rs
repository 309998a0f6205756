//! Descriptions of files that are not checkpoints, for error messages.

use super::zip_directory::Member;

/// A short description of `bytes`, with advice where the remedy is known.
pub(super) fn describe(bytes: &[u8]) -> String {
    let head = &bytes[..bytes.len().min(512)];
    let lower = head.to_ascii_lowercase();
    let text = lower.trim_ascii_start();
    if bytes.is_empty() {
        "it is empty (an interrupted download?)".into()
    } else if head.starts_with(b"version https://git-lfs") {
        "it is a Git LFS pointer, which stands for the file; run `git lfs pull`, or download the file itself".into()
    } else if text.starts_with(b"<!doctype html") || text.starts_with(b"<html") {
        "it is a web page: the server sent a login or error page instead of the file; download it with a browser".into()
    } else if head.starts_with(b"\x80") {
        "it is a pickle, but not one of `torch.save`".into()
    } else if let Some(program) = compressed_by(head) {
        format!("it is compressed with {program}; unpack it first")
    } else if bytes.len() > 262 && &bytes[257..262] == b"ustar" {
        "it is a tar archive; unpack it first (or, from PyTorch before 0.1.10, save it again with a newer one)".into()
    } else if let Some(kind) = picture(head) {
        format!("it is a {kind} picture")
    } else if let Some(kind) = other_format(head) {
        format!("it is {kind}")
    } else if head.iter().take(64).all(|&b| b.is_ascii_graphic() || b.is_ascii_whitespace()) {
        let line = String::from_utf8_lossy(&head[..head.len().min(64)]);
        format!("it is a text that starts with `{}`", line.lines().next().unwrap_or_default().trim())
    } else {
        "its first bytes are of no kind that is known here".into()
    }
}

/// Number of member names that are shown for an unknown archive.
const MEMBERS_SHOWN: usize = 3;

/// A description of an archive that `torch.save` did not write, and advice. `None` for one that it may have written.
pub(super) fn other_archive(members: &[Member]) -> Option<(String, &'static str)> {
    let names = || members.iter().map(|member| member.name.as_str());
    let named = |is: fn(&str) -> bool| names().find(|name| is(name));
    if members.is_empty() {
        return Some(("an empty zip archive".into(), "download or copy the weights themselves"));
    }
    if named(|name| name.ends_with("/constants.pkl") || name.contains("/code/")).is_some() {
        let advice = "in Python: `torch.save(torch.jit.load(FILE).state_dict(), \"weights.pt\")`";
        return Some(("a TorchScript archive, a program together with its weights".into(), advice));
    }
    if named(|name| name.ends_with("models/model.json") || name.ends_with("archive_format")).is_some() {
        let advice = "in Python: `torch.save(torch.export.load(FILE).state_dict, \"weights.pt\")`";
        return Some(("an exported PyTorch program together with its weights".into(), advice));
    }
    if named(|name| name.ends_with("/data.pkl")).is_some() {
        return None;
    }
    if named(|name| !name.ends_with(".npy")).is_none() {
        let advice = "in Python: `torch.save({name: torch.from_numpy(a) for name, a in numpy.load(FILE).items()}, \"weights.pt\")`";
        return Some(("an archive of NumPy arrays (.npz)".into(), advice));
    }
    const CHECKPOINTS: [&str; 5] = [".ckpt", ".pt", ".pth", ".bin", ".safetensors"];
    if let Some(inner) = named(|name| CHECKPOINTS.iter().any(|end| name.ends_with(end))) {
        return Some((format!("a zip archive that holds `{inner}`"), "unpack it first"));
    }
    let shown: Vec<String> = members.iter().take(MEMBERS_SHOWN).map(|member| format!("`{}`", member.name)).collect();
    let rest = if members.len() > MEMBERS_SHOWN { ", ..." } else { "" };
    let found = format!("a zip archive, but not one of `torch.save`: it holds {}{rest}", shown.join(", "));
    Some((found, "expected weights of a PyTorch checkpoint or of safetensors"))
}

fn compressed_by(head: &[u8]) -> Option<&'static str> {
    let kinds: [(&[u8], &str); 5] = [
        (b"\x1f\x8b", "gzip"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"\xfd7zXZ", "xz"),
        (b"BZh", "bzip2"),
        (b"7z\xbc\xaf\x27\x1c", "7-Zip"),
    ];
    starting(head, &kinds)
}

fn other_format(head: &[u8]) -> Option<&'static str> {
    let kinds: [(&[u8], &str); 4] = [
        (b"PAR1", "a Parquet file"),
        (b"\x89HDF", "an HDF5 file, as Keras writes"),
        (b"GGUF", "a GGUF file"),
        (b"\x93NUMPY", "a NumPy array"),
    ];
    starting(head, &kinds)
}

fn picture(head: &[u8]) -> Option<&'static str> {
    let kinds: [(&[u8], &str); 3] = [(b"\xff\xd8\xff", "JPEG"), (b"\x89PNG", "PNG"), (b"GIF8", "GIF")];
    starting(head, &kinds)
}

fn starting(head: &[u8], kinds: &[(&[u8], &'static str)]) -> Option<&'static str> {
    kinds.iter().find(|(start, _)| head.starts_with(start)).map(|(_, kind)| *kind)
}
