"""What importing arith costs: no Numba where no kernel is needed, and nothing compiled."""

import subprocess
import sys


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_formats_split_gating_and_post_do_without_numba() -> None:
    modules = "pgsim.arith.formats, pgsim.arith.split, pgsim.arith.gating, pgsim.arith.post, pgsim.workload.layer"
    assert run(f"import sys, {modules}; print('numba' in sys.modules)") == "False"


def test_importing_the_kernels_compiles_nothing() -> None:
    code = (
        "from numba.core.dispatcher import Dispatcher\n"
        "from pgsim.arith import fast, levels, overflow, reference, sddmm\n"
        "found = [thing for module in (fast, levels, overflow, reference, sddmm) for thing in vars(module).values()]\n"
        "kernels = [thing for thing in found if isinstance(thing, Dispatcher)]\n"
        "print(len(kernels), sum(len(kernel.signatures) for kernel in kernels))"
    )
    assert run(code) == "5 0"


def test_kernels_compile_once_whatever_the_arrays_layout() -> None:
    code = """
import numpy as np
from pgsim.arith import fast, levels, overflow, post, reference, sddmm
from pgsim.arith.formats import Encoding, GatePolicy
from pgsim.workload.layer import Geometry, LayerKind

geometry = Geometry(LayerKind.CONV, 4, 4, 1, 1)
for dtype in (np.int16, np.int64):
    for writable in (True, False):
        for order in ("C", "F"):
            x, w = np.ones((2, 4, 1, 1), dtype, order=order), np.ones((4, 4, 1, 1), dtype, order=order)
            t = np.full(8, -1)[:: 1 if order == "C" else 2][:4]
            v, line = np.ones((2, 4, 1, 1), np.int64, order=order), np.ones((4, 1), np.int64, order=order)
            for array in (x, w, t, v, line):
                array.flags.writeable = writable
            layer = (x, w, geometry, Encoding.UNSIGNED, 3, 2, t, GatePolicy.KEEP)
            fast.gated_layer(*layer), reference.gated_layer(*layer), reference.dense_layer(*layer[:3])
            overflow.gated_layer(*layer, overflow.Accumulator(2, 1, overflow.Overflow.WRAP), "layer")
            post.requantise(v, line, np.ones(4, np.int8)), post.requantise(v, line[:1], np.ones(1, np.int8))
kernels = (sddmm._kernel, reference.gated_loops, reference.dense_loops, overflow.walk_loops, levels.count_reached)
print([len(kernel.signatures) for kernel in kernels])
"""
    assert run(code) == "[1, 1, 1, 1, 1]"
