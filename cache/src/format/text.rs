//! Texts from files, in messages.

/// A text for a message, however long it is.
pub(crate) fn shown(text: &str) -> String {
    const CHARACTERS_MAX: usize = 200;
    if text.len() <= CHARACTERS_MAX {
        return text.to_owned();
    }
    let start: String = text.chars().take(CHARACTERS_MAX).collect();
    if start.len() == text.len() { start } else { format!("{start}... ({} bytes)", text.len()) }
}
