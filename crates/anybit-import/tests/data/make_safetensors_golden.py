#!/usr/bin/env python3
"""Makes safetensors/LAYOUT.safetensors: a small weight in every quantised layout, and the values that it stands for.

    pip install numpy ml_dtypes safetensors
    python make_safetensors_golden.py

Made with numpy 2.4, ml_dtypes 0.6 and safetensors 0.8. Nothing of anybit is used here. The layouts are packed by the
rules of the projects' own code, written again from these places:

- GPTQ: AutoGPTQ 0.7.1, `nn_modules/qlinear/qlinear_cuda.py`, `pack` and `forward`; `gptq_v2`: GPTQModel 7.7,
  `utils/model.py`, `convert_gptq_v1_to_v2_format_module`.
- AWQ: AutoAWQ 0.2.9, `modules/linear/gemm.py`, `from_linear`, and `utils/packing_utils.py`, `dequantize_gemm`.
- bitsandbytes 0.50: `functional.py`, `QuantState.as_dict`, `get_4bit_type` and `dequantize_4bit`, and
  `backends/default/ops.py`.
- compressed-tensors 0.20: `compressors/pack_quantized/helpers.py`, `compressors/naive_quantized/base.py`,
  `compressors/nvfp4/helpers.py`, `compressors/mx_utils.py`, `quantization/lifecycle/forward_helpers.py`, `_dequantize`.
- ModelOpt 0.47: `NVFP4QTensor.dequantize`.

Every file has the tensors of one weight `layer.weight`, random with the same result on every run, and the values as
the F32 tensor `expected`, N x K, computed in f32: scale * (q - zero). Metadata `config` is what config.json would say.
"""

import json
import struct
from pathlib import Path

import ml_dtypes
import numpy as np
import safetensors

DTYPES = {
    np.dtype("<f4"): "F32", np.dtype("<f2"): "F16", np.dtype("<i4"): "I32", np.dtype("<i8"): "I64",
    np.dtype("i1"): "I8", np.dtype("u1"): "U8", np.dtype(ml_dtypes.bfloat16): "BF16",
    np.dtype(ml_dtypes.float8_e4m3fn): "F8_E4M3", np.dtype(ml_dtypes.float8_e5m2): "F8_E5M2",
}
FOLDER = Path(__file__).parent / "safetensors"
f32 = np.float32


