//! A colour table of up to 256 entries. What lies beyond the entries given is black, as in Pillow.

/// 256 RGB colours.
#[derive(Clone)]
pub(super) struct Palette([[u8; 3]; 256]);

impl Palette {
    /// All black.
    pub(super) fn black() -> Palette {
        Palette([[0; 3]; 256])
    }

    /// Index i is the gray i.
    pub(super) fn gray() -> Palette {
        Palette(std::array::from_fn(|i| [i as u8; 3]))
    }

    /// 0 is black, everything else white.
    pub(super) fn bilevel() -> Palette {
        Palette(std::array::from_fn(|i| if i == 0 { [0; 3] } else { [255; 3] }))
    }

    /// Entries of three bytes, R, G, B. An incomplete last entry is left out, as is everything after the 256th.
    pub(super) fn from_rgb(entries: &[u8]) -> Palette {
        let mut palette = Palette::black();
        for (slot, entry) in palette.0.iter_mut().zip(entries.chunks_exact(3)) {
            slot.copy_from_slice(entry);
        }
        palette
    }

    /// Entries of `stride` bytes that begin with B, G, R.
    pub(super) fn from_bgr(entries: &[u8], stride: usize) -> Palette {
        let mut palette = Palette::black();
        for (slot, entry) in palette.0.iter_mut().zip(entries.chunks_exact(stride)) {
            *slot = [entry[2], entry[1], entry[0]];
        }
        palette
    }

    /// The colour of `index`.
    pub(super) fn color(&self, index: u8) -> [u8; 3] {
        self.0[usize::from(index)]
    }

    /// Appends the colours of `indices` to `out`.
    pub(super) fn extend(&self, out: &mut Vec<u8>, indices: &[u8]) {
        out.extend(indices.iter().flat_map(|&i| self.0[usize::from(i)]));
    }
}
