"""The Triton kernels. One serves every format and any number of tokens; what differs are constants and tile sizes.

    linear       partial or whole products of a stretch of inputs, dense and sparse
    add_up       the sum of partial products in a fixed order, with the bias
    dequantize   rows of W = D + S
    hadamard     the rotations of format trellis

Sizes and strides are run-time arguments, so no number of tokens and no shape compiles anything anew.
"""

import triton
import triton.language as tl

from requant_kernels.backends.triton.codes import dense_tile
from requant_kernels.backends.triton.entries import SLICE_INPUTS, TILE_ROWS, add_products, entry_tile


# Arguments named in do_not_specialize would else have kernels of their own when they are 1 or multiples of 16.
@triton.jit(do_not_specialize=("tokens", "slices"))
def linear(
    x,
    rotated,
    codes,
    scale,
    zero,
    table,
    sparse_index,
    bias,
    y,
    tokens,
    slices,
    out_features,
    in_features,
    dense_out,
    dense_in,
    FORMAT: tl.constexpr,
    BITS: tl.constexpr,
    GROUP: tl.constexpr,
    CODE: tl.constexpr,
    BFLOAT_VALUES: tl.constexpr,
    WHOLE: tl.constexpr,
    ROWS: tl.constexpr,
    INPUTS: tl.constexpr,
    TOKENS: tl.constexpr,
    ENTRIES: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Program (r, s, t): ROWS rows, the s-th `slices` slices of 256 inputs, TOKENS tokens. x is [tokens, in_features].

    WHOLE: one split, y [tokens, out_features] of any dtype, bias added. Else y is fp32 [splits, tokens, dense_out].
    Format trellis: the dense part multiplies `rotated` [tokens, dense_in], its sizes are dense_out and dense_in, and
    the sparse part, whose basis is another one, fills a further `splits` of partial products. Other formats have
    rotated = x and dense sizes equal to the logical ones.
    """
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    split = tl.program_id(1)
    splits = tl.num_programs(1)
    token = tl.program_id(2) * TOKENS + tl.arange(0, TOKENS)
    first = split * slices * SLICE_INPUTS
    end = first + slices * SLICE_INPUTS
    place = (split * tokens + token).to(tl.int64)[None, :] * dense_out + rows[:, None]
    inside = (token < tokens)[None, :] & (rows < dense_out)[:, None]
    sums = tl.zeros((ROWS, TOKENS), tl.float32)
    if sparse_index is not None:
        tile = tl.program_id(0) * (ROWS // TILE_ROWS) + tl.arange(0, ROWS // TILE_ROWS)
        sparse = add_products(
            sparse_index,
            x,
            tile,
            tl.cdiv(out_features, TILE_ROWS),
            first,
            tl.minimum(end, in_features),
            token,
            tokens,
            in_features,
            BFLOAT_VALUES,
            ENTRIES,
            PRECISION,
        )
        sums = tl.reshape(sparse, [ROWS, TOKENS])
        if FORMAT == "trellis":
            further = splits.to(tl.int64) * tokens * dense_out
            tl.store(y + further + place, sums, mask=inside)
            sums = tl.zeros((ROWS, TOKENS), tl.float32)
    for begin in range(first, tl.minimum(end, dense_in), INPUTS):
        input = begin + tl.arange(0, INPUTS)
        there = (input < dense_in)[:, None] & (token < tokens)[None, :]
        activations = tl.load(rotated + token.to(tl.int64)[None, :] * dense_in + input[:, None], mask=there, other=0.0)
        weights = dense_tile(
            codes, scale, zero, table, rows, begin, dense_out, dense_in, FORMAT, BITS, GROUP, CODE, INPUTS
        )
        sums = tl.dot(weights.to(activations.dtype), activations, sums, input_precision=PRECISION)
    if FORMAT == "trellis":
        sums *= tl.load(scale + rows, mask=rows < dense_out, other=0.0).to(tl.float32)[:, None]
    if WHOLE and bias is not None:
        sums += tl.load(bias + rows, mask=rows < dense_out, other=0.0).to(tl.float32)[:, None]
    tl.store(y + place, sums, mask=inside)


@triton.jit(do_not_specialize=("splits",))
def add_up(partial, bias, y, size, out_features, splits, BLOCK: tl.constexpr):
    """y [tokens, out_features], `size` values in all, from fp32 [splits, tokens, out_features] and the bias."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    sums = tl.zeros((BLOCK,), tl.float32)
    source = partial + place
    for _ in range(splits):
        sums += tl.load(source, mask=place < size, other=0.0)
        source += size
    if bias is not None:
        sums += tl.load(bias + place % out_features, mask=place < size, other=0.0).to(tl.float32)
    tl.store(y + place, sums, mask=place < size)


@triton.jit(do_not_specialize=("row_begin", "row_end"))
def dequantize(
    codes,
    scale,
    zero,
    table,
    sparse_index,
    w,
    row_begin,
    row_end,
    out_features,
    in_features,
    FORMAT: tl.constexpr,
    BITS: tl.constexpr,
    GROUP: tl.constexpr,
    CODE: tl.constexpr,
    BFLOAT_VALUES: tl.constexpr,
    ENTRIES: tl.constexpr,
    ENTRY_DTYPE: tl.constexpr,
):
    """Program (r, s): 16 rows and slice s of 256 inputs of rows row_begin ..< row_end of W, of format trellis those of
    diag(scale) C: w [row_end - row_begin, in_features]. row_begin is a multiple of 16.
    """
    rows = row_begin + tl.program_id(0) * TILE_ROWS + tl.arange(0, TILE_ROWS)
    first = tl.program_id(1) * SLICE_INPUTS
    weights = dense_tile(
        codes,
        scale,
        zero,
        table,
        rows,
        first,
        out_features,
        in_features,
        FORMAT,
        BITS,
        GROUP,
        CODE,
        SLICE_INPUTS,
    )
    if FORMAT == "trellis":
        weights *= tl.load(scale + rows, mask=rows < out_features, other=0.0).to(tl.float32)[:, None]
    if sparse_index is not None:
        tile = row_begin // TILE_ROWS + tl.program_id(0)
        tiles = tl.cdiv(out_features, TILE_ROWS)
        weights += entry_tile(sparse_index, tile, tiles, first, in_features, BFLOAT_VALUES, ENTRIES, ENTRY_DTYPE)
    input = first + tl.arange(0, SLICE_INPUTS)
    offset = (rows - row_begin).to(tl.int64)[:, None] * in_features + input[None, :]
    tl.store(w + offset, weights, mask=(rows < row_end)[:, None] & (input < in_features)[None, :])


@triton.jit
def walsh_hadamard(values, STEPS: tl.constexpr):
    """Sylvester's transform of 2^STEPS values, not scaled. Each step combines the values whose places differ in the
    last bit and moves that bit to the front, so that after all steps every value is back in its place.
    """
    SIZE: tl.constexpr = 1 << STEPS
    for _ in tl.static_range(STEPS):
        even, odd = tl.split(tl.reshape(values, [SIZE // 2, 2]))
        values = tl.reshape(tl.permute(tl.join(even + odd, even - odd), (1, 0)), [SIZE])
    return values


@triton.jit(do_not_specialize=("splits", "sparse_splits", "split_stride"))
def hadamard(
    source,
    sparse,
    signs,
    bias,
    y,
    splits,
    sparse_splits,
    split_stride,
    source_features,
    y_features,
    OUTPUT: tl.constexpr,
    STEPS: tl.constexpr,
):
    """Program (t, p): part p, 2^STEPS columns, of token t.

    Inputs: y = H (signs * source), source [tokens, source_features], y [tokens, y_features] padded.
    OUTPUT: y = signs * H (sum of source) + sum of sparse + bias, source and sparse fp32 [splits, tokens,
    source_features padded] whose splits are split_stride apart, y [tokens, y_features].
    """
    SIZE: tl.constexpr = 1 << STEPS
    column = tl.program_id(1) * SIZE + tl.arange(0, SIZE)
    token = tl.program_id(0).to(tl.int64)
    source += token * source_features + column
    there = column < source_features
    if OUTPUT:
        values = tl.zeros((SIZE,), tl.float32)
        for _ in range(splits):
            values += tl.load(source)
            source += split_stride
    else:
        values = tl.load(source, mask=there, other=0.0).to(tl.float32)
        values *= tl.load(signs + column, mask=there, other=0).to(tl.float32)
    values = walsh_hadamard(values, STEPS) * (SIZE**-0.5)
    there = column < y_features
    if OUTPUT:
        values *= tl.load(signs + column, mask=there, other=0).to(tl.float32)
        sparse += token * source_features + column
        for _ in range(sparse_splits):
            values += tl.load(sparse)
            sparse += split_stride
        if bias is not None:
            values += tl.load(bias + column, mask=there, other=0.0).to(tl.float32)
    tl.store(y + token * y_features + column, values, mask=there)
