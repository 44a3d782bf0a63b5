"""`requant verify`: is this checkpoint exactly what was written?"""

from __future__ import annotations

from requant.cli.options import Json, QuantizedModel


def verify(model: QuantizedModel, json: Json = None) -> None:
    """Check structure, every tensor's checksum and the content of every quantized layer."""
    from requant.cli.session import check_json_target, emit
    from requant.models import check_source
    from requant_kernels.checkpoint import verify as verify_checkpoint

    check_json_target(json)
    checkpoint = verify_checkpoint(check_source(model))
    result = {
        "model": model,
        "layers": len(checkpoint.config.modules),
        "tensors": len(checkpoint.tensors),
        "tensor_bytes": checkpoint.tensor_bytes,
    }
    emit(
        result,
        json,
        lambda: (
            f"{model}: intact. {result['layers']} quantized layers, {result['tensors']} tensors, "
            f"{checkpoint.tensor_bytes / 2**20:.1f} MiB, every checksum agrees."
        ),
    )
