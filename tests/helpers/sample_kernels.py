"""The kernels of tests/gpusim/sample_kernels.cu with fresh operands: each launches itself and compares its results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from operands import bfloat16_to_float, float_to_bfloat16
from simulated_gpu import SimulatedGpu, Uninitialised, device_array, read_only


def look_up(gpu: SimulatedGpu, rng: np.random.Generator) -> Any:
    rows, inputs = 10, 1304
    codes = rng.integers(0, 16, (rows, inputs))
    tables, x = rng.standard_normal((rows, 16)).astype("f2"), rng.standard_normal(inputs).astype("f2")
    packed = (codes.reshape(rows, -1, 8) << 4 * np.arange(8)).sum(2).astype("u4")
    y = device_array(rows, "f4")
    arguments = [*map(read_only, (packed, tables, x)), Uninitialised(y), rows, inputs]
    report = gpu.launch("look_up", 3, 128, arguments)
    weight = np.take_along_axis(tables.astype("f8"), codes, 1)
    np.testing.assert_allclose(y, weight @ x.astype("f8"), rtol=1e-5, atol=1e-4)
    return report


def scaled(gpu: SimulatedGpu, rng: np.random.Generator) -> Any:
    rows, inputs = 9, 4000
    codes = rng.integers(0, 16, (rows, inputs))
    scale, x = rng.random(rows).astype("f2"), rng.standard_normal(inputs).astype("f2")
    shifts = 4 * (np.arange(8) // 2) + 16 * (np.arange(8) % 2)
    packed = (codes.reshape(rows, -1, 8) << shifts).sum(2).astype("u4")
    y = device_array(rows, "f4")
    report = gpu.launch("scaled", [3, 3], 128, [*map(read_only, (packed, scale, x)), y, rows, inputs])
    # The pairs are summed in half.
    exact = ((codes - 8) * scale.astype("f8")[:, None]) @ x.astype("f8")
    np.testing.assert_allclose(y, exact, atol=1.5)
    return report


def multiply(gpu: SimulatedGpu, rng: np.random.Generator) -> Any:
    columns, depth = 64, 176
    a, b = (rng.standard_normal((rows, depth)).astype("f2") for rows in (16, columns))
    c = device_array((16, columns), "f4")
    report = gpu.launch("multiply", columns // 32, 128, [read_only(a), read_only(b), Uninitialised(c), columns, depth])
    np.testing.assert_allclose(c, a.astype("f8") @ b.astype("f8").T, rtol=1e-5, atol=1e-4)
    return report


def sparse(gpu: SimulatedGpu, rng: np.random.Generator) -> Any:
    rows, inputs = 14, 300
    dense = rng.standard_normal((rows, inputs)) * (rng.random((rows, inputs)) < 0.1)
    dense[3], dense[5] = 0, rng.standard_normal(inputs)
    bits = float_to_bfloat16(dense.astype("f4"))
    x = float_to_bfloat16(rng.standard_normal(inputs).astype("f4"))
    row_offsets = np.append(0, np.cumsum((bits != 0).sum(1))).astype("i4")
    columns = np.nonzero(bits)[1].astype("i4")
    y = device_array(rows, "f4")
    arguments = [*map(read_only, (row_offsets, columns, bits[bits != 0], x)), Uninitialised(y), rows]
    report = gpu.launch("sparse", 4, 128, arguments)
    exact = bfloat16_to_float(bits).astype("f8") @ bfloat16_to_float(x).astype("f8")
    np.testing.assert_allclose(y, exact, rtol=1e-5, atol=1e-4)
    return report


KERNELS: dict[str, Callable[[SimulatedGpu, np.random.Generator], Any]] = {
    function.__name__: function for function in (look_up, scaled, multiply, sparse)
}
