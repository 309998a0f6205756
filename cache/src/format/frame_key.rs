//! Keys of video frames: `<segment>/<frame>`, so that a clip is found like a folder and the order is that of time. A name may
//! come before: `<prefix>/<segment>/<frame>`.

/// The key of frame `frame` of a set, which belongs to clip `segment`.
pub(crate) fn frame_key(prefix: &str, segment: i32, frame: usize) -> String {
    let separator = if prefix.is_empty() { "" } else { "/" };
    format!("{prefix}{separator}{segment}/{frame:08}")
}

/// What a key that [`frame_key`] made says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameKey<'a> {
    /// The name before, or nothing.
    pub(crate) prefix: &'a str,
    pub(crate) segment: i32,
    pub(crate) frame: i32,
}

impl<'a> FrameKey<'a> {
    /// `None` for a key of another form.
    pub(crate) fn parse(key: &'a str) -> Option<FrameKey<'a>> {
        let (before, frame) = key.rsplit_once('/')?;
        let (prefix, segment) = before.rsplit_once('/').unwrap_or(("", before));
        let has_no_name = prefix.is_empty() && before.contains('/');
        let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if has_no_name || !is_digits(segment.strip_prefix('-').unwrap_or(segment)) || !is_digits(frame) {
            return None;
        }
        Some(FrameKey { prefix, segment: segment.parse().ok()?, frame: frame.parse().ok()? })
    }
}

/// Segment and frame of a key, for the columns of these names; -1 where the key is of another form.
pub(crate) fn frame_of_key(key: &[u8]) -> (i32, i32) {
    let parsed = std::str::from_utf8(key).ok().and_then(FrameKey::parse);
    parsed.map_or((-1, -1), |key| (key.segment, key.frame))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_say_segment_and_frame() {
        for (segment, frame) in [(0, 0), (-1, 7), (i32::MAX, 123_456_789), (i32::MIN, i32::MAX as usize)] {
            for prefix in ["", "night", "2024/night", "7"] {
                let expected = FrameKey { prefix, segment, frame: frame as i32 };
                assert_eq!(FrameKey::parse(&frame_key(prefix, segment, frame)), Some(expected));
            }
        }
        for key in
            ["", "7", "7/", "/7", "a/7", "7/a", "+7/1", "7/+1", "7/-1", "--7/1", "7/99999999999", "/1/2", "1/a/2"]
        {
            assert_eq!(FrameKey::parse(key), None, "{key}");
        }
    }
}
