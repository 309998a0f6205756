//! Kitty's graphics protocol: a PNG in base 64, in pieces of at most 4096 characters.

use tokengrid_model::Picture;

const PIECE: usize = 4096;
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The picture.
pub fn text(picture: &Picture) -> String {
    let data = base64(&picture.to_png());
    let pieces: Vec<&str> = (0..data.len()).step_by(PIECE).map(|at| &data[at..data.len().min(at + PIECE)]).collect();
    let mut text = String::with_capacity(data.len() + 32 * pieces.len());
    for (i, piece) in pieces.iter().enumerate() {
        // Transmit and display (a=T), PNG (f=100), answer nothing (q=2), more pieces follow (m=1).
        let keys = if i == 0 { "a=T,f=100,q=2," } else { "" };
        let more = usize::from(i + 1 < pieces.len());
        text.push_str(&format!("\x1b_G{keys}m={more};{piece}\x1b\\"));
    }
    text
}

fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for digit in 0..4 {
            let index = (bits >> (18 - 6 * digit) & 63) as usize;
            text.push(if digit <= three.len() { char::from(DIGITS[index]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_64_is_that_of_rfc_4648() {
        let texts = ["", "f", "fo", "foo", "foob", "fooba", "foobar"].map(|text| base64(text.as_bytes()));
        assert_eq!(texts, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"]);
    }

    #[test]
    fn pieces_are_short_and_the_last_one_says_so() {
        let scramble = |i: u32| (i.wrapping_mul(2_654_435_761) ^ i.wrapping_mul(i) >> 7).wrapping_mul(2_246_822_519);
        let noise = (0..64 * 64 * 3u32).map(|i| (scramble(i) >> 24) as u8).collect();
        let text = text(&Picture::new(64, 64, noise));
        let pieces: Vec<&str> = text.split_terminator("\x1b\\").collect();
        assert!(pieces.len() > 1 && pieces[0].starts_with("\x1b_Ga=T,f=100,q=2,m=1;iVBOR"));
        let (last, others) = pieces.split_last().unwrap();
        assert!(last.starts_with("\x1b_Gm=0;") && others.iter().all(|piece| piece.contains("m=1;")));
        assert!(pieces.iter().all(|piece| piece.split_once(';').unwrap().1.len() <= PIECE));
    }
}
