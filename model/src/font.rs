//! The font of charts and captions.

/// DejaVu Sans, reduced to ASCII, as a TrueType file, for machines without fonts.
pub static FONT: &[u8] = include_bytes!("../assets/DejaVuSans-ascii.ttf");
