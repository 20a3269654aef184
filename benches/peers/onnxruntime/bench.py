"""Times onnxruntime's WebGPU products, and checks them.

`cargo xtask bench --peers` starts this program; `benches/src/peers.rs` reads its output: one JSON object a line, as that
file describes it.

A case is a model of one product whose weights are constants. onnxruntime falls back to the CPU silently, so fallback is
refused and the profile of the checked run must say that the product ran on WebGPU. That run is compared with an f64
product of the weights as they were rounded here, and warms the caches. The time is a run from call to return, so it
includes moving X to the device and Y from it: onnxruntime's Python package keeps neither there. Products that take less
than PASS are put into one model several times. Wall clock, and CPU time of the process; medians over runs.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time

import numpy
import onnx
import onnxruntime

PROVIDER = "WebGpuExecutionProvider"
PEER = f"onnxruntime-webgpu {onnxruntime.__version__}"
BLOCK = 32

# A run should last so long, against what it costs to start one.
PASS = 0.015
MOST_REPETITIONS = 64

# (bits of the weights, accuracy level, what the error may be): level 4 may round the activations to 8 bits.
CASES = [(32, None, 1e-4), (4, 0, 1e-4), (4, 4, 3e-2), (8, 0, 1e-4), (8, 4, 3e-2)]


def main():
    parser = argparse.ArgumentParser(description="Times onnxruntime's WebGPU products; JSON lines on standard output.")
    parser.add_argument("--software", action="store_true", help="the adapter runs shaders on the CPU")
    parser.add_argument("--shapes", required=True, help="MxNxK, joined by commas")
    parser.add_argument("--passes", type=int, required=True, help="runs of each case")
    parser.add_argument("--seconds", type=float, required=True, help="time after which no further run is started")
    parser.add_argument("--patience", type=float, required=True, help="time after which fewer runs must do")
    arguments = parser.parse_args()
    for shape in arguments.shapes.split(","):
        m, n, k = map(int, shape.split("x"))
        for bits, level, bound in CASES:
            row = {
                "peer": PEER,
                "kernel": "MatMul" if level is None else f"MatMulNBits bits {bits} level {level}",
                "activation": "f32",
                "weight": "f32" if bits == 32 else f"int{bits}",
                "activation_bits": 32,
                "weight_bits": bits,
                "m": m,
                "n": n,
                "k": k,
                "bound": bound,
            }
            try:
                row |= measure(m, n, k, bits, level, arguments)
            except Exception as error:  # One case that cannot run should not end the others.
                row["failure"] = str(error).strip().splitlines()[-1] if str(error).strip() else repr(error)
            print(json.dumps(row), flush=True)


def measure(m, n, k, bits, level, arguments):
    """Checks and times one case."""
    random = numpy.random.default_rng([m, n, k])
    x = random.standard_normal((m, k), dtype=numpy.float32)
    w = random.standard_normal((n, k), dtype=numpy.float32)
    weights, rounded = stored(w, bits)

    session, nodes = open_session(model(m, n, k, bits, level, weights, 1), profiled=True)
    y = session.run(None, {"X": x})[0]
    shaders = ran_on_webgpu(session, nodes)
    expected = x.astype(numpy.float64) @ rounded.astype(numpy.float64).T
    error = float(numpy.abs(y - expected).max() / numpy.abs(expected).max())

    runs = [timed(session, x)]
    if not numpy.isfinite(error):
        raise ValueError("the result holds values that are not finite")
    repetitions = min(MOST_REPETITIONS, int(numpy.ceil(PASS / runs[0][0])))
    if repetitions > 1:
        session, _ = open_session(model(m, n, k, bits, level, weights, repetitions), profiled=False)
        timed(session, x)
        runs = []
    start = time.perf_counter()
    while len(runs) < arguments.passes or time.perf_counter() - start < arguments.seconds:
        if len(runs) >= 50 or (runs and time.perf_counter() - start > arguments.patience):
            break
        runs.append(timed(session, x))
    row = {
        "shaders": shaders,
        "error": error,
        "seconds": statistics.median(wall for wall, _ in runs) / repetitions,
        "cpu_seconds": statistics.fmean(cpu for _, cpu in runs) / repetitions if arguments.software else None,
    }
    # Level 4 allows it, but only some shaders round the activations.
    if "Quantize" in shaders:
        row |= {"activation": "int8", "activation_bits": 8}
    return row


def stored(w, bits):
    """The weights as constants of a model, and the values that they stand for."""
    if bits == 32:
        return [onnx.numpy_helper.from_array(numpy.ascontiguousarray(w.T), "W")], w
    n, k = w.shape
    if k % BLOCK:
        raise ValueError(f"K is not a multiple of {BLOCK}")
    # Blocks of 32 with a scale each; the value of largest magnitude becomes the least code. The zero is half the range.
    blocks = w.reshape(n, k // BLOCK, BLOCK)
    zero = 1 << (bits - 1)
    largest = numpy.take_along_axis(blocks, numpy.abs(blocks).argmax(-1, keepdims=True), -1)
    scales = largest / numpy.float32(-zero)
    codes = numpy.clip(numpy.rint(blocks / scales) + zero, 0, 2 * zero - 1).astype(numpy.uint8)
    rounded = ((codes.astype(numpy.float32) - zero) * scales).reshape(n, k)
    packed = codes if bits == 8 else codes[..., 0::2] | codes[..., 1::2] << 4
    return [
        onnx.numpy_helper.from_array(packed, "B"),
        onnx.numpy_helper.from_array(scales.reshape(-1), "S"),
    ], rounded


def model(m, n, k, bits, level, weights, repetitions):
    """X times the weights, so many times; the last product is the output."""

    def node(index):
        if bits == 32:
            return onnx.helper.make_node("MatMul", ["X", "W"], [f"Y{index}"])
        return onnx.helper.make_node(
            "MatMulNBits",
            ["X", "B", "S"],
            [f"Y{index}"],
            domain="com.microsoft",
            K=k,
            N=n,
            bits=bits,
            block_size=BLOCK,
            accuracy_level=level,
        )

    def value(name, shape):
        return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)

    graph = onnx.helper.make_graph(
        [node(index) for index in range(repetitions)],
        "product",
        [value("X", [m, k])],
        [value(f"Y{repetitions - 1}", [m, n])],
        weights,
    )
    domains = [onnx.helper.make_opsetid("", 21), onnx.helper.make_opsetid("com.microsoft", 1)]
    return onnx.helper.make_model(graph, opset_imports=domains, ir_version=10).SerializeToString()


def open_session(model, profiled):
    """A session on WebGPU alone: of one product, profiled, with the folder of its profile, or of several."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    options.log_severity_level = 3
    # The host's threads have nothing to do; waiting, they would count as CPU time.
    options.intra_op_num_threads = 1
    folder = None
    if profiled:
        folder = tempfile.TemporaryDirectory()
        options.enable_profiling = True
        options.profile_file_prefix = os.path.join(folder.name, "profile")
    else:
        # The same product several times is what the model says, not something to be simplified.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model, options, providers=[PROVIDER])
    if session.get_providers()[0] != PROVIDER:
        raise RuntimeError(f"onnxruntime took {session.get_providers()} instead of WebGPU")
    return session, folder


def ran_on_webgpu(session, folder):
    """Ends the profile and checks that every node ran on WebGPU; returns the shaders that did the work."""
    with open(session.end_profiling(), encoding="utf-8") as file:
        events = json.load(file)
    folder.cleanup()
    providers = [event["args"]["provider"] for event in events if event["cat"] == "Node" and "provider" in event["args"]]
    if not providers or set(providers) != {PROVIDER}:
        raise RuntimeError(f"the product ran on {sorted(set(providers)) or 'nothing'} instead of WebGPU")
    shaders = {event["name"].split("&")[-1] for event in events if event["cat"] == "Api"}
    return ", ".join(sorted(shaders))


def timed(session, x):
    """Seconds of one run: wall clock and CPU."""
    wall, cpu = time.perf_counter(), time.process_time()
    session.run(None, {"X": x})
    return time.perf_counter() - wall, time.process_time() - cpu


if __name__ == "__main__":
    sys.exit(main())
