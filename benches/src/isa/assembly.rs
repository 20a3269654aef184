//! What a disassembly tells: the loop that does the work, and what it is made of.
//!
//! The text is that of Mesa's compiler ACO, printed by LLVM: blocks with labels `BB12:`, an instruction a line, its encoding
//! after a semicolon.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How many loads of how many bits an invocation.
pub(super) type Loads = BTreeMap<u32, u32>;

/// The instructions of a piece of code, counted as they stand there, waits left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counts {
    /// All that follow and all others.
    pub(super) instructions: u32,
    /// Those of them in loops inside, which run more than once.
    pub(super) nested: u32,
    /// Packed dot products.
    pub(super) dot: u32,
    /// Bit counts with their addition.
    pub(super) bit_count: u32,
    /// And, xor and xnor, of which each bit count needs one.
    pub(super) logic: u32,
    /// Multiply-adds of f32.
    pub(super) multiply_add: u32,
    /// Integer multiplications, with an addition or without; mostly indices.
    pub(super) integer_multiply: u32,
    /// Moves between the invocations of a wave.
    pub(super) cross_lane: u32,
    /// Jumps, conditional or not.
    pub(super) branches: u32,
    /// Barriers of the workgroup.
    pub(super) barriers: u32,
    /// Loads that bring a wave one value, from constant caches.
    pub(super) scalar_loads: u32,
    /// Loads from buffers, by bits.
    pub(super) global_loads: Loads,
    /// Loads from workgroup memory, by bits.
    pub(super) workgroup_loads: Loads,
}

impl Counts {
    /// Dot products, bit counts and multiply-adds.
    pub(super) fn useful(&self) -> u32 {
        self.dot + self.bit_count + self.multiply_add
    }

    fn add(&mut self, instruction: Instruction<'_>) {
        use Kind as K;
        match instruction.kind() {
            K::Wait => return,
            K::Dot => self.dot += 1,
            K::BitCount => self.bit_count += 1,
            K::Logic => self.logic += 1,
            K::MultiplyAdd => self.multiply_add += 1,
            K::IntegerMultiply => self.integer_multiply += 1,
            K::CrossLane => self.cross_lane += 1,
            K::Branch => self.branches += 1,
            K::Barrier => self.barriers += 1,
            K::ScalarLoad => self.scalar_loads += 1,
            K::GlobalLoad(bits) => *self.global_loads.entry(bits).or_default() += 1,
            K::WorkgroupLoad(bits) => *self.workgroup_loads.entry(bits).or_default() += 1,
            K::Other => {}
        }
        self.instructions += 1;
    }
}

/// A disassembly in blocks.
#[derive(Debug)]
pub(super) struct Assembly<'a> {
    blocks: Vec<Block<'a>>,
}

/// Instructions that follow one another; a jump may leave from the middle too.
#[derive(Debug, Default)]
struct Block<'a> {
    label: &'a str,
    instructions: Vec<Instruction<'a>>,
}

/// An instruction, without its encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction<'a> {
    mnemonic: &'a str,
    operands: &'a str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It only orders other instructions, or hints at them.
    Wait,
    Dot,
    BitCount,
    Logic,
    MultiplyAdd,
    IntegerMultiply,
    CrossLane,
    Branch,
    Barrier,
    ScalarLoad,
    GlobalLoad(u32),
    WorkgroupLoad(u32),
    Other,
}

