"""CUDA kernels over raw device addresses (0: absent). Dtypes: 0 fp32, 1 fp16, 2 bf16. See csrc/bindings/cuda.cpp.

`stream` is a cudaStream_t as a number, `capability` 10 * major + minor of the device's compute capability.
"""

MAX_TOKENS: int

class Weight:
    """W = D + S at borrowed addresses."""

def uniform_weight(
    codes: int,
    scale: int,
    zero: int,
    scale_dtype: int,
    sparse_index: int,
    sparse_value_dtype: int,
    out_features: int,
    in_features: int,
    bits: int,
    group_size: int,
    /,
) -> Weight: ...
def lut_weight(
    codes: int,
    table: int,
    scale: int,
    table_dtype: int,
    scale_dtype: int,
    shared_table: bool,
    sparse_index: int,
    sparse_value_dtype: int,
    out_features: int,
    in_features: int,
    bits: int,
    group_size: int,
    /,
) -> Weight: ...
def trellis_weight(
    codes: int,
    scale: int,
    scale_dtype: int,
    input_signs: int,
    output_signs: int,
    codebook: int,
    sparse_index: int,
    sparse_value_dtype: int,
    out_features: int,
    in_features: int,
    bits: int,
    code: int,
    /,
) -> Weight: ...
def workspace_bytes(weight: Weight, tokens: int, stream: int, multiprocessors: int, capability: int, /) -> int: ...
def linear(
    weight: Weight,
    x: int,
    x_dtype: int,
    tokens: int,
    bias: int,
    bias_dtype: int,
    y: int,
    workspace: int,
    stream: int,
    multiprocessors: int,
    capability: int,
    /,
) -> None: ...
def dequantize(
    weight: Weight,
    row_begin: int,
    row_end: int,
    w: int,
    w_dtype: int,
    stream: int,
    multiprocessors: int,
    capability: int,
    /,
) -> None: ...
def trellis_rotate_inputs(
    weight: Weight,
    x: int,
    x_dtype: int,
    tokens: int,
    rotated: int,
    token_factors: int,
    stream: int,
    multiprocessors: int,
    capability: int,
    /,
) -> None: ...
def trellis_sparse_products(
    weight: Weight,
    x_transposed: int,
    x_dtype: int,
    tokens: int,
    token_stride: int,
    sums: int,
    stream: int,
    multiprocessors: int,
    capability: int,
    /,
) -> None: ...
def trellis_finish_outputs(
    weight: Weight,
    products: int,
    token_factors: int,
    sparse_sums: int,
    tokens: int,
    bias: int,
    bias_dtype: int,
    y: int,
    y_dtype: int,
    stream: int,
    multiprocessors: int,
    capability: int,
    /,
) -> None: ...
def architectures() -> str: ...
