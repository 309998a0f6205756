//! Text files as editors and spreadsheets save them.

use std::borrow::Cow;

/// The text as UTF-8 without a byte order mark. A file that begins with UTF-16's mark is converted: some systems write lists
/// so. Any other text is unchanged.
pub(super) fn without_bom(bytes: &[u8]) -> Cow<'_, [u8]> {
    let utf16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]])).collect();
        Cow::Owned(String::from_utf16_lossy(&units).into_bytes())
    };
    match bytes {
        [0xEF, 0xBB, 0xBF, text @ ..] => without_bom(text),
        [0xFF, 0xFE, text @ ..] => utf16(text, u16::from_le_bytes),
        [0xFE, 0xFF, text @ ..] => utf16(text, u16::from_be_bytes),
        text => Cow::Borrowed(text),
    }
}

/// `1 image`, `2 images`, `3 classes`.
pub(crate) fn count(number: usize, what: &str) -> String {
    let ending = match (number, what.ends_with('s')) {
        (1, _) => "",
        (_, true) => "es",
        _ => "s",
    };
    format!("{number} {what}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_order_marks_are_no_text() {
        for bytes in [&b"a 1"[..], b"\xEF\xBB\xBFa 1", b"\xFF\xFEa\0 \x001\0", b"\xFE\xFF\0a\0 \x001"] {
            assert_eq!(&*without_bom(bytes), b"a 1");
        }
        assert_eq!(&*without_bom(b"\xFFa"), b"\xFFa");
    }

    #[test]
    fn one_of_a_thing_has_no_ending() {
        assert_eq!([count(0, "image"), count(1, "class"), count(2, "class")], ["0 images", "1 class", "2 classes"]);
    }
}
