"""A whole model through transformers: the CUDA kernels, in the simulator or on a device, agree with the CPU kernels."""

from pathlib import Path

import gpusim_backend
import pytest
import torch
from tiny_model import logits, make_model, quantize_quickly
from transformers import AutoModelForCausalLM

from requant_kernels import use_backend
from requant_kernels.checkpoint import save_checkpoint

# A few roundings of bf16: most activations are the same, and a few fall on the other side.
TOLERANCE = {"rtol": 2**-7, "atol": 2**-7}


@pytest.fixture(params=["uniform", "lut"])
def a_checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Quantized to 3 bits with 1 % sparse entries."""
    save_checkpoint(quantize_quickly(make_model(), format=request.param), None, tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.gpusim
def test_the_same_logits_on_the_cpu_and_in_the_simulator(a_checkpoint: Path) -> None:
    expected = logits(AutoModelForCausalLM.from_pretrained(a_checkpoint))
    backend = gpusim_backend.register()
    extension = gpusim_backend.extension()
    with use_backend(backend.name):
        model = AutoModelForCausalLM.from_pretrained(a_checkpoint)
        extension.clear_launches()
        simulated = logits(model)
    assert sum("linear_kernel" in launch.kernel for launch in extension.launches()) >= 14  # 2 layers of 7 projections
    torch.testing.assert_close(simulated, expected, **TOLERANCE)


@pytest.mark.gpu
def test_the_same_logits_on_the_cpu_and_on_a_device(a_checkpoint: Path) -> None:
    expected = logits(AutoModelForCausalLM.from_pretrained(a_checkpoint))
    model = AutoModelForCausalLM.from_pretrained(a_checkpoint).cuda()
    tokens = torch.randint(300, (2, 9), generator=torch.Generator().manual_seed(0)).cuda()
    with torch.no_grad():
        torch.testing.assert_close(model(tokens).logits.cpu(), expected, **TOLERANCE)
