//! One row: one view of one image.

use crate::format::grid::GridSpec;

/// The longest key, in bytes: the longest path of common file systems.
pub const KEY_BYTES_MAX: usize = 4096;

/// Largest class index of a row. Beyond what any data set has, and small enough for a table of all classes.
pub const CLASS_INDEX_MAX: i32 = 1 << 20;

/// One row to write: one view of one image.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The grid, raster order: `num_tokens` values below 2^bits.
    pub tokens: &'a [u32],
    /// Class index, 0 to [`CLASS_INDEX_MAX`], or -1 when it is unknown.
    pub label: i32,
    /// The source's own name of the image: 1 ..= [`KEY_BYTES_MAX`] bytes, `/` as separator.
    pub key: &'a str,
    /// Which view of the image, from 0.
    pub view: u32,
    /// Left edge of the crop in the resized image, in pixels.
    pub crop_x: i32,
    /// Top edge of the crop in the resized image, in pixels.
    pub crop_y: i32,
    /// Whether the crop was mirrored.
    pub flip: bool,
}

/// Everything about a row but its tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowMeta {
    /// The source's own name of the image.
    pub key: String,
    /// Class index, 0 to [`CLASS_INDEX_MAX`], or -1 when it is unknown.
    pub label: i32,
    /// Which view of the image, from 0.
    pub view: u32,
    /// Left edge of the crop in the resized image, in pixels.
    pub crop_x: i32,
    /// Top edge of the crop in the resized image, in pixels.
    pub crop_y: i32,
    /// Whether the crop was mirrored.
    pub flip: bool,
}

/// Left edge, top edge and mirroring of a crop.
pub(crate) type Crop = (i32, i32, bool);

impl RowMeta {
    /// The row that this describes, with tokens.
    pub(crate) fn row<'a>(&'a self, tokens: &'a [u32]) -> Row<'a> {
        Row {
            tokens,
            label: self.label,
            key: &self.key,
            view: self.view,
            crop_x: self.crop_x,
            crop_y: self.crop_y,
            flip: self.flip,
        }
    }
}

/// Separates row hashes from every other use of BLAKE3.
const ROW_DOMAIN: &[u8] = b"tokengrid.row.v1";

/// The hash of one row: BLAKE3 over the domain, the grid, and every field, lengths first, integers little-endian. The
/// split comes last, and only where there is one.
pub(crate) fn row_hash(grid: GridSpec, split: &str, row: &Row<'_>, packed: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(ROW_DOMAIN);
    for number in [grid.height, grid.width, grid.bits, row.key.len() as u32] {
        hasher.update(&number.to_le_bytes());
    }
    hasher.update(row.key.as_bytes());
    hasher.update(&row.view.to_le_bytes());
    for number in [row.label, row.crop_x, row.crop_y] {
        hasher.update(&number.to_le_bytes());
    }
    hasher.update(&[u8::from(row.flip)]);
    hasher.update(&(packed.len() as u32).to_le_bytes());
    hasher.update(packed);
    hasher.update(split.as_bytes());
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::hash::ContentSum;

    const GRID: GridSpec = GridSpec { height: 1, width: 2, bits: 18 };

    fn row<'a>(key: &'a str, tokens: &'a [u32]) -> Row<'a> {
        Row { tokens, label: 7, key, view: 1, crop_x: 3, crop_y: -4, flip: true }
    }

    fn hash_of(row: &Row<'_>) -> [u8; 32] {
        let mut packed = [0; 5];
        crate::format::pack::pack(row.tokens, 18, &mut packed);
        row_hash(GRID, "", row, &packed)
    }

    /// This value must never change: every existing cache would get another content hash.
    #[test]
    fn pinned_content_hash() {
        let mut sum = ContentSum::default();
        sum.add_row(&hash_of(&row("n01440764/n01440764_10026.JPEG", &[0, 262_143])));
        sum.add_row(&hash_of(&row("b", &[131_072, 1])));
        assert_eq!(sum.to_hex(), "d1c19e70465cf27b4523f19001d66188c48dcb03312246fda0e4b6c7de10c8b0");
    }

    #[test]
    fn every_field_counts() {
        let plain = row("key", &[1, 2]);
        let changed = [
            Row { key: "kez", ..plain },
            Row { key: "key\0", ..plain },
            Row { tokens: &[2, 1], ..plain },
            Row { label: 8, ..plain },
            Row { view: 0, ..plain },
            Row { crop_x: -4, crop_y: 3, ..plain },
            Row { flip: false, ..plain },
        ];
        for other in &changed {
            assert_ne!(hash_of(&plain), hash_of(other), "{other:?}");
        }
        assert_ne!(row_hash(GRID, "val", &plain, &[0; 5]), row_hash(GRID, "", &plain, &[0; 5]));
    }

    #[test]
    fn order_does_not_matter_and_repeats_do() {
        let hashes = [[0xFF; 32], [0x01; 32], hash_of(&row("a", &[0, 0]))];
        let sum = |order: &[usize]| {
            let mut sum = ContentSum::default();
            order.iter().for_each(|i| sum.add_row(&hashes[*i]));
            sum
        };
        assert_eq!(sum(&[0, 1, 2]), sum(&[2, 0, 1]));
        assert_ne!(sum(&[0, 1, 2]), sum(&[0, 1, 2, 2, 2]));
        assert_ne!(sum(&[0, 1]), sum(&[0, 1, 2, 2]));
        assert_eq!(ContentSum::from_hex(&sum(&[0, 1, 2]).to_hex()), Some(sum(&[0, 1, 2])));
        for text in ["", "0", &"0".repeat(63), &"0".repeat(65), &"A".repeat(64), &"g".repeat(64), &"é".repeat(32)] {
            assert_eq!(ContentSum::from_hex(text), None, "{text}");
        }
    }
}
