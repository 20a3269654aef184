#!/usr/bin/env python3
"""Makes golden/TYPE.bin: blocks of every GGUF tensor type and the values that the `gguf` package gives them.

    pip install gguf==0.19.0
    python make_gguf_golden.py

Made with gguf 0.19.0 and numpy 2.4.6. The package is the reader that llama.cpp's authors keep beside their C code
(https://github.com/ggml-org/llama.cpp, gguf-py); nothing of anybit is used here. Two types have sizes but no decoder
in that version and are decoded below from their definition in ggml (`ggml-common.h`, `ggml-quants.c`): Q8_K and Q1_0.

A file has no header. It is n blocks of the type, as a GGUF file stores them, then the n * (elements in a block)
values as little-endian f32, so n = length / (bytes in a block + 4 * elements in a block).

Blocks are random bytes, with the same result on every run, but for what follows. The first blocks have the extreme
scales: 0, -0, the smallest and the largest subnormal, the largest and the most negative. One block has all bits of
its codes clear, one all of them set. No scale is infinite or not a number, and TQ2_0 has no code 3: those are damage,
and anybit refuses them.
"""

import random
import struct
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Type
from gguf.quants import dequantize

# Extreme binary16 numbers, as bits.
HALVES = [0x0000, 0x8000, 0x0001, 0x83FF, 0x7BFF, 0xFBFF]
# The same of binary32; the largest are such that 128 times them is finite.
SINGLES = [0x00000000, 0x80000000, 0x00000001, 0x807FFFFF, 0x7BFFFFFF, 0xFBFFFFFF]
# Bytes E of the scale 2^(E - 127). From 253 on, a scale times 6, the largest element, is infinite.
EXPONENTS = [0, 1, 2, 127, 128, 252]
# E4M3 numbers without sign: 0, smallest and largest subnormal, smallest normal, 1, largest.
MINIFLOATS = [0x00, 0x01, 0x07, 0x08, 0x38, 0x7E]
# The blocks with all bits of the codes clear and set.
CLEAR, SET = 6, 7

# Where the binary16 scales of a block stand.
HALVES_AT = {
    Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q5_0: [0], Type.Q5_1: [0, 2], Type.Q8_0: [0], Type.Q1_0: [0],
    Type.Q2_K: [80, 82], Type.Q3_K: [108], Type.Q4_K: [0, 2], Type.Q5_K: [0, 2], Type.Q6_K: [208], Type.Q8_K: [],
    Type.TQ1_0: [52], Type.TQ2_0: [64], Type.MXFP4: [], Type.NVFP4: [],
    Type.IQ4_NL: [0], Type.IQ4_XS: [0], Type.IQ1_S: [0], Type.IQ1_M: [], Type.IQ2_XXS: [0], Type.IQ2_XS: [0],
    Type.IQ2_S: [0], Type.IQ3_XXS: [0], Type.IQ3_S: [0], Type.F16: [0], Type.BF16: [],
}


def finite_half(generator):
    """Bits of a random finite binary16."""
    while (bits := generator.getrandbits(16)) & 0x7C00 == 0x7C00:
        pass
    return bits


def set_scales(kind, block, index, generator):
    """Overwrites the scales of block `index` by finite ones, extreme in the first blocks."""
    def pick(extremes, otherwise):
        return extremes[index] if index < len(extremes) else otherwise()

    for number, at in enumerate(HALVES_AT[kind]):
        # A minimum is extreme at other blocks than the scale, so that the two meet in many ways.
        extremes = HALVES if number == 0 else HALVES[4:] + [finite_half(generator)] + HALVES[:4]
        struct.pack_into("<H", block, at, pick(extremes, lambda: finite_half(generator)))
    if kind == Type.IQ1_M:
        # Four bits of the scale in the top of each of the last four words.
        bits = pick(HALVES, lambda: finite_half(generator))
        for word in range(4):
            at = 49 + 2 * word
            block[at] = block[at] & 0x0F | (bits >> 4 * word & 0x0F) << 4
    elif kind == Type.Q6_K:
        # -128 is what ggml writes for the scale of largest magnitude.
        block[192 + index] = 0x80
        block[207 - index] = 0x7F
    elif kind == Type.Q8_K:
        # The exponent stays below 247, so that 128 times the scale is finite.
        bits = pick(SINGLES, lambda: generator.getrandbits(1) << 31 | generator.randrange(247 << 23))
        struct.pack_into("<I", block, 0, bits)
    elif kind == Type.MXFP4:
        block[0] = pick(EXPONENTS, lambda: generator.randrange(253))
    elif kind == Type.NVFP4:
        for group in range(4):
            extremes = MINIFLOATS[group:] + MINIFLOATS[:group]
            block[group] = pick(extremes, lambda: generator.randrange(0x7F))
    elif kind == Type.BF16 and block[1] & 0x7F == 0x7F:
        block[1] &= 0xBF
    elif kind == Type.TQ2_0:
        for at in range(64):
            # Code 3 becomes code 2: the low bit of a pair is cleared where the high bit is set.
            block[at] &= ~(block[at] >> 1 & 0x55)


def blocks_of(kind, count):
    """`count` blocks as they stand in a file."""
    generator = random.Random(int(kind))
    size = GGML_QUANT_SIZES[kind][1]
    blocks = bytearray()
    for index in range(count):
        block = bytearray(generator.randbytes(size))
        if index in (CLEAR, SET):
            block = bytearray([0x00 if index == CLEAR else 0xFF]) * size
        set_scales(kind, block, index, generator)
        blocks += block
    return bytes(blocks)


def q8_k(blocks):
    """Binary32 scale d, 256 signed bytes q, 16 sums of them that decoding does not use; d * q."""
    fields = np.frombuffer(blocks, np.dtype([("d", "<f4"), ("q", "i1", 256), ("sums", "<i2", 16)]))
    return fields["d"][:, None] * fields["q"].astype(np.float32)


def q1_0(blocks):
    """Binary16 scale d, 128 bits from the lowest; d where the bit is set, else -d."""
    fields = np.frombuffer(blocks, np.dtype([("d", "<f2"), ("q", "u1", 16)]))
    bits = np.unpackbits(fields["q"], axis=1, bitorder="little")
    scale = fields["d"].astype(np.float32)[:, None]
    return np.where(bits == 1, scale, -scale)


def values_of(kind, blocks):
    """The values of `blocks`, f32."""
    if kind == Type.Q8_K:
        return q8_k(blocks)
    if kind == Type.Q1_0:
        return q1_0(blocks)
    size = GGML_QUANT_SIZES[kind][1]
    return dequantize(np.frombuffer(blocks, np.uint8).reshape(-1, size), kind)


def main():
    folder = Path(__file__).parent / "golden"
    folder.mkdir(exist_ok=True)
    total = 0
    for kind in HALVES_AT:
        elements, _ = GGML_QUANT_SIZES[kind]
        blocks = blocks_of(kind, {1: 96, 32: 24, 64: 24}.get(elements, 12))
        values = np.ascontiguousarray(values_of(kind, blocks), dtype="<f4")
        assert np.isfinite(values).all(), kind.name
        data = blocks + values.tobytes()
        (folder / f"{kind.name}.bin").write_bytes(data)
        total += len(data)
    print(f"{len(HALVES_AT)} types, {total} bytes")


if __name__ == "__main__":
    main()
