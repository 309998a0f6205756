//! The scans of a JPEG file, seen before any of them is decoded.
//!
//! A file of several scans is decoded into coefficients of the whole picture first. Whether it has too many scans, and whether
//! it can have an end, is known without that from its markers.

// Codes of markers: ITU-T T.81, table B.1.
const END_OF_IMAGE: u8 = 0xD9;
const START_OF_SCAN: u8 = 0xDA;

/// Number of scans from `at` on, the end of the first scan's header: that one, and those before the end marker.
pub(super) fn count_scans(bytes: &[u8], mut at: usize) -> u32 {
    let mut scans = 1;
    while let Some(marker) = next_marker(bytes, &mut at) {
        match marker {
            END_OF_IMAGE => break,
            // Zeros after an FF in the data, restart markers, and what libjpeg passes over.
            0..=0xBF | 0xD0..=0xD8 => {}
            _ => {
                scans += u32::from(marker == START_OF_SCAN);
                let Some(&[high, low]) = bytes.get(at..at + 2) else { break };
                at += usize::from(u16::from_be_bytes([high, low]));
            }
        }
    }
    scans
}

/// Whether there is an end marker after `at`. Without one libjpeg waits for more data after the last scan, whatever its content.
pub(super) fn has_end(bytes: &[u8], at: usize) -> bool {
    bytes.get(at..).is_some_and(|data| data.windows(2).any(|pair| pair == [0xFF, END_OF_IMAGE]))
}

/// The byte after the next FF that is not an FF; `at` moves past it.
fn next_marker(bytes: &[u8], at: &mut usize) -> Option<u8> {
    let rest = bytes.get(*at..)?;
    *at += rest.iter().position(|byte| *byte == 0xFF)?;
    let fill = bytes[*at..].iter().take_while(|byte| **byte == 0xFF).count();
    let marker = *bytes.get(*at + fill)?;
    *at += fill + 1;
    Some(marker)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scans_are_counted_up_to_the_end_marker() {
        let scan = [0xFF, 0xDA, 0, 4, 1, 2, 0x12, 0xFF, 0, 0xFF, 0xD3, 0x34];
        let tables = [0xFF, 0xC4, 0, 6, 0xFF, 0xDA, 0xFF, 0xD9];
        let end = [0xFF, 0xFF, 0xD9];
        let file = [&scan[6..], &tables, &scan, &end, &scan].concat();
        assert_eq!(count_scans(&file, 0), 2);
        assert!(has_end(&file, 0));
        assert_eq!(count_scans(&[&scan[6..], &scan, &scan[..3]].concat(), 0), 3);
        assert!(!has_end(&scan, 0));
        assert_eq!(count_scans(&[], 7), 1);
        assert!(!has_end(&[0xFF, 0xD9], 5));
    }
}
