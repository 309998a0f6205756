//! Untrusted texts: keys, class names, reasons. They end up in pages, tables and terminals.

/// Bytes of a text that are shown or passed on. The cache's own keys are no longer; a malicious file may have one of
/// 100 MB.
pub(crate) const SHOWN_BYTES_MAX: usize = 4096;

/// The text, or its beginning with its length where it is longer than [`SHOWN_BYTES_MAX`].
pub(crate) fn cut(text: &str) -> std::borrow::Cow<'_, str> {
    if text.len() <= SHOWN_BYTES_MAX {
        return text.into();
    }
    let end = (0..=SHOWN_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}… ({} bytes)", &text[..end], text.len()).into()
}

/// At most the first `chars` characters, and nothing that moves a terminal's cursor or changes its state.
pub(crate) fn printable(text: &str, chars: usize) -> String {
    text.chars().take(chars).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters_and_say_how_long_they_were() {
        assert_eq!(cut("a/b.jpg"), "a/b.jpg");
        let long = format!("x{}", "é".repeat(50_000_000));
        let shown = cut(&long);
        assert!(shown.len() < SHOWN_BYTES_MAX + 40 && shown.ends_with("é… (100000001 bytes)"), "{}", shown.len());
        assert_eq!(printable("\u{1b}]0;title\u{7}\u{9b}31mred", 11), "\u{fffd}]0;title\u{fffd}\u{fffd}");
    }
}
