//! Tables of up to 256 values.

use crate::{ElementFormat, FormatRow};

/// A table of up to 256 values: code c stands for `values[c]`.
#[derive(Debug, PartialEq)]
pub struct Codebook {
    /// The name.
    pub name: &'static str,
    /// Bits of a code, 1 to 8.
    pub bits: u8,
    /// The values by code.
    pub values: &'static [f32],
    /// The code whose value depends on the group.
    pub choice: Option<Choice>,
    /// Where the table is defined.
    pub source: &'static str,
}

/// A code whose value depends on the group.
#[derive(Debug, PartialEq)]
pub struct Choice {
    /// The code.
    pub code: u8,
    /// What it may stand for, at most four values.
    pub values: &'static [f32],
}

/// A codebook as an element format.
#[derive(Clone, Copy, Debug)]
pub struct CodebookFormat(&'static Codebook);

impl PartialEq for CodebookFormat {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}
impl Eq for CodebookFormat {}
impl std::hash::Hash for CodebookFormat {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.name.hash(state);
    }
}

impl CodebookFormat {
    /// The name.
    pub const fn name(self) -> &'static str {
        self.0.name
    }
    /// Bits of a code.
    pub const fn bits(self) -> u8 {
        self.0.bits
    }
    /// The values by code.
    pub const fn values(self) -> &'static [f32] {
        self.0.values
    }
    /// The code whose value depends on the group.
    pub const fn choice(self) -> Option<&'static Choice> {
        self.0.choice.as_ref()
    }
    /// The largest code.
    pub const fn max_code(self) -> u8 {
        (self.0.values.len() - 1) as u8
    }
    /// The value of a code in a group of that choice.
    pub fn value_with(self, code: u8, choice: u8) -> f32 {
        if let Some(special) = self.choice() {
            if special.code == code {
                return special
                    .values
                    .get(usize::from(choice))
                    .copied()
                    .unwrap_or(0.0);
            }
        }
        self.0.values.get(usize::from(code)).copied().unwrap_or(0.0)
    }
    /// The smallest k for which 2ᵏ times every value is an integer from −127 to 127.
    pub fn lift(self) -> Option<u32> {
        let choices = self.choice().map_or(&[][..], |choice| choice.values);
        (0..8).find(|&k| {
            self.values().iter().chain(choices).all(|value| {
                let lifted = value * f32::from(1_u8 << k);
                lifted.fract() == 0.0 && lifted.abs() <= 127.0
            })
        })
    }
    /// The code of the nearest value.
    pub fn encode(self, value: f32, choice: u8) -> u8 {
        let distance = |code: u8| (value - self.value_with(code, choice)).abs();
        (0..=self.max_code()).fold(0, |best, code| {
            if distance(code) < distance(best) {
                code
            } else {
                best
            }
        })
    }
    /// The codebook of that name.
    pub fn find(name: &str) -> Option<Self> {
        CODEBOOKS
            .iter()
            .find(|codebook| codebook.name == name)
            .map(Self)
    }
}

/// Every codebook.
pub(crate) static CODEBOOKS: [Codebook; 4] = [
    Codebook {
        name: "nf4",
        bits: 4,
        values: &[
            -1.0,
            -0.6961928,
            -0.52507305,
            -0.3949175,
            -0.28444138,
            -0.18477343,
            -0.09105004,
            0.0,
            0.0795803,
            0.1609302,
            0.2461123,
            0.33791524,
            0.44070983,
            0.562617,
            0.72295684,
            1.0,
        ],
        choice: None,
        source: "QLoRA, arXiv:2305.14314",
    },
    Codebook {
        name: "iq4nl",
        bits: 4,
        values: &[
            -127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0,
            69.0, 89.0, 113.0,
        ],
        choice: None,
        source: "ggml",
    },
    Codebook {
        name: "bitmod3",
        bits: 3,
        values: &[0.0, 1.0, 2.0, 4.0, 0.0, -1.0, -2.0, -4.0],
        choice: Some(Choice {
            code: 4,
            values: &[3.0, -3.0, 6.0, -6.0],
        }),
        source: "BitMoD, arXiv:2411.11745",
    },
    Codebook {
        name: "bitmod4",
        bits: 4,
        values: &[
            0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 0.0, -1.0, -2.0, -3.0, -4.0, -6.0, -8.0, -12.0,
        ],
        choice: Some(Choice {
            code: 8,
            values: &[10.0, -10.0, 16.0, -16.0],
        }),
        source: "BitMoD, arXiv:2411.11745",
    },
];

/// The members of the family.
pub(crate) const ROWS: &[FormatRow] = &{
    let mut rows = [FormatRow::new("", ElementFormat::NF4, ""); 4];
    let mut row = 0;
    while row < 4 {
        let codebook = &CODEBOOKS[row];
        rows[row] = FormatRow::new(
            codebook.name,
            ElementFormat::Codebook(CodebookFormat(codebook)),
            codebook.source,
        );
        row += 1;
    }
    rows
};

impl ElementFormat {
    /// NF4.
    pub const NF4: Self = Self::Codebook(CodebookFormat(&CODEBOOKS[0]));
    /// ggml's 16 values of IQ4_NL and IQ4_XS.
    pub const IQ4NL: Self = Self::Codebook(CodebookFormat(&CODEBOOKS[1]));
}
