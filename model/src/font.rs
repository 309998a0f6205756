//! The letters of charts and captions.

/// DejaVu Sans, reduced to ASCII, as a TrueType file: there are letters on machines without fonts, too.
pub static FONT: &[u8] = include_bytes!("../assets/DejaVuSans-ascii.ttf");
