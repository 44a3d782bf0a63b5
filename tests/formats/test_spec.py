import dataclasses
import json

import pytest
import torch
from torch import nn

from requant_kernels import DenseSparseLinear, LayerSpec

LAYERS = {
    "uniform": {"format": "uniform", "bits": 3},
    "symmetric": {"format": "uniform", "bits": 4, "symmetric": True, "sparse_percent": 0},
    "rows": {"format": "lut", "bits": 3},
    "shared": {"format": "lut", "bits": 4, "table": "nf4"},
    "trellis": {"format": "trellis", "bits": 2},
    "hyb": {"format": "trellis", "bits": 3, "code": "hyb", "sparse_percent": 0},
}


@pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS.keys())
@pytest.mark.parametrize("bias", [True, False])
def test_a_spec_survives_json_and_foretells_every_tensor(options, bias):
    layer = DenseSparseLinear.from_linear(nn.Linear(100, 50, bias=bias), **options)
    spec = LayerSpec.from_dict(json.loads(json.dumps(layer.spec.to_dict())), "layer")
    assert spec == layer.spec
    state = layer.state_dict()
    state.pop("bias", None)
    assert {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in state.items()} == spec.tensors()


GOOD = {
    "format": "lut",
    "bits": 3,
    "group_size": -1,
    "symmetric": False,
    "table": "row",
    "shape": [50, 100],
    "nnz": 9,
    "outliers": 4,
    "significant": 5,
    "scale_dtype": None,
    "table_dtype": "bfloat16",
    "values_dtype": "float16",
    "columns_dtype": "uint16",
    "bias": False,
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": 1}, "unknown field colour"),
        ({"bits": 5}, "bits must be one of 2, 3, 4, got 5"),
        ({"format": "ternary"}, "format must be one of uniform, lut, trellis, got ternary"),
        ({"group_size": 100}, "group_size must be -1 or a positive multiple of 32"),
        ({"shape": [50]}, "shape must be two positive integers"),
        ({"shape": [50, -100]}, "shape must be two positive integers"),
        ({"shape": 7}, "'int' object is not iterable"),
        ({"nnz": -1}, "must be counts that fit the shape"),
        ({"nnz": 10**9}, "must be counts that fit the shape"),
        ({"outliers": 5}, "outliers .* must not exceed nnz"),
        ({"table": None}, "table must be one of row, shared, got None"),
        ({"table_dtype": "float64"}, "table_dtype must be one of"),
        ({"values_dtype": None}, "values_dtype must be one of float16, bfloat16, got None"),
        ({"columns_dtype": "int32"}, "columns_dtype must be one of uint16, got int32"),
        ({"symmetric": True}, "symmetric must be one of False, got True"),
        ({"code": "1mad"}, "code must be one of None, got 1mad"),
        ({"format": "trellis"}, "code must be one of 1mad, 3inst, hyb, got None"),
        ({"bias": "yes"}, "bias must be one of True, False, got yes"),
        ({"activations": "int4"}, "activations must be one of 16bit, int8, got int4"),
    ],
)
def test_impossible_entries_are_refused_by_name(changes, message):
    LayerSpec.from_dict(GOOD, "model.layers.0")
    with pytest.raises(ValueError, match=f"^model.layers.0: .*{message}"):
        LayerSpec.from_dict(GOOD | changes, "model.layers.0")


LATER_FIELDS = ("code", "activations")


@pytest.mark.parametrize(
    "name", [field.name for field in dataclasses.fields(LayerSpec) if field.name not in LATER_FIELDS]
)
def test_every_field_is_required_but_those_that_came_later(name):
    with pytest.raises(ValueError, match=f"missing field {name}"):
        LayerSpec.from_dict({key: value for key, value in GOOD.items() if key != name}, "x")


def test_dtypes_are_torch_names():
    assert LayerSpec.from_dict(GOOD, "x").tensors()["table"][1] is torch.bfloat16
