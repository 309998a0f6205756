//! Names of PNG files from the keys of images.

/// Longest name of a file and longest path below the output folder, in bytes: Linux allows 255 and 4,096.
const MAX_NAME_BYTES: usize = 255;
const MAX_PATH_BYTES: usize = 2048;

/// The file of a view, relative to the output folder: `<key>.<view>.png`. Folders in the key become folders. Only
/// the key's normal components count, so that files stay below the output folder for any keys.
///
/// A component that is too long for a file system is cut and its hash appended; a key whose path is too long becomes its
/// hash.
pub(super) fn file_of(key: &str, view: u32) -> String {
    let ending = format!(".{view}.png");
    let mut parts: Vec<&str> = key.split('/').filter(|part| !matches!(*part, "" | "." | "..")).collect();
    let name = parts.pop().unwrap_or_default();
    let folders = parts.into_iter().map(|part| shortened(part, MAX_NAME_BYTES) + "/");
    let path = folders.collect::<String>() + &shortened(name, MAX_NAME_BYTES - ending.len()) + &ending;
    if path.len() <= MAX_PATH_BYTES { path } else { blake3::hash(key.as_bytes()).to_hex().to_string() + &ending }
}

fn shortened(part: &str, max_bytes: usize) -> String {
    if part.len() <= max_bytes {
        return part.to_owned();
    }
    let hash = format!("~{}", &blake3::hash(part.as_bytes()).to_hex()[..16]);
    let kept = (0..=max_bytes - hash.len()).rev().find(|at| part.is_char_boundary(*at)).unwrap_or(0);
    part[..kept].to_owned() + &hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_into_file_systems_and_differ() {
        assert_eq!(file_of("n01/a.JPEG", 2), "n01/a.JPEG.2.png");
        assert_eq!(file_of("../..//x/./y", 0), "x/y.0.png");
        let long = |end: &str| file_of(&format!("c/{}{end}", "\u{e9}".repeat(122)), 0);
        assert_eq!(long(".jpg").len(), "c/".len() + 248 + ".0.png".len(), "a name that fits is not cut");
        let (one, other) = (long("-one.jpg"), long("-two.jpg"));
        assert!(one != other && one.len() <= 2 + MAX_NAME_BYTES && one.ends_with(".0.png"), "{one}");
        let deep = format!("{}/x.jpg", vec!["d".repeat(300); 20].join("/"));
        assert_eq!(file_of(&deep, 1).len(), 64 + ".1.png".len());
    }
}
