//! What is logged of answers that failed: each message once, and no flood of them.
//!
//! One damaged shard fails hundreds of requests with one message, or with one for each of its row groups. A message is
//! said again only after many others, and within a minute no more than some are said; how many were left out is said, too.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Messages that are remembered, so that they are not said again.
const REMEMBERED: usize = 200;

/// Messages that are said in one [`WINDOW`].
const SAID_MAX: usize = 20;
const WINDOW: Duration = Duration::from_secs(60);

/// What was said lately.
#[derive(Debug, Default)]
pub(crate) struct Log {
    remembered: VecDeque<String>,
    window_start: Option<Instant>,
    said: usize,
    left_out: usize,
}

impl Log {
    /// The lines to print at `now` for a message that occurred in an answer to a request for `path`.
    pub(crate) fn lines(&mut self, text: &str, path: &str, now: Instant) -> Vec<String> {
        if self.remembered.iter().any(|known| known == text) {
            return Vec::new();
        }
        let mut lines = Vec::new();
        if self.window_start.is_none_or(|start| now.saturating_duration_since(start) >= WINDOW) {
            if self.left_out > 0 {
                lines.push(format!("messages that were left out in the last minute: {}", self.left_out));
            }
            (self.window_start, self.said, self.left_out) = (Some(now), 0, 0);
        }
        if self.said == SAID_MAX {
            self.left_out += 1;
            let is_first = self.left_out == 1;
            return is_first
                .then(|| "there are more messages: others are left out for a minute".to_owned())
                .into_iter()
                .collect();
        }
        self.said += 1;
        if self.remembered.len() == REMEMBERED {
            self.remembered.pop_front();
        }
        self.remembered.push_back(text.to_owned());
        lines.push(format!("{path}: {text}"));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_is_one_line_and_a_later_one_is_logged() {
        let (mut log, start) = (Log::default(), Instant::now());
        assert_eq!(log.lines("shard a has 10 bytes", "/api/row/1", start), ["/api/row/1: shard a has 10 bytes"]);
        for row in 2..500 {
            let again = log.lines("shard a has 10 bytes", &format!("/api/row/{row}"), start);
            assert_eq!(again, [""; 0], "{row}");
        }
        assert_eq!(log.lines("shard b has 10 bytes", "/api/row/9", start).len(), 1);
    }

    #[test]
    fn what_is_left_out_of_a_flood_is_counted() {
        let (mut log, start) = (Log::default(), Instant::now());
        let said: Vec<String> =
            (0..100).flat_map(|group| log.lines(&format!("row group {group} was altered"), "/", start)).collect();
        assert_eq!(said.len(), SAID_MAX + 1);
        assert!(said[SAID_MAX].contains("left out"), "{said:?}");
        let later = log.lines("shard b has 10 bytes", "/api/row/9", start + WINDOW);
        assert_eq!(later, ["messages that were left out in the last minute: 80", "/api/row/9: shard b has 10 bytes"]);
    }
}
