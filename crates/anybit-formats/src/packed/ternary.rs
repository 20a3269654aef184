//! Five ternary codes a byte, for storage: 1.6 bits a code. ggml's TQ1_0 packs so.
//!
//! The codes c₀ to c₄ are the digits of q = 81 c₀ + 27 c₁ + 9 c₂ + 3 c₃ + c₄, and the byte is ⌈256 q / 243⌉. So byte / 256
//! is a fraction with those digits after the point: three times it has c₀ before the point, the rest the other digits.
//! 243 bytes stand for codes; the other 13 are never written and refused.

use crate::FormatError;

/// Codes in a byte.
const DIGITS: usize = 5;

/// The largest ternary code.
const MAX_CODE: u8 = 2;

/// Bytes that [`pack_ternary5`] makes of so many codes.
pub const fn ternary5_bytes(codes: usize) -> usize {
    codes.div_ceil(DIGITS)
}

const fn pack(codes: [u8; DIGITS]) -> u8 {
    let (mut q, mut digit) = (0, 0);
    while digit < DIGITS {
        q = 3 * q + codes[digit] as u32;
        digit += 1;
    }
    (q * 256).div_ceil(243) as u8
}

const fn unpack(byte: u8) -> [u8; DIGITS] {
    let mut codes = [0; DIGITS];
    let (mut fraction, mut digit) = (byte, 0);
    while digit < DIGITS {
        codes[digit] = ((3 * fraction as u16) >> 8) as u8;
        fraction = fraction.wrapping_mul(3);
        digit += 1;
    }
    codes
}

/// The codes of every byte; `None` for the bytes that no codes make.
const CODES: [Option<[u8; DIGITS]>; 256] = {
    let mut table = [None; 256];
    let mut byte = 0;
    while byte < 256 {
        let codes = unpack(byte as u8);
        if pack(codes) == byte as u8 {
            table[byte] = Some(codes);
        }
        byte += 1;
    }
    table
};

/// Packs ternary codes, 0 to 2, five a byte; the last byte is filled up with code 0. [`ternary5_bytes`] bytes.
///
/// # Errors
///
/// [`FormatError::CodeTooLarge`], at row 0, for a code above 2.
pub fn pack_ternary5(codes: &[u8]) -> Result<Vec<u8>, FormatError> {
    if let Some((column, &code)) = codes.iter().enumerate().find(|(_, code)| **code > MAX_CODE) {
        return Err(FormatError::CodeTooLarge {
            row: 0,
            column,
            code,
            max: MAX_CODE,
        });
    }
    let bytes = codes.chunks(DIGITS).map(|chunk| {
        let mut digits = [0; DIGITS];
        for (digit, &code) in digits.iter_mut().zip(chunk) {
            *digit = code;
        }
        pack(digits)
    });
    Ok(bytes.collect())
}

/// Unpacks what [`pack_ternary5`] packed into as many codes as there were.
///
/// # Errors
///
/// [`FormatError::Length`] unless there are [`ternary5_bytes`] bytes for so many codes; [`FormatError::TernaryByte`] for a
/// byte that no codes make, or one with other codes than 0 after the last.
pub fn unpack_ternary5(bytes: &[u8], codes: &mut [u8]) -> Result<(), FormatError> {
    super::check_len(
        "bytes of ternary codes",
        ternary5_bytes(codes.len()),
        bytes.len(),
    )?;
    for (index, (chunk, &byte)) in codes.chunks_mut(DIGITS).zip(bytes).enumerate() {
        let wrong = FormatError::TernaryByte { index, byte };
        let Some(digits) = CODES[usize::from(byte)] else {
            return Err(wrong);
        };
        let (used, unused) = digits.split_at(chunk.len());
        if unused.iter().any(|&digit| digit != 0) {
            return Err(wrong);
        }
        chunk.copy_from_slice(used);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The five ternary digits of q, the first the highest.
    fn digits(q: usize) -> [u8; DIGITS] {
        [q / 81, q / 27 % 3, q / 9 % 3, q / 3 % 3, q % 3].map(|digit| digit as u8)
    }

    #[test]
    fn all_243_patterns_come_back_and_other_bytes_are_refused() {
        let mut made = [false; 256];
        for q in 0..243 {
            let codes = digits(q);
            let bytes = pack_ternary5(&codes).unwrap();
            assert_eq!(bytes, [(256 * q).div_ceil(243) as u8]);
            made[usize::from(bytes[0])] = true;
            let mut back = [9; DIGITS];
            unpack_ternary5(&bytes, &mut back).unwrap();
            assert_eq!(back, codes);
        }
        assert_eq!(made.iter().filter(|&&made| made).count(), 243);
        for byte in 0..=255 {
            let result = unpack_ternary5(&[byte], &mut [0; DIGITS]);
            if made[usize::from(byte)] {
                assert_eq!(result, Ok(()));
            } else {
                assert_eq!(result, Err(FormatError::TernaryByte { index: 0, byte }));
            }
        }
    }

    #[test]
    fn bytes_of_tq1_0() {
        // Values −1, 0, 1 are codes 0, 1, 2.
        for (codes, byte) in [
            ([2, 0, 1, 2, 1], 188),
            ([0; 5], 0),
            ([1; 5], 128),
            ([2; 5], 255),
        ] {
            assert_eq!(pack_ternary5(&codes).unwrap(), [byte]);
        }
    }

    #[test]
    fn a_last_byte_may_be_part_full() {
        let codes: Vec<u8> = (0..243).flat_map(digits).collect();
        for count in 0..=codes.len() {
            let bytes = pack_ternary5(&codes[..count]).unwrap();
            assert_eq!(bytes.len(), ternary5_bytes(count));
            let mut back = vec![9; count];
            unpack_ternary5(&bytes, &mut back).unwrap();
            assert_eq!(back, codes[..count]);
        }
        assert_eq!(
            unpack_ternary5(&[255, 255], &mut [0; 9]),
            Err(FormatError::TernaryByte {
                index: 1,
                byte: 255
            })
        );
        assert_eq!(
            unpack_ternary5(&[0], &mut [0; 6]),
            Err(FormatError::Length {
                what: "bytes of ternary codes",
                expected: 2,
                found: 1
            })
        );
        assert_eq!(
            pack_ternary5(&[0, 1, 2, 3]),
            Err(FormatError::CodeTooLarge {
                row: 0,
                column: 3,
                code: 3,
                max: 2
            })
        );
    }
}
