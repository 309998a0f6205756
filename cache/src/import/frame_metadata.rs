//! The metadata of a set of video frames for another number of frames.

use crate::import::frame_set::NUM_IMAGES;
use serde_json::Value;

/// The text of a `metadata.json` with another `num_images`; all else stays as it is, spaces and the order of the keys
/// included. `None` for what is no JSON object.
pub(crate) fn with_num_images(text: &str, count: usize) -> Option<String> {
    let mut wanted: Value = serde_json::from_str(text).ok()?;
    wanted.as_object_mut()?.insert(NUM_IMAGES.to_owned(), count.into());
    let name = format!("\"{NUM_IMAGES}\"");
    let edited = text.match_indices(&name).find_map(|(place, _)| {
        let value = text[place + name.len()..].trim_start().strip_prefix(':')?.trim_start();
        let behind = value.trim_start_matches(|c: char| c.is_ascii_digit());
        let edited = format!("{}{count}{behind}", &text[..text.len() - value.len()]);
        // The name may also stand in another value, or deeper.
        (serde_json::from_str(&edited).ok() == Some(wanted.clone())).then_some(edited)
    });
    edited.or_else(|| serde_json::to_string(&wanted).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_number_changes() {
        for (text, expected) in [
            ("{\"a\": 1e3,\n \"num_images\" : 11, \"s\":4} ", Some("{\"a\": 1e3,\n \"num_images\" : 5, \"s\":4} ")),
            (
                r#"{"b": {"num_images": 7}, "c": "\"num_images\": 7", "num_images": 11}"#,
                Some(r#"{"b": {"num_images": 7}, "c": "\"num_images\": 7", "num_images": 5}"#),
            ),
            (r#"{"s": 4}"#, Some(r#"{"num_images":5,"s":4}"#)),
            (r#"{"num_images": "many"}"#, Some(r#"{"num_images":5}"#)),
            ("[11]", None),
            ("num_images", None),
        ] {
            assert_eq!(with_num_images(text, 5).as_deref(), expected, "{text}");
        }
    }
}
