import importlib.metadata
import json

import torch

import requant_kernels
from requant_kernels import env
from requant_kernels.backends import cuda


def test_the_report_is_json_and_names_every_backend():
    report = json.loads(json.dumps(env.report()))
    assert set(report["backends"]) >= {"cpu", "reference", "cuda", "triton"}
    assert report["backends"]["reference"] == "live"
    assert report["backends"]["cuda"]
    assert report["versions"]["torch"].startswith("2.")
    assert report["cpu"]["threads"] >= 1
    assert report["cpu"]["instruction_set"] in ("scalar", "avx2", "avx512", "avx512bf16", "amx")


def test_an_absent_package_is_reported_as_such():
    assert env._version("no-such-package-of-this-name") == "not installed"


def test_the_version_is_that_of_the_installed_distribution():
    assert requant_kernels.__version__ == importlib.metadata.version("requant-kernels")


def test_the_installed_package_has_its_cpu_kernels():
    """Without this, a broken build would let every other test pass on the reference kernels."""
    assert env.report()["backends"]["cpu"] == "live"
    assert env.report()["serving"]["cpu"] == "cpu"


def test_the_report_says_why_there_are_no_cuda_kernels():
    """Either they are live, or one of these reasons holds."""
    reason = env.report()["backends"]["cuda"]
    if not cuda.architectures():
        assert reason.startswith("the extension requant_kernels._cuda is missing (")
        assert len(reason) > len("the extension requant_kernels._cuda is missing ()")
    elif torch.cuda.device_count() == 0:
        assert reason == "torch sees no NVIDIA GPU"
    else:
        assert reason == "live"
