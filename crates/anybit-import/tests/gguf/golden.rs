//! Blocks of every type and their values according to the `gguf` package; `tests/data/make_gguf_golden.py` made them
//! and describes the files.

/// A type of which there are golden blocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Type {
    pub(crate) id: u32,
    pub(crate) name: &'static str,
    /// Name of the matrix format that it is read as, if there is one.
    pub(crate) format: Option<&'static str>,
    pub(crate) block_elements: usize,
    pub(crate) block_bytes: usize,
    /// Where in a block its f16 scales and minima are.
    pub(crate) halves: &'static [usize],
}

#[rustfmt::skip]
pub(crate) const TYPES: &[Type] = &[
    matrix(1, "F16", "f16", 1, 2, &[]),
    matrix(2, "Q4_0", "i4g32h", 32, 18, &[0]),
    matrix(3, "Q4_1", "u4g32hm", 32, 20, &[0, 2]),
    matrix(6, "Q5_0", "i5g32h", 32, 22, &[0]),
    matrix(7, "Q5_1", "u5g32hm", 32, 24, &[0, 2]),
    matrix(8, "Q8_0", "i8g32h", 32, 34, &[0]),
    matrix(10, "Q2_K", "u2g16sm", 256, 84, &[80, 82]),
    matrix(11, "Q3_K", "i3g16s", 256, 110, &[108]),
    matrix(12, "Q4_K", "u4g32sm", 256, 144, &[0, 2]),
    matrix(13, "Q5_K", "u5g32sm", 256, 176, &[0, 2]),
    matrix(14, "Q6_K", "i6g16s", 256, 210, &[208]),
    matrix(15, "Q8_K", "i8g256f", 256, 292, &[]),
    values(16, "IQ2_XXS", 256, 66, &[0]),
    values(17, "IQ2_XS", 256, 74, &[0]),
    values(18, "IQ3_XXS", 256, 98, &[0]),
    values(19, "IQ1_S", 256, 50, &[0]),
    matrix(20, "IQ4_NL", "iq4nlg32h", 32, 18, &[0]),
    values(21, "IQ3_S", 256, 110, &[0]),
    values(22, "IQ2_S", 256, 82, &[0]),
    matrix(23, "IQ4_XS", "iq4nlg32s", 256, 136, &[0]),
    values(29, "IQ1_M", 256, 56, &[]),
    matrix(30, "BF16", "bf16", 1, 2, &[]),
    matrix(34, "TQ1_0", "tg256h", 256, 54, &[52]),
    matrix(35, "TQ2_0", "tg256h", 256, 66, &[64]),
    matrix(39, "MXFP4", "e2m1g32e", 32, 17, &[]),
    matrix(40, "NVFP4", "e2m1g16k", 64, 36, &[]),
    matrix(41, "Q1_0", "b1g128h", 128, 18, &[0]),
];

const fn matrix(
    id: u32,
    name: &'static str,
    format: &'static str,
    block_elements: usize,
    block_bytes: usize,
    halves: &'static [usize],
) -> Type {
    Type {
        format: Some(format),
        ..values(id, name, block_elements, block_bytes, halves)
    }
}

const fn values(
    id: u32,
    name: &'static str,
    block_elements: usize,
    block_bytes: usize,
    halves: &'static [usize],
) -> Type {
    Type {
        id,
        name,
        format: None,
        block_elements,
        block_bytes,
        halves,
    }
}

/// The type called `name`.
pub(crate) fn named(name: &str) -> Type {
    *TYPES
        .iter()
        .find(|tensor_type| tensor_type.name == name)
        .expect(name)
}

impl Type {
    /// The blocks as a file stores them, and their values.
    pub(crate) fn load(&self) -> (Vec<u8>, Vec<f32>) {
        let path = format!(
            "{}/tests/data/golden/{}.bin",
            env!("CARGO_MANIFEST_DIR"),
            self.name
        );
        let mut blocks = std::fs::read(&path).expect(&path);
        let each = self.block_bytes + 4 * self.block_elements;
        assert_eq!(blocks.len() % each, 0, "{path}");
        let values = blocks.split_off(blocks.len() / each * self.block_bytes);
        let values = values
            .chunks_exact(4)
            .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
            .collect();
        (blocks, values)
    }

    /// `count` blocks that are right: golden ones, again and again.
    pub(crate) fn blocks(&self, count: usize) -> Vec<u8> {
        let (blocks, _) = self.load();
        let length = count * self.block_bytes;
        blocks.into_iter().cycle().take(length).collect()
    }
}
