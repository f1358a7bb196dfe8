//! Lower-case hexadecimal, in which ids of traces, spans and requests are written.

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Writes each byte as two digits; `out` has room for exactly that many.
pub fn write(bytes: &[u8], out: &mut [u8]) {
    debug_assert_eq!(out.len(), bytes.len() * 2);
    for (byte, digits) in bytes.iter().zip(out.chunks_exact_mut(2)) {
        digits[0] = DIGITS[usize::from(byte >> 4)];
        digits[1] = DIGITS[usize::from(byte & 15)];
    }
}

/// Bytes as text.
pub(crate) fn text(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from(DIGITS[usize::from(half & 15)]);
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(*byte)])
        .collect()
}

/// Marks what is a digit in upper case, and what is none.
const UPPER: u8 = 0x10;
const NONE: u8 = 0x80;
/// What each letter stands for, with marks.
const VALUES: [u8; 256] = values();

const fn values() -> [u8; 256] {
    let mut table = [NONE; 256];
    let mut value = 0;
    while value < 16 {
        let digit = DIGITS[value as usize];
        table[digit.to_ascii_uppercase() as usize] = value | UPPER;
        table[digit as usize] = value;
        value += 1;
    }
    table
}

/// Reads exactly `N` bytes; `upper` says whether upper case will do.
pub(crate) fn read<const N: usize>(text: impl AsRef<[u8]>, upper: bool) -> Option<[u8; N]> {
    let text = text.as_ref();
    if text.len() != N * 2 {
        return None;
    }
    let (mut out, mut marks) = ([0; N], 0);
    for (byte, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        let (high, low) = (VALUES[usize::from(pair[0])], VALUES[usize::from(pair[1])]);
        marks |= high | low;
        *byte = high << 4 | low & 15;
    }
    let refused = if upper { NONE } else { NONE | UPPER };
    (marks & refused == 0).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_read_as_the_standard_library_does() {
        for byte in 0..=0x7f_u8 {
            let digit = char::from(byte);
            let value = digit.to_digit(16).map(|v| v as u8);
            for text in [format!("{digit}7"), format!("7{digit}")] {
                let wanted = value.map(|_| u8::from_str_radix(&text, 16).expect("digits"));
                assert_eq!(read::<1>(&text, true), wanted.map(|v| [v]), "{text:?}");
                let lower = wanted.filter(|_| !digit.is_ascii_uppercase());
                assert_eq!(read::<1>(&text, false), lower.map(|v| [v]), "{text:?}");
            }
        }
        assert_eq!(read::<2>("abc", true), None);
        assert_eq!(read::<2>("00fF", true), Some([0, 255]));
        assert_eq!(text(&[0, 0x1f, 0xff]), "001fff");
    }
}
