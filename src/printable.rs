//! Text of files on a terminal.

use std::fmt::Write;

/// `text` with its control characters, and those that only change how others look, spelt out: a name out of a file must not move
/// the cursor, hide a line or turn its direction round.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() || is_invisible(character) {
            let _ = write!(shown, "{}", character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Directions, joiners, separators of lines and marks of byte order.
fn is_invisible(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn what_steers_a_terminal_is_spelt_out_and_the_rest_stays() {
        assert_eq!(printable("a\u{1b}[31mred\u{7}\r\n\u{9b}2J"), "a\\u{1b}[31mred\\u{7}\\r\\n\\u{9b}2J");
        assert_eq!(printable("x\u{202e}gpj.exe"), "x\\u{202e}gpj.exe");
        assert_eq!(printable("Grüße, 漢字, e\u{301} `q` \"p\" \\"), "Grüße, 漢字, e\u{301} `q` \"p\" \\");
    }
}
