"""CPU kernels over raw addresses (0: absent). Dtypes: 0 fp32, 1 fp16, 2 bf16. See csrc/bindings/cpu.cpp."""

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
def linear(
    instruction_set: int,
    weight: Weight,
    x: int,
    x_dtype: int,
    tokens: int,
    bias: int,
    bias_dtype: int,
    y: int,
    threads: int,
    prefill: bool,
    int8_activations: bool,
    /,
) -> None: ...
def dequantize(
    instruction_set: int,
    weight: Weight,
    row_begin: int,
    row_end: int,
    w: int,
    w_dtype: int,
    threads: int,
    /,
) -> None: ...
def embedding(
    instruction_set: int,
    weight: Weight,
    indices: int,
    tokens: int,
    y: int,
    y_dtype: int,
    threads: int,
    /,
) -> None: ...
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
def trellis_linear(
    instruction_set: int,
    weight: Weight,
    x: int,
    x_dtype: int,
    tokens: int,
    bias: int,
    bias_dtype: int,
    y: int,
    threads: int,
    /,
) -> None: ...
def trellis_decode_rotated(
    instruction_set: int, weight: Weight, row_begin: int, row_end: int, w: int, w_dtype: int, threads: int, /
) -> None: ...
def viterbi(
    instruction_set: int,
    targets: int,
    sequences: int,
    values: int,
    step_bits: int,
    values_per_step: int,
    states: int,
    threads: int,
    /,
) -> None: ...
def instruction_sets() -> list[str]: ...
def sparse_index_bytes(out_features: int, in_features: int, entries: int, /) -> int: ...
def build_sparse_index(
    row_offsets: int,
    columns: int,
    short_columns: bool,
    values: int,
    out_features: int,
    in_features: int,
    entries: int,
    index: int,
    /,
) -> None: ...
