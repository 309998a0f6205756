//! The orientation in XMP text: an attribute or an element, found without parsing, as Pillow finds it.

const NAME: &[u8] = b"tiff:Orientation";

/// The digit of the first `tiff:Orientation="N` or `tiff:Orientation>N`, if it is 1 to 8.
pub(super) fn orientation(text: &[u8]) -> Option<u8> {
    let names = text.windows(NAME.len()).enumerate().filter(|(_, window)| *window == NAME);
    let mut digits = names.filter_map(|(at, _)| {
        let rest = &text[at + NAME.len()..];
        let value = rest.strip_prefix(b"=\"").or_else(|| rest.strip_prefix(b">"))?;
        value.first().filter(|b| b.is_ascii_digit()).map(|digit| digit - b'0')
    });
    digits.next().filter(|digit| (1..=8).contains(digit))
}