impl Instruction<'_> {
    fn kind(self) -> Kind {
        let mut name = self.mnemonic;
        for encoding in ["_dpp8", "_dpp", "_sdwa", "_e32", "_e64"] {
            name = name.strip_suffix(encoding).unwrap_or(name);
        }
        let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
        if starts(&[
            "s_wait",
            "s_delay_alu",
            "s_nop",
            "v_nop",
            "s_clause",
            "s_inst_prefetch",
            "s_set_inst_prefetch",
            "s_code_end",
        ]) {
            return Kind::Wait;
        }
        if starts(&["s_cbranch", "s_branch"]) {
            return Kind::Branch;
        }
        if starts(&["s_barrier"]) {
            return Kind::Barrier;
        }
        if starts(&["s_load", "s_buffer_load"]) {
            return Kind::ScalarLoad;
        }
        if starts(&["buffer_load", "global_load", "flat_load"]) {
            return Kind::GlobalLoad(load_bits(name));
        }
        if starts(&["ds_read", "ds_load"]) {
            return Kind::WorkgroupLoad(load_bits(name));
        }
        let moves = ["v_readlane", "v_readfirstlane", "v_writelane", "v_permlane"];
        let swizzles = ["ds_bpermute", "ds_permute", "ds_swizzle"];
        if starts(&moves) || starts(&swizzles) {
            return Kind::CrossLane;
        }
        if starts(&["v_dot"]) {
            return Kind::Dot;
        }
        if starts(&["v_bcnt"]) {
            return Kind::BitCount;
        }
        if matches!(name, "v_and_b32" | "v_xor_b32" | "v_xnor_b32") {
            return Kind::Logic;
        }
        let plain = name.trim_start_matches("v_").trim_start_matches("dual_");
        let plain = plain.trim_start_matches("pk_");
        let multiplies = ["fma", "mac", "mad"]
            .iter()
            .any(|prefix| plain.starts_with(prefix));
        if name.starts_with("v_") && multiplies && name.ends_with("f32") {
            return Kind::MultiplyAdd;
        }
        let integers = ["mad_", "mul_lo", "mul_hi", "mul_u32", "mul_i32"];
        if name.starts_with("v_") && integers.iter().any(|prefix| plain.starts_with(prefix)) {
            return Kind::IntegerMultiply;
        }
        // Reductions move and add at once.
        if self.mnemonic.contains("_dpp") {
            return Kind::CrossLane;
        }
        Kind::Other
    }

    /// The label that it may jump to.
    fn target(&self) -> Option<&str> {
        (self.kind() == Kind::Branch).then_some(self.operands)
    }

    /// Whether what follows it is never reached from here.
    fn ends(self) -> bool {
        matches!(self.mnemonic, "s_branch" | "s_endpgm" | "s_setpc_b64")
    }
}

/// Bits of an invocation's load, from its name: `buffer_load_dwordx4`, `ds_load_2addr_b32`, `global_load_d16_u8`.
fn load_bits(name: &str) -> u32 {
    let one = match name.rsplit('_').next().unwrap_or_default() {
        "dwordx4" | "b128" | "xyzw" => 128,
        "dwordx3" | "b96" | "xyz" => 96,
        "dwordx2" | "b64" | "xy" => 64,
        "ubyte" | "sbyte" | "u8" | "i8" | "b8" => 8,
        "ushort" | "sshort" | "u16" | "i16" | "b16" => 16,
        // Also of a byte or a half that goes to one half of a register.
        "hi" if name.contains("byte") || name.contains("8_") => 8,
        "hi" => 16,
        _ => 32,
    };
    let twice = ["read2_", "read2st64_", "2addr_"]
        .iter()
        .any(|infix| name.contains(infix));
    if twice { 2 * one } else { one }
}

impl<'a> Assembly<'a> {
    /// Reads what the driver printed.
    pub(super) fn parse(text: &'a str) -> Self {
        let mut blocks = vec![Block::default()];
        for line in text.lines() {
            if let Some(label) = line.strip_suffix(':').filter(|label| is_label(label)) {
                blocks.push(Block {
                    label,
                    ..Block::default()
                });
                continue;
            }
            // What follows the code is data.
            if line.starts_with("/*") {
                break;
            }
            let code = line.split(';').next().unwrap_or_default().trim();
            let Some(block) = blocks.last_mut().filter(|_| !code.is_empty()) else {
                continue;
            };
            if let Some(times) = repeated(code) {
                let last = block.instructions.last().copied();
                block
                    .instructions
                    .extend(last.into_iter().cycle().take(times));
                continue;
            }
            // RDNA 3 issues some in pairs.
            for instruction in code.split(" :: ") {
                let (mnemonic, operands) = instruction.split_once(' ').unwrap_or((instruction, ""));
                block.instructions.push(Instruction {
                    mnemonic,
                    operands: operands.trim(),
                });
            }
        }
        Self { blocks }
    }

    /// All of the code.
    pub(super) fn whole(&self) -> Counts {
        self.count(&vec![true; self.blocks.len()])
    }

