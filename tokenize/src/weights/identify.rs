//! What a file is that is no checkpoint, for people who picked or downloaded the wrong one.

/// A few words on `bytes`, and what to do about it where that is clear.
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
    } else if head.starts_with(b"\x1f\x8b") {
        "it is compressed with gzip; unpack it first".into()
    } else if bytes.len() > 262 && &bytes[257..262] == b"ustar" {
        "it is a tar archive; unpack it first (or, from PyTorch before 0.1.10, save it again with a newer one)".into()
    } else if let Some(kind) = picture(head) {
        format!("it is a {kind} picture")
    } else if head.starts_with(b"PAR1") {
        "it is a Parquet file".into()
    } else if head.iter().take(64).all(|&b| b.is_ascii_graphic() || b.is_ascii_whitespace()) {
        let line = String::from_utf8_lossy(&head[..head.len().min(64)]);
        format!("it is a text that starts with `{}`", line.lines().next().unwrap_or_default().trim())
    } else {
        "its first bytes are of no kind that is known here".into()
    }
}

fn picture(head: &[u8]) -> Option<&'static str> {
    let kinds: [(&[u8], &str); 3] = [(b"\xff\xd8\xff", "JPEG"), (b"\x89PNG", "PNG"), (b"GIF8", "GIF")];
    kinds.into_iter().find(|(start, _)| head.starts_with(start)).map(|(_, kind)| kind)
}
