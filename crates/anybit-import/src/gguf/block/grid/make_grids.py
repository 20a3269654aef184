#!/usr/bin/env python3
"""Makes *.bin beside this file: the grids of ggml's IQ1, IQ2 and IQ3 types, as the `gguf` package has them.

    pip install gguf==0.19.0
    python make_grids.py

A grid is a table of points; a point is the magnitudes (IQ1: the values) of 8 or 4 neighbouring elements. ggml found
the points by search, so that they have no formula and must be stored. Each element is an index into the few numbers
that occur in its grid (`grid.rs` lists them), in 2 or 4 bits, points after points, the first element lowest.
"""

from pathlib import Path

import numpy as np
from gguf import quants

GRIDS = {
    "iq1": quants.IQ1_S,
    "iq2_xxs": quants.IQ2_XXS,
    "iq2_xs": quants.IQ2_XS,
    "iq2_s": quants.IQ2_S,
    "iq3_xxs": quants.IQ3_XXS,
    "iq3_s": quants.IQ3_S,
}

for name, kind in GRIDS.items():
    kind.init_grid()
    points = kind.grid.reshape(kind.grid_shape)
    indices = np.searchsorted(np.array(kind.grid_map), points).astype(np.uint8)
    bits = 2 if len(kind.grid_map) <= 4 else 4
    # The indices of a byte stand next to each other.
    indices = indices.reshape(-1, 8 // bits)
    data = np.bitwise_or.reduce(indices << np.arange(0, 8, bits, dtype=np.uint8), axis=1)
    (Path(__file__).parent / f"{name}.bin").write_bytes(data.tobytes())
    print(f"{name}: {points.shape[0]} points of {points.shape[1]}, {data.size} bytes")
