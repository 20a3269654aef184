// Weights of KEPT bits out of codes of 8, by truncation or, with ROUND, Double Rounding (arXiv:2502.01199). The results are
// codes as narrow weights have them.
//
// Reads KEPT, 2 to 7, and ROUND. Codes are offset binary, so they round as their integers do: 128 is an even number of the
// larger units. Four bytes at a time; none passes another.
//#import core/bytes

const LIFT_DROPPED: u32 = 8u - KEPT;
const LIFT_KEPT_MASK: u32 = ((1u << KEPT) - 1u) * BYTES_ONE;
const LIFT_DROPPED_MASK: u32 = ((1u << LIFT_DROPPED) - 1u) * BYTES_ONE;
// Half a unit less one: with the lowest kept bit, what carries out of the dropped bits where they round up, ties to even.
const LIFT_HALF: u32 = ((1u << (LIFT_DROPPED - 1u)) - 1u) * BYTES_ONE;

fn lift_bytes(bytes: u32, choice: i32) -> u32 {
    let kept = (bytes >> LIFT_DROPPED) & LIFT_KEPT_MASK;
    if (!ROUND) {
        return kept;
    }
    let carry = (bytes & LIFT_DROPPED_MASK) + LIFT_HALF + (kept & BYTES_ONE);
    let rounded = kept + ((carry >> LIFT_DROPPED) & BYTES_ONE);
    // One past the largest code saturates.
    return rounded - ((rounded >> KEPT) & BYTES_ONE);
}

// What a sum of byte products starts from: narrow codes lack nothing.
fn lift_start(activation_codes: i32) -> i32 {
    return 0;
}

// The sum of the codes behind four bytes.
fn lift_codes(bytes: u32) -> i32 {
    return i32(dot4U8Packed(bytes, BYTES_ONE));
}