    /// The loop that does the work: the one with the most useful instructions that are in no loop inside it, and among
    /// equals the longest. `None` if there is no loop, or if jumps are too far to be seen, in code beyond 128 KiB.
    ///
    /// It is the innermost loop around the products; loops that bring operands in may lie inside it, and count.
    pub(super) fn hot_loop(&self) -> Option<Counts> {
        let loops: Vec<Vec<bool>> = self.loops();
        let score = |members: &[bool]| {
            let counts = self.count(members);
            (counts.useful(), counts.instructions)
        };
        let inside = |inner: &[bool], outer: &[bool]| {
            inner != outer && inner.iter().zip(outer).all(|(inner, outer)| outer | !inner)
        };
        // The instructions of a loop that are in no loop inside it.
        let own = |members: &[bool]| -> Vec<bool> {
            let mut own = members.to_vec();
            for other in loops.iter().filter(|other| inside(other, members)) {
                for (own, other) in own.iter_mut().zip(other) {
                    *own &= !other;
                }
            }
            own
        };
        let mut best: Option<((u32, u32), &Vec<bool>)> = None;
        for members in &loops {
            let score = score(&own(members));
            if best.is_none_or(|(best, _)| score > best) {
                best = Some((score, members));
            }
        }
        let (_, members) = best?;
        let mut counts = self.count(members);
        counts.nested = counts.instructions - self.count(&own(members)).instructions;
        Some(counts)
    }

    fn count(&self, members: &[bool]) -> Counts {
        let mut counts = Counts::default();
        let chosen = self
            .blocks
            .iter()
            .zip(members)
            .filter(|(_, member)| **member);
        for (block, _) in chosen {
            for instruction in &block.instructions {
                counts.add(*instruction);
            }
        }
        counts
    }

    /// The natural loops, each as the blocks that are members; one for each block that is jumped back to.
    fn loops(&self) -> Vec<Vec<bool>> {
        let successors = self.successors();
        let mut predecessors = vec![Vec::new(); self.blocks.len()];
        for (block, targets) in successors.iter().enumerate() {
            for &target in targets {
                predecessors[target].push(block);
            }
        }
        let mut loops: BTreeMap<usize, Vec<bool>> = BTreeMap::new();
        for (block, targets) in successors.iter().enumerate() {
            for &header in targets.iter().filter(|target| **target <= block) {
                // What reaches the jump back without passing the header.
                let mut members = vec![false; self.blocks.len()];
                members[header] = true;
                let mut open = vec![block];
                while let Some(block) = open.pop() {
                    if !members[block] {
                        members[block] = true;
                        open.extend(&predecessors[block]);
                    }
                }
                // A jump back into the middle of what is reached otherwise makes no loop.
                if members[0] && header != 0 {
                    continue;
                }
                let merged = loops.entry(header).or_insert_with(|| members.clone());
                for (merged, member) in merged.iter_mut().zip(members) {
                    *merged |= member;
                }
            }
        }
        loops.into_values().collect()
    }

    /// Where each block may be left for.
    fn successors(&self) -> Vec<Vec<usize>> {
        let labels: BTreeMap<&str, usize> = self
            .blocks
            .iter()
            .enumerate()
            .map(|(index, block)| (block.label, index))
            .collect();
        self.blocks
            .iter()
            .enumerate()
            .map(|(index, block)| {
                let jumps = block
                    .instructions
                    .iter()
                    .filter_map(|instruction| instruction.target());
                let mut targets: Vec<usize> = jumps
                    .filter_map(|label| labels.get(label).copied())
                    .collect();
                let falls = !block.instructions.last().is_some_and(|last| last.ends());
                if falls && index + 1 < self.blocks.len() {
                    targets.push(index + 1);
                }
                targets
            })
            .collect()
    }
}

