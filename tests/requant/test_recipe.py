from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pytest
from requant.errors import InputError
from requant.recipe import Recipe

BAD = [
    ({"method": "magic"}, "method must be one of rtn, squeezellm, got 'magic'"),
    ({"bits": 5}, "bits must be one of 2, 3, 4 for squeezellm, got 5"),
    ({"bits": 3.0}, "bits must be an integer, got 3.0"),
    ({"bits": True}, "bits must be an integer, got True"),
    ({"outlier_percent": 150}, "outlier_percent must be a number from 0 to 100, got 150"),
    ({"outlier_percent": float("nan")}, "outlier_percent must be a number from 0 to 100, got nan"),
    ({"significant_percent": -1}, "significant_percent must be a number from 0 to 100, got -1"),
    ({"outlier_percent": 60, "significant_percent": 60}, "at most 100, got 120"),
    ({"method": "rtn", "group_size": 100}, "group_size must be -1 (a whole row) or a positive multiple of 32, got 100"),
    ({"group_size": 128}, "group_size must be -1 for squeezellm, which has a table per row, got 128"),
    ({"symmetric": True}, "symmetric must be false for squeezellm"),
    ({"outlier_exponents": ()}, "outlier_exponents must be one or more numbers from 0 to 10, got ()"),
    ({"outlier_exponents": 1}, "outlier_exponents must be a list, got 1"),
    ({"outlier_rule": "guess"}, "outlier_rule must be one of power_law, iqr, got 'guess'"),
    ({"quadrature": "simpson"}, "quadrature must be one of midpoint"),
    ({"quadrature": "linspace", "intervals": 1}, "intervals must be at least 2 with linspace, got 1"),
    ({"samples": 0}, "samples must be an integer of at least 1, got 0"),
    ({"sequence_length": 1}, "sequence_length must be an integer of at least 2, got 1"),
    ({"significant_steps": 0}, "significant_steps must be an integer of at least 1, got 0"),
    ({"seed": -1}, "seed must be an integer from 0"),
    ({"dtype": "int8"}, "dtype must be one of bfloat16, float16, float32, None, got 'int8'"),
    ({"values_dtype": "float32"}, "values_dtype must be one of float16, bfloat16, got 'float32'"),
    ({"skip": "lm_head"}, "skip must be a list, got 'lm_head'"),
]


@pytest.mark.parametrize(("fields", "message"), BAD)
def test_bad_field_is_one_clear_line(fields: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        Recipe(**fields)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_defaults_follow_the_method() -> None:
    squeezellm, rtn = Recipe(), Recipe(method="rtn")
    assert (squeezellm.outlier_percent, squeezellm.significant_percent, squeezellm.group_size) == (0.45, 0.05, -1)
    assert (rtn.outlier_percent, rtn.significant_percent, rtn.group_size) == (0, 0, 128)
    assert Recipe(outlier_percent=0, significant_percent=0).outlier_percent == 0


def test_dictionary_round_trip_through_json() -> None:
    recipe = Recipe(method="rtn", bits=8, group_size=64, outlier_exponents=(0, 1.5), skip=("*.gate",), dtype="float16")
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_unknown_field_is_named() -> None:
    with pytest.raises(InputError, match="unknown recipe field 'bit'"):
        Recipe.from_dict({"bit": 3})


def test_hash_depends_on_every_field_and_on_nothing_else() -> None:
    base = Recipe(method="rtn", outlier_percent=0.1)
    assert base.hash == Recipe.from_dict(base.to_dict()).hash
    others = {
        "method": "squeezellm", "bits": 4, "group_size": 64, "symmetric": True, "outlier_percent": 0.2,
        "outlier_rule": "iqr", "outlier_exponents": (1.0,), "outlier_limit": 5.0, "significant_percent": 0.3,
        "significant_steps": 3, "intervals": 5, "quadrature": "linspace", "samples": 7, "sequence_length": 9,
        "seed": 1, "dtype": "float16", "values_dtype": "bfloat16", "skip": ("x",), "head_bits": 8,
        "embedding_bits": 4,
    }  # fmt: skip
    assert set(others) == {field.name for field in dataclasses.fields(Recipe)}
    hashes = [Recipe.from_dict(base.to_dict() | {name: value} | ({"group_size": -1} if name == "method" else {})).hash
              for name, value in others.items()]  # fmt: skip
    assert len({base.hash, *hashes}) == len(others) + 1


def test_importing_the_package_loads_nothing_heavy() -> None:
    script = "import sys, requant; requant.Recipe; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
