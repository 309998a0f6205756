//! The variable-length codes of GIF image data, with the tolerances of Pillow's decoder.

/// Codes have at most 12 bits.
const MAX_CODES: usize = 4096;

/// What a decoder says after a step.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A string of indices, in the decoder's buffer.
    String,
    /// The end code, or no more complete sub-blocks.
    End,
    /// A code that the table does not have.
    Broken,
}

/// Decodes one image's sub-blocks.
pub(super) struct Lzw<'a> {
    bits: Bits<'a>,
    clear: usize,
    width: u32,
    next: usize,
    last: Option<usize>,
    /// First index of the string of `last`.
    first: u8,
    link: Vec<u16>,
    data: Vec<u8>,
    /// The string, back to front.
    reversed: Vec<u8>,
}

impl<'a> Lzw<'a> {
    /// `blocks` starts at the first sub-block's length; `min_width` is the minimum code size, at most 12.
    pub(super) fn new(blocks: &'a [u8], min_width: u32) -> Lzw<'a> {
        let clear = 1usize << min_width;
        Lzw {
            bits: Bits { blocks, in_block: 0, buffer: 0, count: 0 },
            clear,
            width: min_width + 1,
            next: clear + 2,
            last: None,
            first: 0,
            link: vec![0; MAX_CODES],
            data: vec![0; MAX_CODES],
            reversed: Vec::with_capacity(MAX_CODES),
        }
    }

    /// Decodes one code. After [`Step::String`], [`Lzw::reversed`] has the indices.
    pub(super) fn step(&mut self) -> Step {
        loop {
            let Some(code) = self.bits.take(self.width) else { return Step::End };
            if code == self.clear {
                self.reset();
                continue;
            }
            if code == self.clear + 1 {
                return Step::End;
            }
            self.reversed.clear();
            let known = match self.last {
                None => self.begin(code),
                Some(last) => self.expand(code, last),
            };
            return if known { Step::String } else { Step::Broken };
        }
    }

    /// The last string, back to front.
    pub(super) fn reversed(&self) -> &[u8] {
        &self.reversed
    }

    /// The sub-blocks after the one being read.
    pub(super) fn blocks_left(&self) -> &'a [u8] {
        self.bits.blocks.get(self.bits.in_block..).unwrap_or_default()
    }

    fn reset(&mut self) {
        self.width = self.clear.trailing_zeros() + 1;
        self.next = self.clear + 2;
        self.last = None;
    }

    /// The first code after a clear code stands for itself.
    fn begin(&mut self, code: usize) -> bool {
        if code > self.clear {
            return false;
        }
        self.first = code as u8;
        self.last = Some(code);
        self.reversed.push(self.first);
        true
    }

    fn expand(&mut self, code: usize, last: usize) -> bool {
        if code > self.next {
            return false;
        }
        let mut walk = code;
        if code == self.next {
            // The string being defined: the last one and its own first index.
            self.reversed.push(self.first);
            walk = last;
        }
        while walk >= self.clear {
            if self.reversed.len() >= MAX_CODES || walk >= MAX_CODES {
                return false;
            }
            self.reversed.push(self.data[walk]);
            walk = usize::from(self.link[walk]);
        }
        self.first = walk as u8;
        self.reversed.push(self.first);
        self.define(last);
        self.last = Some(code);
        true
    }

    /// Adds the string "last, then first".
    fn define(&mut self, last: usize) {
        if self.next >= MAX_CODES {
            return;
        }
        self.data[self.next] = self.first;
        self.link[self.next] = last as u16;
        if self.next == (1 << self.width) - 1 && self.width < 12 {
            self.width += 1;
        }
        self.next += 1;
    }
}

/// Bits out of sub-blocks, lowest first. A sub-block that the file does not hold completely is not begun.
struct Bits<'a> {
    blocks: &'a [u8],
    in_block: usize,
    buffer: u32,
    count: u32,
}

impl Bits<'_> {
    fn take(&mut self, width: u32) -> Option<usize> {
        while self.count < width {
            let (&byte, rest) = self.blocks.split_first()?;
            if self.in_block == 0 {
                if rest.len() < usize::from(byte) {
                    return None;
                }
                self.in_block = usize::from(byte);
            } else {
                self.buffer |= u32::from(byte) << self.count;
                self.count += 8;
                self.in_block -= 1;
            }
            self.blocks = rest;
        }
        let code = self.buffer & ((1 << width) - 1);
        self.buffer >>= width;
        self.count -= width;
        Some(code as usize)
    }
}