fn is_label(text: &str) -> bool {
    text.strip_prefix("BB")
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// How many more times the line before is to be read: `(then repeated 3 times)`.
fn repeated(code: &str) -> Option<usize> {
    let rest = code.strip_prefix("(then repeated ")?;
    rest.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(line: &str) -> Kind {
        let text = format!("BB0:\n\t{line} ; 00000000\n");
        let assembly = Assembly::parse(&text);
        assembly.blocks[1].instructions[0].kind()
    }

    #[test]
    fn instructions_of_three_generations_are_told_apart() {
        let cases = [
            ("v_dot4_i32_iu8 v12, v8, v4, v12 neg_lo:[1,1,0]", Kind::Dot),
            ("v_dot4c_i32_i8 v9, v43, v47", Kind::Dot),
            ("v_dot4_i32_i8 v9, v43, v47, v9", Kind::Dot),
            ("v_bcnt_u32_b32 v1, v2, v3", Kind::BitCount),
            ("v_bcnt_u32_b32_e64 v1, v2, v3", Kind::BitCount),
            ("v_and_b32_e32 v1, 0xff, v2", Kind::Logic),
            ("v_xor_b32_e32 v1, v3, v2", Kind::Logic),
            ("v_fmac_f32_e32 v1, v2, v3", Kind::MultiplyAdd),
            ("v_fma_f32 v1, v2, v3, v4", Kind::MultiplyAdd),
            ("v_mac_f32_e32 v1, v2, v3", Kind::MultiplyAdd),
            ("v_mad_f32 v1, v2, v3, -v4", Kind::MultiplyAdd),
            ("v_fma_mix_f32 v1, v2, v3, v4", Kind::MultiplyAdd),
            ("v_mad_u32_u24 v1, v2, v3, v4", Kind::IntegerMultiply),
            (
                "v_mad_u64_u32 v[0:1], null, s4, v2, v[6:7]",
                Kind::IntegerMultiply,
            ),
            ("v_mul_lo_u32 v1, v2, s3", Kind::IntegerMultiply),
            ("v_mul_f32_e32 v1, v2, v3", Kind::Other),
            ("v_add_f32_dpp v1, v2, v3 row_xmask:1", Kind::CrossLane),
            ("v_readlane_b32 s4, v2, s3", Kind::CrossLane),
            ("ds_bpermute_b32 v1, v2, v3", Kind::CrossLane),
            (
                "s_buffer_load_dwordx4 s[12:15], s[8:11], 0xc",
                Kind::ScalarLoad,
            ),
            ("s_waitcnt vmcnt(0) lgkmcnt(0)", Kind::Wait),
            ("s_waitcnt_depctr 0xffe3", Kind::Wait),
            ("s_barrier", Kind::Barrier),
            ("s_cbranch_execz BB12", Kind::Branch),
        ];
        for (line, expected) in cases {
            assert_eq!(kind(line), expected, "{line}");
        }
    }

    #[test]
    fn loads_have_widths() {
        let cases = [
            (
                "buffer_load_dwordx4 v[0:3], v4, s[4:7], 0 offen",
                Kind::GlobalLoad(128),
            ),
            (
                "buffer_load_b64 v[0:1], v4, s[4:7], 0 offen",
                Kind::GlobalLoad(64),
            ),
            (
                "buffer_load_ubyte v0, v4, s[4:7], 0 offen",
                Kind::GlobalLoad(8),
            ),
            (
                "buffer_load_u16 v0, v4, s[4:7], 0 offen",
                Kind::GlobalLoad(16),
            ),
            (
                "buffer_load_short_d16_hi v0, v4, s[4:7], 0 offen",
                Kind::GlobalLoad(16),
            ),
            ("global_load_dword v0, v1, s[2:3]", Kind::GlobalLoad(32)),
            (
                "ds_load_b128 v[0:3], v4 offset:16",
                Kind::WorkgroupLoad(128),
            ),
            ("ds_read2_b32 v[0:1], v4 offset1:1", Kind::WorkgroupLoad(64)),
            (
                "ds_load_2addr_b64 v[0:3], v4 offset1:1",
                Kind::WorkgroupLoad(128),
            ),
            ("ds_read2st64_b32 v[0:1], v4", Kind::WorkgroupLoad(64)),
            ("ds_load_u8 v0, v4", Kind::WorkgroupLoad(8)),
        ];
        for (line, expected) in cases {
            assert_eq!(kind(line), expected, "{line}");
        }
    }

    /// A loop over K with a loop that fills workgroup memory inside, a branch around the products, and a loop after it.
    const NESTED: &str = "
BB0:
	s_mov_b32 s0, s3                                            ; be800003
	s_waitcnt lgkmcnt(0)                                        ; bf89fc07
BB2:
	s_cmp_ge_u32 s33, s14                                       ; bf0b0e21
	s_cbranch_scc1 BB138                                        ; bf8506dc
BB8:
	s_mov_b32 s36, 0                                            ; bea40080
BB9:
	s_cmp_lg_i32 s36, 4                                         ; bf018424
	s_cbranch_scc0 BB50                                         ; bf840119
BB25:
	buffer_load_b128 v[4:7], v1, s[4:7], 0 offen                ; e05c0000 80410401
	ds_store_b128 v2, v[4:7]                                    ; db7c0000 00000402
	v_fmac_f32_e32 v8, v9, v10                                  ; 56101509
	s_branch BB9                                                ; bfa0fee2
BB50:
	s_waitcnt lgkmcnt(0)                                        ; bf89fc07
	s_barrier                                                   ; bfbd0000
	s_cbranch_scc0 BB137                                        ; bfa10260
BB135:
	ds_load_b128 v[0:3], v20                                    ; dbfc0000 00000014
	v_dot4_i32_iu8 v12, v8, v4, v12 neg_lo:[1,1,0]              ; cc164020 64320911
	v_dot4_i32_iu8 v13, v8, v5, v13 neg_lo:[1,1,0]              ; cc164020 64320911
	(then repeated 2 times)
BB137:
	s_branch BB2                                                ; bfa0fa10
BB138:
	v_mov_b32_e32 v1, 0                                         ; 7e020280
BB139:
	buffer_store_b32 v1, v2, s[4:7], 0 offen                    ; e0680000 80410102
	v_fmac_f32_e32 v8, v9, v10                                  ; 56101509
	v_fmac_f32_e32 v8, v9, v10                                  ; 56101509
	s_cbranch_scc0 BB139                                        ; bfa1fffa
BB140:
	s_endpgm                                                    ; bfb00000

/* constant data */
[000000] 00000001 00000002
";

    #[test]
    fn the_loop_around_the_products_is_found() {
        let assembly = Assembly::parse(NESTED);
        let counts = assembly.hot_loop().expect("there are loops");
        let expected = Counts {
            instructions: 17,
            nested: 6,
            dot: 4,
            multiply_add: 1,
            branches: 5,
            barriers: 1,
            global_loads: Loads::from([(128, 1)]),
            workgroup_loads: Loads::from([(128, 1)]),
            ..Counts::default()
        };
        assert_eq!(counts, expected);
        assert_eq!(counts.useful(), 5);
        assert_eq!(assembly.loops().len(), 3);
    }

    #[test]
    fn data_behind_the_code_is_not_counted() {
        let whole = Assembly::parse(NESTED).whole();
        assert_eq!(
            (whole.instructions, whole.dot, whole.multiply_add),
            (24, 4, 3)
        );
    }

    #[test]
    fn two_jumps_back_to_one_place_are_one_loop() {
        let text = "
BB1:
	v_fmac_f32_e32 v0, v1, v2
	s_cbranch_scc0 BB1
BB2:
	v_fmac_f32_e32 v0, v1, v2
	s_cbranch_vccnz BB1
BB3:
	s_endpgm
";
        let counts = Assembly::parse(text).hot_loop().expect("a loop");
        assert_eq!((counts.instructions, counts.nested), (4, 0));
    }

    #[test]
    fn code_without_a_loop_has_none() {
        for text in ["", "BB0:\n\tv_fmac_f32_e32 v0, v1, v2\n\ts_endpgm\n"] {
            assert_eq!(Assembly::parse(text).hot_loop(), None);
        }
    }

    #[test]
    fn without_products_it_is_the_longest_loop() {
        let text = "
BB1:
	s_cbranch_scc0 BB1
BB2:
	v_lshlrev_b32_e32 v0, 1, v0
	s_cbranch_scc0 BB2
BB3:
	s_endpgm
";
        let counts = Assembly::parse(text).hot_loop().expect("two loops");
        assert_eq!((counts.instructions, counts.useful()), (2, 0));
    }

    #[test]
    fn paired_instructions_are_two() {
        let text = "BB0:\n\tv_dual_fmac_f32 v0, v1, v2 :: v_dual_mul_f32 v3, v4, v5 ; c8\n";
        let whole = Assembly::parse(text).whole();
        assert_eq!((whole.instructions, whole.multiply_add), (2, 1));
    }

    #[test]
    fn a_jump_to_nowhere_is_ignored() {
        let text = "BB0:\n\ts_branch BB7\nBB1:\n\ts_cbranch_scc0 nonsense\n\ts_branch BB1\n";
        assert_eq!(Assembly::parse(text).loops().len(), 1);
    }
}
