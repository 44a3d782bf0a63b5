"""onnxruntime's MatMulNBits: 2 and 4 bits, activations as they are (accuracy level 0) or in int8 (level 4).

Inputs and outputs are fp32, which is what its CPU kernels are made for.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy
import onnxruntime
import torch
from contender import Contender, Kind
from onnx import TensorProto, helper, numpy_helper
from rotation import Call
from torch import Tensor

GROUP_SIZE = 128
ACTIVATIONS = {0: "", 4: ", int8 activations"}
_OPSET, _INTERNAL_REPRESENTATION = 21, 10


class MatMulNBits:
    """A session with one node; a copy is another session, on the same threads."""

    def __init__(self, out_features: int, in_features: int, bits: int, accuracy_level: int) -> None:
        self._out_features = out_features
        groups = in_features // GROUP_SIZE
        random = numpy.random.default_rng()
        codes = random.integers(0, 256, (out_features, groups, GROUP_SIZE * bits // 8), dtype=numpy.uint8)
        scales = random.random((out_features, groups), dtype=numpy.float32) / 100
        self.weight_bytes = codes.nbytes + scales.nbytes
        node = helper.make_node(
            "MatMulNBits",
            ["x", "codes", "scales"],
            ["y"],
            domain="com.microsoft",
            K=in_features,
            N=out_features,
            bits=bits,
            block_size=GROUP_SIZE,
            accuracy_level=accuracy_level,
        )
        graph = helper.make_graph(
            [node],
            "linear",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["tokens", in_features])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["tokens", out_features])],
            [numpy_helper.from_array(codes, "codes"), numpy_helper.from_array(scales, "scales")],
        )
        versions = [helper.make_opsetid("", _OPSET), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=versions)
        model.ir_version = _INTERNAL_REPRESENTATION
        self._open(model.SerializeToString())

    def _open(self, model: bytes) -> None:
        _share_threads(torch.get_num_threads())
        options = onnxruntime.SessionOptions()
        options.use_per_session_threads = False
        options.log_severity_level = 3
        self._model = model
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def __deepcopy__(self, memo: dict[int, object]) -> MatMulNBits:
        other = object.__new__(type(self))
        other._out_features, other.weight_bytes = self._out_features, self.weight_bytes
        other._open(self._model)
        return other

    def bind(self, x: Tensor) -> Call:
        """x and y in memory that onnxruntime uses in place."""
        binding = self._session.io_binding()
        binding.bind_ortvalue_input("x", onnxruntime.OrtValue.ortvalue_from_numpy(x.float().numpy()))
        output = onnxruntime.OrtValue.ortvalue_from_shape_and_type((x.shape[0], self._out_features), numpy.float32)
        binding.bind_ortvalue_output("y", output)
        return functools.partial(self._session.run_with_iobinding, binding)


@functools.cache
def _share_threads(threads: int) -> None:
    """One pool for all sessions: hundreds of pools would keep each other awake."""
    onnxruntime.set_global_thread_pool_sizes(threads, 1)


def contenders() -> Iterator[Contender]:
    """2 and 4 bits, a scale per 128 inputs."""
    for bits in (2, 4):
        for accuracy_level, activations in ACTIVATIONS.items():
            make = functools.partial(MatMulNBits, bits=bits, accuracy_level=accuracy_level)
            name = f"onnxruntime {bits} bit{activations}"
            yield Contender(name, Kind.PEER, bits, make, GROUP_SIZE, pool="onnxruntime")
