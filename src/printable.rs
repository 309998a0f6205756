//! Escapes text from any origin so that it is safe to show on a terminal.

use std::borrow::Cow;

/// Control characters, which start escape sequences, and invisible characters that change how others are shown: direction
/// marks, joiners, line separators, byte order marks.
fn is_unsafe(c: char) -> bool {
    let is_invisible =
        matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    c.is_control() || is_invisible
}

/// Escapes a text of one line, such as a name in a file: line breaks and tabs too.
pub(crate) fn line(text: &str) -> Cow<'_, str> {
    replaced(text, is_unsafe, |c| c.escape_default().to_string())
}

/// Escapes a text of several lines; an unsafe character becomes, for example, `\u{1b}`.
pub(crate) fn lines(text: &str) -> Cow<'_, str> {
    replaced(text, |c| is_unsafe(c) && !matches!(c, '\n' | '\t'), |c| format!("\\u{{{:x}}}", u32::from(c)))
}

/// Escapes JSON; unsafe characters occur only inside strings and become JSON escapes.
pub(crate) fn json(text: &str) -> Cow<'_, str> {
    replaced(text, |c| is_unsafe(c) && c != '\n', |c| format!("\\u{:04x}", u32::from(c)))
}

fn replaced(text: &str, is_replaced: impl Fn(char) -> bool, escape: impl Fn(char) -> String) -> Cow<'_, str> {
    if !text.contains(&is_replaced) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_replaced(c) {
            shown.push_str(&escape(c));
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_sequences_of_terminals_are_made_visible() {
        assert_eq!(lines("a\x1b[31mred\x07\u{9b}2J\u{202e}b"), "a\\u{1b}[31mred\\u{7}\\u{9b}2J\\u{202e}b");
        assert_eq!(lines("rolled\rback"), "rolled\\u{d}back");
    }

    #[test]
    fn a_line_stays_a_line() {
        assert_eq!(line("a\u{1b}[31mred\u{7}\r\n\u{9b}2J"), "a\\u{1b}[31mred\\u{7}\\r\\n\\u{9b}2J");
        assert_eq!(line("x\u{202e}gpj.exe"), "x\\u{202e}gpj.exe");
    }

    #[test]
    fn ordinary_text_stays() {
        let text = "two\tcolumns\nn01440764_10026.JPEG  été 猫 שלום 🐈";
        assert!(matches!(lines(text), Cow::Borrowed(same) if same == text));
    }

    #[test]
    fn json_stays_json_and_keeps_its_meaning() {
        let value = serde_json::json!({ "key": "a\x1b\x7f\u{9b}\u{202e}\nb" });
        let shown = json(&serde_json::to_string_pretty(&value).unwrap()).into_owned();
        assert!(!shown.chars().any(|c| is_unsafe(c) && c != '\n'), "{shown:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }
}
