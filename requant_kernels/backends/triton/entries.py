"""The sparse part in Triton: entries of the index of `requant_kernels.backends.sparse_tiles`.

Triton cannot write to a single place of a tile in registers. So entries reach a tile through a small matrix product:
a matrix of one column per entry has its value in the entry's row and zeros elsewhere.

    left [16, ENTRIES]            right [ENTRIES, TOKENS]              left [16, ENTRIES] x right [ENTRIES, 256]
      0  v1   0   0                 x of entry 0's input                 as before          1 in the entry's input
      0   0  v2   0                 x of entry 1's input
     v0   0   0  v3                 ...
     `add_products`: S x of a stretch of inputs, to the accumulator    `entry_tile`: S itself, to a tile of D
"""

import triton
import triton.language as tl

TILE_ROWS = tl.constexpr(16)
SLICE_INPUTS = tl.constexpr(256)
ENTRY_INPUTS = tl.constexpr(4096)


@triton.jit
def entry_values(entries, BFLOAT: tl.constexpr):
    """The values of entries, fp32."""
    if BFLOAT:
        return (entries & -65536).to(tl.float32, bitcast=True)
    else:
        return (entries >> 16).to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)


@triton.jit
def entries_in_rows(entries, BFLOAT: tl.constexpr):
    """Entries [TILES, ENTRIES] as `left` of the picture: fp32 [TILES, 16, ENTRIES]."""
    rows = tl.arange(0, TILE_ROWS)[None, :, None]
    return tl.where((entries >> 12 & 15)[:, None, :] == rows, entry_values(entries, BFLOAT)[:, None, :], 0.0)


@triton.jit
def add_products(
    index,
    x,
    tile,
    tiles,
    first,
    end,
    token,
    tokens,
    in_features,
    BFLOAT: tl.constexpr,
    ENTRIES: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """S x of tiles of 16 rows (int32 `tile` [TILES], `tiles` in all), inputs first ..< end and tokens `token` (int32
    [TOKENS], below `tokens`): fp32 [TILES, 16, TOKENS]. `first` is a multiple of 256, `end` too or in_features.
    """
    slices = tl.cdiv(in_features, SLICE_INPUTS)
    entries = index + (tiles * slices + 1)
    product = tl.zeros((tile.shape[0], TILE_ROWS, token.shape[0]), tl.float32)
    # An entry knows its input only within a stretch of ENTRY_INPUTS.
    for stretch in range(first // ENTRY_INPUTS * ENTRY_INPUTS, end, ENTRY_INPUTS):
        slice = tile * slices + tl.maximum(first, stretch) // SLICE_INPUTS
        stop_slice = tile * slices + tl.cdiv(tl.minimum(end, stretch + ENTRY_INPUTS), SLICE_INPUTS)
        start = tl.load(index + slice, mask=tile < tiles, other=0)
        stop = tl.load(index + stop_slice, mask=tile < tiles, other=0)
        for done in range(0, tl.max(stop - start), ENTRIES):
            number = start[:, None] + done + tl.arange(0, ENTRIES)[None, :]
            present = number < stop[:, None]
            some = tl.load(entries + number, mask=present, other=0)
            input = stretch + (some & ENTRY_INPUTS - 1)
            offset = token[None, None, :].to(tl.int64) * in_features + input[:, :, None]
            right = tl.load(x + offset, mask=present[:, :, None] & (token < tokens)[None, None, :], other=0.0)
            left = entries_in_rows(some, BFLOAT).to(right.dtype)
            product = tl.dot(left, right, product, input_precision=PRECISION)
    return product


@triton.jit
def entry_tile(
    index, tile, tiles, first, in_features, BFLOAT: tl.constexpr, ENTRIES: tl.constexpr, DTYPE: tl.constexpr
):
    """S of the 16 rows of `tile` and the slice of inputs that begins at `first`: fp32 [16, 256]. DTYPE is one in which
    the values are exact.
    """
    slices = tl.cdiv(in_features, SLICE_INPUTS)
    entries = index + (tiles * slices + 1)
    slice = tile * slices + first // SLICE_INPUTS
    stop = tl.load(index + slice + 1)
    dense = tl.zeros((TILE_ROWS, SLICE_INPUTS), tl.float32)
    for start in range(tl.load(index + slice), stop, ENTRIES):
        number = start + tl.arange(0, ENTRIES)
        some = tl.load(entries + number, mask=number < stop, other=0)
        left = tl.reshape(entries_in_rows(some[None, :], BFLOAT), [TILE_ROWS, ENTRIES]).to(DTYPE)
        right = ((some & SLICE_INPUTS - 1)[:, None] == tl.arange(0, SLICE_INPUTS)[None, :]).to(DTYPE)
        dense = tl.dot(left, right, dense, input_precision="ieee")
    return dense
