"""Writes minifloat/decode.csv and minifloat/encode.csv with ml_dtypes.

The files in the repository come from Python 3.11, ml_dtypes 0.6.0 and numpy 2.4.6:

    pip install ml_dtypes==0.6.0 numpy==2.4.6
    python make_minifloat.py

It casts every one of the 2^32 f32 bit patterns to every format, which takes some minutes.

decode.csv has a row for every code: the bits of its value in f32.

encode.csv has every cast in runs: all f32 bit patterns from `first` to just before the `first` of
the format's next row become `code`. ml_dtypes rounds to nearest, ties to even. Overflow becomes
infinity, or NaN where there is none, or the largest finite number where there is neither.
"""

import csv
import pathlib
import sys

import ml_dtypes
import numpy as np

# The names of this project and those of ml_dtypes.
FORMATS = {
    "e4m3": ml_dtypes.float8_e4m3fn,
    "e4m3ieee": ml_dtypes.float8_e4m3,
    "e3m4ieee": ml_dtypes.float8_e3m4,
    "e5m2": ml_dtypes.float8_e5m2,
    "e3m2": ml_dtypes.float6_e3m2fn,
    "e2m3": ml_dtypes.float6_e2m3fn,
    "e2m1": ml_dtypes.float4_e2m1fn,
    "e8m0": ml_dtypes.float8_e8m0fnu,
}
BITS = {"e3m2": 6, "e2m3": 6, "e2m1": 4}

CHUNK = 1 << 24


def decoded(name, dtype):
    """(code, f32 bits) of every code."""
    codes = np.arange(1 << BITS.get(name, 8), dtype=np.uint8)
    bits = codes.view(dtype).astype(np.float32).view(np.uint32)
    return zip(codes.tolist(), bits.tolist())


def encoded(dtype):
    """(first f32 bits, code) of every run of f32 bit patterns that become the same code."""
    last = -1
    for start in range(0, 1 << 32, CHUNK):
        bits = np.arange(start, start + CHUNK, dtype=np.uint64).astype(np.uint32)
        codes = bits.view(np.float32).astype(dtype).view(np.uint8)
        before = np.concatenate(([last], codes[:-1].astype(np.int16)))
        for place in np.flatnonzero(codes != before):
            yield start + int(place), int(codes[place])
        last = int(codes[-1])


def main():
    folder = pathlib.Path(__file__).parent / "minifloat"
    np.seterr(all="ignore")
    with open(folder / "decode.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["format", "code", "bits"])
        for name, dtype in FORMATS.items():
            for code, bits in decoded(name, dtype):
                writer.writerow([name, f"{code:02x}", f"{bits:08x}"])
    with open(folder / "encode.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["format", "first", "code"])
        for name, dtype in FORMATS.items():
            print(name, file=sys.stderr)
            for first, code in encoded(dtype):
                writer.writerow([name, f"{first:08x}", f"{code:02x}"])


main()
