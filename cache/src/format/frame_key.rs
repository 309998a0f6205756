//! Keys of video frames: `<segment>/<frame>`, so that a clip is found like a folder and the order is that of time.

/// The key of frame `frame` of a set, which belongs to clip `segment`.
pub(crate) fn frame_key(segment: i32, frame: usize) -> String {
    format!("{segment}/{frame:08}")
}

/// Segment and frame of a key that [`frame_key`] made.
pub(crate) fn parse_frame_key(key: &str) -> Option<(i32, i32)> {
    let (segment, frame) = key.split_once('/')?;
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_digits(segment.strip_prefix('-').unwrap_or(segment)) || !is_digits(frame) {
        return None;
    }
    Some((segment.parse().ok()?, frame.parse().ok()?))
}

/// Segment and frame of a key, for the columns of these names; -1 where the key is of another form.
pub(crate) fn frame_of_key(key: &[u8]) -> (i32, i32) {
    std::str::from_utf8(key).ok().and_then(parse_frame_key).unwrap_or((-1, -1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_say_segment_and_frame() {
        for (segment, frame) in [(0, 0), (-1, 7), (i32::MAX, 123_456_789), (i32::MIN, i32::MAX as usize)] {
            assert_eq!(parse_frame_key(&frame_key(segment, frame)), Some((segment, frame as i32)));
        }
        for key in ["", "7", "7/", "/7", "a/7", "7/a", "+7/1", "7/+1", "7/-1", "--7/1", "7/99999999999", "1/2/3"] {
            assert_eq!(parse_frame_key(key), None, "{key}");
        }
    }
}
