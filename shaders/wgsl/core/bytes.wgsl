// Four unsigned codes, one a byte, in one word.

const BYTES_ONE: u32 = 0x01010101u;
const BYTES_HIGH: u32 = 0x80808080u;

fn bytes_unpack(word: u32) -> vec4<u32> {
    return vec4<u32>(word & 0xffu, (word >> 8u) & 0xffu, (word >> 16u) & 0xffu, word >> 24u);
}