def save(layout, tensors, expected, config=None):
    """Writes a file, and reads it again with the safetensors package."""
    tensors = dict(tensors, expected=np.ascontiguousarray(expected, dtype="<f4"))
    assert np.isfinite(tensors["expected"]).all(), layout
    header, data = {"__metadata__": {"config": json.dumps(config or {})}}, b""
    for name, array in tensors.items():
        array = np.ascontiguousarray(array)
        begin = len(data)
        data += array.tobytes()
        header[name] = {
            "dtype": DTYPES[array.dtype], "shape": list(np.shape(tensors[name])), "data_offsets": [begin, len(data)]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path = FOLDER / f"{layout}.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    back = [name for name, _ in safetensors.deserialize(path.read_bytes())]
    assert sorted(back) == sorted(tensors), layout


def pack(codes, bits, axis):
    """32-bit words of codes along an axis, from the lowest bits up; a code may straddle two words."""
    codes = np.moveaxis(codes.astype(np.uint64), axis, 0)
    words = np.zeros((-(-codes.shape[0] * bits // 32) + 1, *codes.shape[1:]), dtype=np.uint64)
    for index, code in enumerate(codes):
        word, shift = divmod(index * bits, 32)
        both = code << np.uint64(shift)
        words[word] |= both & np.uint64(0xFFFFFFFF)
        words[word + 1] |= both >> np.uint64(32)
    assert not words[-1].any() or codes.shape[0] * bits % 32
    words = words[:-(-codes.shape[0] * bits // 32)]
    return np.moveaxis(words, 0, axis).astype(np.uint32).view(np.int32)


def gptq_three_bits(codes):
    """The words of 3-bit codes as AutoGPTQ spells them out: 32 codes in three words. Checks `pack`."""
    codes = codes.astype(np.uint32)
    words = []
    for i in range(0, len(codes), 32):
        c = codes[i:i + 32]
        first = sum(c[j] << np.uint32(3 * j) for j in range(10)) | (c[10] & 3) << np.uint32(30)
        second = c[10] >> np.uint32(2) & 1 | sum(c[j] << np.uint32(3 * (j - 11) + 1) for j in range(11, 21))
        second |= (c[21] & 1) << np.uint32(31)
        third = c[21] >> np.uint32(1) & 3 | sum(c[j] << np.uint32(3 * (j - 22) + 2) for j in range(22, 32))
        words += [first, second, third]
    return np.array(words, dtype=np.uint32).view(np.int32)


def scales_of(rng, shape, dtype):
    """Random scales of both signs, among them 0, subnormal and large ones of 16 bits."""
    scales = (rng.standard_normal(shape) * 0.05).astype(dtype)
    scales.flat[:4] = np.array([0, 6e-8, 1000, -0.001]).astype(dtype)
    return scales


def gptq(layout, bits, v2=False, act_order=False, group=32, n=32, k=96):
    rng = np.random.default_rng(sum(layout.encode()))
    groups = k // group
    codes = rng.integers(0, 1 << bits, (k, n))
    stored = rng.integers(0, 1 << bits, (groups, n))
    # All bits set means 2^bits in the first version; 256 of 8 bits is tested elsewhere.
    stored[0, :2] = [(1 << bits) - 1 - (bits == 8), 0]
    scales = scales_of(rng, (groups, n), np.float16)
    g_idx = np.arange(k, dtype=np.int32) // group
    if act_order:
        rng.shuffle(g_idx)
    zeros = stored + (0 if v2 else 1)
    expected = (scales.astype(f32)[g_idx] * (codes - zeros[g_idx]).astype(f32)).T
    words = pack(codes, bits, 0)
    if bits == 3:
        assert (words == gptq_three_bits(codes)).all()
    config = {"quantization_config": {"quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": act_order}}
    if v2:
        config["quantization_config"]["checkpoint_format"] = "gptq_v2"
    save(layout, {
        "layer.qweight": words, "layer.qzeros": pack(stored, bits, 1), "layer.scales": scales, "layer.g_idx": g_idx,
        "layer.bias": rng.standard_normal(n).astype(np.float16)}, expected, config)


def awq(layout, group=32, n=32, k=64):
    rng = np.random.default_rng(5)
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    codes, zeros = rng.integers(0, 16, (k, n)), rng.integers(0, 16, (k // group, n))
    scales = scales_of(rng, (k // group, n), np.float16)

    def words(codes):
        out = np.zeros((codes.shape[0], n // 8), dtype=np.uint32)
        for column in range(n // 8):
            for i in range(8):
                out[:, column] |= codes[:, column * 8 + order[i]].astype(np.uint32) << np.uint32(4 * i)
        return out.view(np.int32)

    by_row = np.arange(k) // group
    expected = (scales.astype(f32)[by_row] * (codes - zeros[by_row]).astype(f32)).T
    config = {"quantization_config": {
        "quant_method": "awq", "bits": 4, "group_size": group, "version": "gemm", "zero_point": True}}
    save(layout, {"layer.qweight": words(codes), "layer.qzeros": words(zeros), "layer.scales": scales}, expected, config)


NF4 = np.array([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0], dtype=f32)
# The table that Python has makes code 8 a 0; that of the CUDA kernels, `dDequantizeFP4Tree`, a -0, which is decoded here.
FP4 = np.array([0, 0.0625, 8, 12, 4, 6, 2, 3, -0.0, -0.0625, -8, -12, -4, -6, -2, -3], dtype=f32) / f32(12)


def bitsandbytes(layout, quant_type, n, k, nested=False, block=64):
    rng = np.random.default_rng(n * k + nested)
    table = {"nf4": NF4, "fp4": FP4}[quant_type]
    codes = rng.integers(0, 16, n * k).astype(np.uint8)
    codes[:16] = range(16)
    padded = np.append(codes, np.uint8(0)) if len(codes) % 2 else codes
    blocks = -(-n * k // block)
    state = {"quant_type": quant_type, "blocksize": block, "dtype": "bfloat16", "shape": [n, k]}
    tensors = {"layer.weight": (padded[::2] << 4 | padded[1::2])[:, None]}
    if nested:
        nested_block = 8
        offset = 0.0423583984375123
        quantised = rng.integers(0, 256, blocks).astype(np.uint8)
        map_ = np.sort(rng.uniform(-1, 1, 256)).astype(f32)
        factors = rng.uniform(0.01, 0.1, -(-blocks // nested_block)).astype(f32)
        scales = map_[quantised] * factors[np.arange(blocks) // nested_block] + f32(offset)
        state |= {"nested_blocksize": nested_block, "nested_dtype": "float32", "nested_offset": offset}
        tensors |= {
            "layer.weight.absmax": quantised, "layer.weight.nested_absmax": factors,
            "layer.weight.nested_quant_map": map_}
    else:
        scales = rng.uniform(0.001, 3, blocks).astype(f32)
        tensors |= {"layer.weight.absmax": scales}
    text = np.frombuffer(json.dumps(state).encode(), dtype=np.uint8)
    tensors |= {"layer.weight.quant_map": table + f32(0), f"layer.weight.quant_state.bitsandbytes__{quant_type}": text}
    assert scales.dtype == f32
    expected = (table[codes] * scales[np.arange(n * k) // block]).reshape(n, k)
    save(layout, tensors, expected, {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}})


def compressed_config(bits, format_, group=None):
    weights = {"num_bits": bits, "group_size": group, "type": "int"}
    return {"quantization_config": {
        "quant_method": "compressed-tensors", "format": format_,
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}}}


def pack_quantized(layout, bits, dtype, group=None, zeros=False, act_order=False, n=24, k=96):
    rng = np.random.default_rng(sum(layout.encode()))
    offset = 1 << bits - 1
    groups = k // group if group else 1
    codes = rng.integers(-offset, offset, (n, k))
    scales = scales_of(rng, (n, groups), dtype)
    points = rng.integers(-offset, offset, (n, groups)) if zeros else np.zeros((n, groups), dtype=int)
    g_idx = np.arange(k, dtype=np.int32) // (group or k)
    if act_order:
        rng.shuffle(g_idx)
    expected = scales.astype(f32)[:, g_idx] * (codes - points[:, g_idx]).astype(f32)
    tensors = {
        "layer.weight_packed": pack(codes + offset, bits, 1), "layer.weight_scale": scales,
        "layer.weight_shape": np.array([n, k], dtype=np.int64)}
    if zeros:
        tensors["layer.weight_zero_point"] = pack(points + offset, bits, 0)
    if act_order:
        tensors["layer.weight_g_idx"] = g_idx
    save(layout, tensors, expected, compressed_config(bits, "pack-quantized", group))


def int_quantized(layout, shape, zeros=False, n=6, k=40):
    rng = np.random.default_rng(sum(layout.encode()))
    codes = rng.integers(-128, 128, (n, k)).astype(np.int8)
    scales = scales_of(rng, (n, 1), ml_dtypes.bfloat16) if shape else np.array([0.0123], dtype=f32)
    points = rng.integers(-128, 128, scales.shape).astype(np.int8) if zeros else np.zeros_like(scales, dtype=np.int8)
    expected = scales.astype(f32) * (codes.astype(f32) - points.astype(f32))
    tensors = {"layer.weight": codes, "layer.weight_scale": scales}
    if zeros:
        tensors["layer.weight_zero_point"] = points
    save(layout, tensors, expected, compressed_config(8, "int-quantized"))


def float8(layout, dtype, suffix, places, n=40, k=96, config=None):
    """Weights of every code that is finite. `places` gives scales and which of them each element has."""
    rng = np.random.default_rng(sum(layout.encode()))
    finite = np.arange(256, dtype=np.uint8)
    finite = finite[np.isfinite(finite.view(dtype).astype(f32))]
    codes = np.resize(rng.permutation(finite), (n, k)).view(dtype)
    tensors, scales = {"layer.weight": codes}, f32(1)
    if suffix:
        tensors["layer.weight" + suffix], scales = places(rng, n, k)
    save(layout, tensors, scales * codes.astype(f32), config)


def one_scale(rng, n, k):
    return np.array(0.037, dtype=f32), f32(0.037)


def row_scales(rng, n, k):
    scales = scales_of(rng, (n, 1), ml_dtypes.bfloat16)
    return scales, scales.astype(f32)


def block_scales(rng, n, k):
    scales = rng.uniform(1e-4, 1e-2, (-(-n // 16), -(-k // 64))).astype(f32)
    return scales, scales[np.ix_(np.arange(n) // 16, np.arange(k) // 64)]


def exponents(rng, n, k):
    scales = rng.integers(100, 140, (n, k // 32)).astype(np.uint8)
    return scales, (2.0 ** (scales.astype(int) - 127)).astype(f32)[:, np.arange(k) // 32]


E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], dtype=f32)


def float4(layout, kind, n=6, k=96):
    rng = np.random.default_rng(sum(layout.encode()))
    codes = rng.integers(0, 16, (n, k)).astype(np.uint8)
    packed = codes[:, ::2] | codes[:, 1::2] << 4
    if kind == "mxfp4":
        bytes_, scales = exponents(rng, n, k)
        save(layout, {"layer.weight_packed": packed, "layer.weight_scale": bytes_}, scales * E2M1[codes])
        return
    scales = np.abs(rng.standard_normal((n, k // 16)) * 50).astype(ml_dtypes.float8_e4m3fn)
    scales.view(np.uint8).flat[:4] = [0x00, 0x01, 0x07, 0x7E]
    if kind == "nvfp4":
        # compressed-tensors divides by the factor; its reciprocal, rounded, differs from that in the last bit at most.
        factor = np.array([1234.5], dtype=f32)
        tensors = {"layer.weight_packed": packed, "layer.weight_scale": scales, "layer.weight_global_scale": factor}
        both = scales.astype(f32) * (f32(1) / factor)
        divided = scales.astype(f32) / factor
        assert np.all(np.abs(both - divided) <= np.spacing(divided))
    else:
        factor = np.array(0.00123, dtype=f32)
        tensors = {"layer.weight": packed, "layer.weight_scale": scales, "layer.weight_scale_2": factor}
        both = scales.astype(f32) * factor
    assert both.dtype == f32
    save(layout, tensors, both[:, np.arange(k) // 16] * E2M1[codes])


def plain(layout, dtype, n=3, k=50):
    values = (np.random.default_rng(1).standard_normal((n, k)) * 9).astype(dtype)
    values.flat[:3] = np.array([0, -0.0, 1e-7]).astype(dtype)
    save(layout, {"layer.weight": values}, values.astype(f32))


def main():
    FOLDER.mkdir(exist_ok=True)
    for bits in [2, 3, 4, 8]:
        gptq(f"gptq{bits}", bits)
    gptq("gptq4_v2", 4, v2=True)
    gptq("gptq4_act_order", 4, act_order=True)
    gptq("gptq3_act_order", 3, act_order=True)
    gptq("gptq4_one_group", 4, group=96)
    awq("awq")
    bitsandbytes("nf4", "nf4", 4, 128)
    bitsandbytes("nf4_nested", "nf4", 8, 128, nested=True)
    bitsandbytes("fp4", "fp4", 4, 64)
    # Blocks that do not end with the rows: 16 columns have one scale, or 8.
    bitsandbytes("nf4_shared", "nf4", 4, 48)
    bitsandbytes("nf4_straddling", "nf4", 5, 41, nested=True)
    pack_quantized("pack4_bf16", 4, ml_dtypes.bfloat16, group=32)
    pack_quantized("pack4_zeros", 4, np.float16, group=32, zeros=True)
    pack_quantized("pack4_rows", 4, np.float32)
    pack_quantized("pack4_act_order", 4, np.float32, group=32, act_order=True)
    pack_quantized("pack8", 8, np.float16, group=96, zeros=True)
    pack_quantized("pack3", 3, np.float32, group=32, zeros=True)
    int_quantized("int8", True)
    int_quantized("int8_zeros", True, zeros=True)
    int_quantized("int8_one", False)
    e4m3, e5m2 = ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2
    float8("fp8_bare", e4m3, "", None)
    float8("fp8_one", e4m3, "_scale", one_scale)
    float8("fp8_rows", e5m2, "_scale", row_scales)
    float8("fp8_blocks", e4m3, "_scale_inv", block_scales, config={
        "quantization_config": {"quant_method": "fp8", "weight_block_size": [16, 64]}})
    float8("mxfp8", e4m3, "_scale", exponents)
    float4("nvfp4", "nvfp4")
    float4("nvfp4_modelopt", "modelopt")
    float4("mxfp4", "mxfp4")
    plain("f32", np.dtype("<f4"))
    plain("f16", np.float16)
    plain("bf16", ml_dtypes.bfloat16)
    files = list(FOLDER.glob("*.safetensors"))
    print(f"{len(files)} layouts, {sum(file.stat().st_size for file in files)} bytes")


if __name__ == "__main__":
    main()
