// Codes of 1 to 4 bits as signed bytes: the values of a table in the parameters times 2^lift, integers.
//
// Reads BITS and ZERO. As format/codebook, four codes at a time: a level of the tree a bit, on masks.
//#import core/bytes
//#import core/operand
//#needs operand

const LIFT_CHOICE: u32 = 3u;

// 0xff in the bytes where the lowest bit is set, else 0.
fn lift_mask(bits: u32) -> u32 {
    let ones = bits & BYTES_ONE;
    return (ones << 8u) - ones;
}

fn lift_value(value: f32) -> u32 {
    return (bitcast<u32>(i32(value * operand().lift)) & 0xffu) * BYTES_ONE;
}

fn lift_pick(a: u32, b: u32, mask: u32) -> u32 {
    return a ^ ((a ^ b) & mask);
}

fn lift_four(values: vec4<f32>, bytes: u32) -> u32 {
    let low = lift_mask(bytes);
    return lift_pick(
        lift_pick(lift_value(values.x), lift_value(values.y), low),
        lift_pick(lift_value(values.z), lift_value(values.w), low),
        lift_mask(bytes >> 1u),
    );
}

fn lift_eight(first: vec4<f32>, second: vec4<f32>, bytes: u32) -> u32 {
    return lift_pick(lift_four(first, bytes), lift_four(second, bytes), lift_mask(bytes >> 2u));
}

fn lift_bytes(bytes: u32, choice: i32) -> u32 {
    var value: u32;
    if (BITS <= 2u) {
        value = lift_four(operand().table[0], bytes);
    } else {
        value = lift_eight(operand().table[0], operand().table[1], bytes);
    }
    if (BITS == 4u) {
        value = lift_pick(
            value, lift_eight(operand().table[2], operand().table[3], bytes), lift_mask(bytes >> 3u),
        );
    }
    if (ZERO == LIFT_CHOICE) {
        // 0xff where the code is the one that the group chooses for: all bits of the difference are 0.
        let difference = bytes ^ (operand().choice_code * BYTES_ONE);
        let equal = lift_mask(~(difference | (difference >> 1u) | (difference >> 2u) | (difference >> 3u)));
        value = lift_pick(value, lift_value(operand().choices[choice]), equal);
    }
    return value;
}

fn lift_start(activation_codes: i32) -> i32 {
    return 0;
}

fn lift_codes(bytes: u32) -> i32 {
    return dot4I8Packed(bytes, BYTES_ONE);
}
