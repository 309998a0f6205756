//! How ImageNet names its classes and images.

use super::keys::{MemberName, file_name, member_name};

/// The one training image that the reference leaves out: it trains and tokenizes 1,281,166 images. For
/// [`SourceOptions::exclude`](super::SourceOptions::exclude).
///
/// Source: the skip list of the training set in Open-MAGVIT2's ImageNet data loader, inherited from VQGAN's.
pub const OPEN_MAGVIT2_EXCLUDE: [&str; 1] = ["n06596364_9591.JPEG"];

/// Whether `name` is a WordNet id as ImageNet writes them: `n` and eight digits.
pub(super) fn is_wnid(name: &str) -> bool {
    let digits = name.strip_prefix('n').map(str::as_bytes);
    digits.is_some_and(|digits| digits.len() == 8 && digits.iter().all(u8::is_ascii_digit))
}

/// The key of an image for which a container has a path: the name that the image has in the class folders of
/// ImageNet, where it follows from the file name, else the path without what leads out of its folder.
///
/// | file name | key |
/// |---|---|
/// | `n01440764_10026.JPEG` | `n01440764/n01440764_10026.JPEG` |
/// | `n01440764_10026_n01440764.JPEG` | `n01440764/n01440764_10026.JPEG` |
/// | `ILSVRC2012_val_00000293_n01440764.JPEG` | `n01440764/ILSVRC2012_val_00000293.JPEG` |
pub(super) fn key_of_path(path: &str) -> Option<String> {
    let MemberName::Key(key) = member_name(path.as_bytes()) else { return None };
    Some(class_folder_key(file_name(&key)).unwrap_or(key))
}

fn class_folder_key(name: &str) -> Option<String> {
    let (stem, extension) = name.rsplit_once('.')?;
    let (front, back) = stem.rsplit_once('_')?;
    let numbered = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_wnid(front) && numbered(back) {
        return Some(format!("{front}/{name}"));
    }
    let (before, number) = front.rsplit_once('_')?;
    let is_split = before == back || matches!(before, "ILSVRC2012_val" | "ILSVRC2012_test");
    (is_wnid(back) && numbered(number) && is_split).then(|| format!("{back}/{front}.{extension}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_imagenet_become_keys_of_class_folders() {
        for (path, key) in [
            ("n01440764_10026_n01440764.JPEG", "n01440764/n01440764_10026.JPEG"),
            ("ILSVRC2012_val_00000293_n01440764.JPEG", "n01440764/ILSVRC2012_val_00000293.JPEG"),
            ("/data/train/n01440764/n01440764_10026.JPEG", "n01440764/n01440764_10026.JPEG"),
            ("n01440764/n01440764_10026.JPEG", "n01440764/n01440764_10026.JPEG"),
            ("n01440764_10026_n01440765.JPEG", "n01440764_10026_n01440765.JPEG"),
            ("ILSVRC2012_val_00000293.JPEG", "ILSVRC2012_val_00000293.JPEG"),
            ("cats/n0144_7.png", "cats/n0144_7.png"),
            ("../x/a_b.jpg", "%2E%2E/x/a_b.jpg"),
        ] {
            assert_eq!(key_of_path(path).as_deref(), Some(key));
        }
        assert_eq!((key_of_path(""), key_of_path(".hidden.jpg")), (None, None));
    }
}
