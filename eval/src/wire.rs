//! Figures on their way between processes: little-endian numbers, lengths before what has one. Exact to the bit, infinities too.

use tokengrid_ingest::{Bad, Stage};
use tokengrid_model::Picture;

/// What can be sent to a process of the same program.
pub(crate) trait Wire: Sized {
    /// Appends the value.
    fn write(&self, out: &mut Vec<u8>);

    /// Takes a value from the front; `None` where there is none.
    fn read(bytes: &mut &[u8]) -> Option<Self>;
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl Wire for $number {
            fn write(&self, out: &mut Vec<u8>) {
                out.extend(self.to_le_bytes());
            }

            fn read(bytes: &mut &[u8]) -> Option<Self> {
                let (number, rest) = bytes.split_first_chunk()?;
                *bytes = rest;
                Some(<$number>::from_le_bytes(*number))
            }
        }
    )*};
}

numbers!(u8, i64, u64, f32, f64);

impl Wire for usize {
    fn write(&self, out: &mut Vec<u8>) {
        (*self as u64).write(out);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        u64::read(bytes).map(|number| number as usize)
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn write(&self, out: &mut Vec<u8>) {
        self.len().write(out);
        self.iter().for_each(|item| item.write(out));
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let len = usize::read(bytes)?;
        (0..len).map(|_| T::read(bytes)).collect()
    }
}

impl<T: Wire> Wire for Option<T> {
    fn write(&self, out: &mut Vec<u8>) {
        u8::from(self.is_some()).write(out);
        self.iter().for_each(|value| value.write(out));
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        match u8::read(bytes)? {
            0 => Some(None),
            _ => T::read(bytes).map(Some),
        }
    }
}

impl<T: Wire, E: Wire> Wire for Result<T, E> {
    fn write(&self, out: &mut Vec<u8>) {
        u8::from(self.is_ok()).write(out);
        match self {
            Ok(value) => value.write(out),
            Err(error) => error.write(out),
        }
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        match u8::read(bytes)? {
            0 => E::read(bytes).map(Err),
            _ => T::read(bytes).map(Ok),
        }
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    fn write(&self, out: &mut Vec<u8>) {
        self.0.write(out);
        self.1.write(out);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        Some((A::read(bytes)?, B::read(bytes)?))
    }
}

impl Wire for String {
    fn write(&self, out: &mut Vec<u8>) {
        self.as_bytes().to_vec().write(out);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        String::from_utf8(Vec::read(bytes)?).ok()
    }
}

impl Wire for Bad {
    fn write(&self, out: &mut Vec<u8>) {
        let stage = Stage::ALL.iter().position(|stage| *stage == self.stage).expect("all stages are there");
        stage.write(out);
        self.reason.write(out);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let stage = *Stage::ALL.get(usize::read(bytes)?)?;
        Some(Bad { stage, reason: String::read(bytes)? })
    }
}

impl Wire for Picture {
    fn write(&self, out: &mut Vec<u8>) {
        (self.width, self.height).write(out);
        self.rgb.write(out);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let (width, height) = Wire::read(bytes)?;
        Some(Picture::new(width, height, Vec::read(bytes)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Sent = ((usize, Option<f64>), (Vec<f32>, (Result<u8, Bad>, Option<i64>)));

    #[test]
    fn what_is_sent_arrives() {
        let bad = Bad { stage: Stage::Resize, reason: "ein Bild von 1 \u{d7} 4000".into() };
        let sent: Sent = ((7, Some(f64::INFINITY)), (vec![0.1, -0.0], (Err(bad), None)));
        let mut bytes = vec![];
        sent.write(&mut bytes);
        let mut rest = bytes.as_slice();
        assert_eq!(Sent::read(&mut rest).unwrap(), sent);
        assert!(rest.is_empty());
        // Cut anywhere, it is no value.
        for len in 0..bytes.len() {
            assert!(Sent::read(&mut &bytes[..len]).is_none(), "{len}");
        }
    }
}
