"""What packed bits mean, in Triton: tiles of D, decoded in registers. Shared by all kernels.

`dense_tile` returns weights [ROWS, INPUTS] in fp32, in their natural order, for rows that the caller names and for
consecutive inputs. A thread decodes what it holds: nothing here moves data between threads, so the compiler may load
the codes in the layout in which a matrix instruction wants the weights.

A number becomes a float without a conversion, which would run at a quarter of the rate: placed at bit 16 of the word
0x43000000, the code c is the float 128 + c.
"""

import triton
import triton.language as tl


@triton.jit
def tile_rows(rows, words_per_tile):
    """(first word of the row's tile, int64; row within the tile) of packed tiles of 16 rows."""
    return (rows // 16).to(tl.int64) * words_per_tile, rows % 16


@triton.jit
def shift_left(words, AMOUNT: tl.constexpr):
    """Left by a positive amount, right by a negative one."""
    if AMOUNT < 0:
        return words >> -AMOUNT
    else:
        return words << AMOUNT


@triton.jit
def spread(
    words, base, STEPS: tl.constexpr, FIELD: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr, MASK: tl.constexpr
):
    """Fields of words [ROWS, UNITS, 4] in the order of inputs, [ROWS, UNITS, STEPS, 4, 2], with the bits of `base` set.
    Step j takes the bits FIELD * j above those of step 0; LOW and HIGH say how far the halves' first fields move left.
    """
    step = (tl.arange(0, STEPS) * FIELD)[None, None, :, None]
    low = (shift_left(words, LOW)[:, :, None, :] >> step) & MASK | base
    high = (shift_left(words, HIGH)[:, :, None, :] >> step) & MASK | base
    return tl.join(low, high)


@triton.jit
def placed_codes(
    codes,
    base_word,
    rows,
    first,
    out_features,
    in_features,
    BITS: tl.constexpr,
    POSITION: tl.constexpr,
    INPUTS: tl.constexpr,
):
    """Codes of layout tile16, each shifted left by POSITION, with the bits of `base_word` set: int32 [ROWS, INPUTS].
    `first` is a multiple of 64; codes outside the weight are 0.
    """
    FIELD: tl.constexpr = 2 if BITS == 3 else BITS
    UNIT_INPUTS: tl.constexpr = 128 // FIELD
    UNIT_STRIDE: tl.constexpr = 96 if BITS == 3 else 64
    STEPS: tl.constexpr = 16 // FIELD
    base, row = tile_rows(rows, tl.cdiv(in_features, 64) * (32 * BITS))
    unit = first // UNIT_INPUTS + tl.arange(0, INPUTS // UNIT_INPUTS)
    inside = (rows < out_features)[:, None, None] & (unit * UNIT_INPUTS < in_features)[None, :, None]
    word = tl.arange(0, 4)[None, None, :]
    place = (base[:, None] + unit[None, :] * UNIT_STRIDE)[:, :, None]
    words = tl.load(codes + (place + row[:, None, None] * 4 + word), mask=inside, other=0)
    MASK: tl.constexpr = (1 << FIELD) - 1 << POSITION
    placed = spread(words, base_word, STEPS, FIELD, POSITION, POSITION - 16, MASK)
    if BITS == 3:
        # Bit 2 of the inputs of halves 2 w and 2 w + 1 are the low and the high byte of word w.
        halves = codes.to(tl.pointer_type(tl.int16))
        bits = tl.load(halves + ((place + 64) * 2 + row[:, None, None] * 4 + word), mask=inside, other=0).to(tl.int32)
        placed |= spread(bits, 0, STEPS, 1, POSITION + 2, POSITION - 6, 4 << POSITION)
    return tl.reshape(placed, [rows.shape[0], INPUTS])


@triton.jit
def group_values(
    values, rows, first, out_features, in_features, GROUP: tl.constexpr, SPAN: tl.constexpr, SPANS: tl.constexpr
):
    """Values per group of layout tile16 for spans of inputs that belong to one group each: fp32 [ROWS, SPANS]."""
    input = first + tl.arange(0, SPANS) * SPAN
    if GROUP == 0:
        base, row = tile_rows(rows, 16)
        group = input * 0
    else:
        base, row = tile_rows(rows, tl.cdiv(in_features, GROUP) * 16)
        group = input // GROUP
    inside = (rows < out_features)[:, None] & (input < in_features)[None, :]
    return tl.load(values + (base + row)[:, None] + group[None, :] * 16, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def uniform_tile(
    codes,
    scale,
    zero,
    rows,
    first,
    out_features,
    in_features,
    BITS: tl.constexpr,
    GROUP: tl.constexpr,
    SPAN: tl.constexpr,
    INPUTS: tl.constexpr,
):
    """scale * (code - zero) as (base + code) * scale - (base + zero) * scale: one operation per weight, off by at most
    2^-15 of the scale.
    """
    SPANS: tl.constexpr = INPUTS // SPAN
    POSITION: tl.constexpr = 15 if BITS == 8 else 16  # of the code: the highest at which no field is shifted out
    BASE: tl.constexpr = 1 << (23 - POSITION)
    BASE_WORD: tl.constexpr = 127 + 23 - POSITION << 23
    # A constant in truth, but not to the compiler, which would take two instructions, one for every constant, to mask
    # the code and to set the base's bits.
    base_word = in_features >> 31 | BASE_WORD
    placed = placed_codes(codes, base_word, rows, first, out_features, in_features, BITS, POSITION, INPUTS)
    floats = placed.to(tl.float32, bitcast=True)
    scales = group_values(scale, rows, first, out_features, in_features, GROUP, SPAN, SPANS)
    if zero is not None:
        offsets = BASE + group_values(zero, rows, first, out_features, in_features, GROUP, SPAN, SPANS)
    else:
        offsets = tl.full(scales.shape, BASE + (1 << BITS - 1), tl.float32)
    spans = tl.reshape(floats, [rows.shape[0], SPANS, SPAN])
    return tl.reshape(spans * scales[:, :, None] - (offsets * scales)[:, :, None], [rows.shape[0], INPUTS])


@triton.jit
def looked_up(entries, code, BITS: tl.constexpr):
    """entries[row][code] by selecting between halves of the table: fp32 [ROWS, INPUTS], `entries` pointers [ROWS].

    Faster than loading from the table by code: that would have to pass the weights through shared memory to the
    layout of a matrix instruction's operand.
    """
    if BITS == 0:
        return tl.load(entries).to(tl.float32)[:, None]
    else:
        low = looked_up(entries, code, BITS - 1)
        high = looked_up(entries + (1 << (BITS - 1)), code, BITS - 1)
        return tl.where((code & 1 << (BITS - 1)) != 0, high, low)


@triton.jit
def lut_tile(
    codes,
    table,
    scale,
    rows,
    first,
    out_features,
    in_features,
    BITS: tl.constexpr,
    GROUP: tl.constexpr,
    SPAN: tl.constexpr,
    INPUTS: tl.constexpr,
    SHARED_TABLE: tl.constexpr,
):
    """table[row][code], or table[0][code], times scale where there is one."""
    code = placed_codes(codes, 0, rows, first, out_features, in_features, BITS, 0, INPUTS)
    row = rows * 0 if SHARED_TABLE else tl.where(rows < out_features, rows, 0)
    values = looked_up(table + (row << BITS), code, BITS)
    if scale is not None:
        SPANS: tl.constexpr = INPUTS // SPAN
        scales = group_values(scale, rows, first, out_features, in_features, GROUP, SPAN, SPANS)
        spans = tl.reshape(values, [rows.shape[0], SPANS, SPAN])
        values = tl.reshape(spans * scales[:, :, None], [rows.shape[0], INPUTS])
    return values


@triton.jit
def trellis_words(codes, base, row, inside, BITS: tl.constexpr):
    """The number of a row of trellis tiles as (first 32 bits, the rest left-aligned, last 32 bits)."""
    first = tl.load(codes + (base + row), mask=inside, other=0).to(tl.uint32, bitcast=True)
    if BITS == 2:
        return first, first, first
    elif BITS == 3:
        halves = codes.to(tl.pointer_type(tl.uint16))
        rest = tl.load(halves + ((base + 16) * 2 + row), mask=inside, other=0).to(tl.uint32)
        return first, rest << 16, first << 16 | rest
    else:
        rest = tl.load(codes + (base + 16 + row), mask=inside, other=0).to(tl.uint32, bitcast=True)
        return first, rest, rest


@triton.jit
def code_values(states, table, even, CODE: tl.constexpr):
    """The values of states (uint32), fp32; `even` says of code hyb whether it is the first value of its step."""
    if CODE == "1mad":
        x = states * 34038481 + 76625530
        pairs = (x & 0x00FF00FF) + (x >> 8 & 0x00FF00FF)
        # The sum of the four bytes has 10 bits: the same way into a float as for codes, at bit 13 of 1024.
        total = ((pairs + (pairs >> 16) & 0xFFFF) << 13 | 0x44800000).to(tl.float32, bitcast=True)
        return (total - (1024 + 510)) * (1 / 147.800537109375)
    elif CODE == "3inst":
        x = (states * 89226354 + 64248484 & 0x8FFF8FFF) ^ 0x3B603B60
        low = (x & 0xFFFF).to(tl.uint16).to(tl.float16, bitcast=True)
        high = (x >> 16).to(tl.uint16).to(tl.float16, bitcast=True)
        return low.to(tl.float32) + high.to(tl.float32)
    else:
        x = (states + 1) * states
        place = (x >> 6 & 511) * 2 + tl.where(even, 0, 1)
        value = tl.load(table + place, eviction_policy="evict_last")
        return tl.where(even & (x >> 15 & 1 == 1), -value, value)


@triton.jit
def trellis_tile(
    codes,
    table,
    rows,
    first,
    out_features,
    in_features,
    BITS: tl.constexpr,
    CODE: tl.constexpr,
    INPUTS: tl.constexpr,
):
    """Values of C, without the rows' scales: fp32 [ROWS, INPUTS]. Column c of a tile has the 16 bits of the stream that
    end where the row's own number has c + 1 steps' bits:

        | last 32 bits of the row before | first 32 bits | the rest |
                                  state:       ^^^^^^^^^^^
    """
    STEP_VALUES: tl.constexpr = 2 if CODE == "hyb" else 1
    base, row = tile_rows(rows, tl.cdiv(in_features, 16) * (8 * BITS))
    tile = first // 16 + tl.arange(0, INPUTS // 16)
    inside = (rows < out_features)[:, None] & (tile * 16 < in_features)[None, :]
    place = base[:, None] + tile[None, :] * (8 * BITS)
    own, rest, _ = trellis_words(codes, place, row[:, None], inside, BITS)
    _, _, before = trellis_words(codes, place, (row[:, None] + 15) % 16, inside, BITS)
    column = tl.arange(0, 16)[None, None, :]
    end = (column // STEP_VALUES + 1) * (BITS * STEP_VALUES)
    in_first = end <= 32
    upper = tl.where(in_first, before[:, :, None], own[:, :, None]).to(tl.uint64)
    lower = tl.where(in_first, own[:, :, None], rest[:, :, None]).to(tl.uint64)
    states = ((upper << 32 | lower) >> tl.where(in_first, 32 - end, 64 - end).to(tl.uint64)).to(tl.uint32) & 0xFFFF
    return tl.reshape(code_values(states, table, column % 2 == 0, CODE), [rows.shape[0], INPUTS])


@triton.jit
def dense_tile(
    codes,
    scale,
    zero,
    table,
    rows,
    first,
    out_features,
    in_features,
    FORMAT: tl.constexpr,
    BITS: tl.constexpr,
    GROUP: tl.constexpr,
    CODE: tl.constexpr,
    INPUTS: tl.constexpr,
):
    """Rows `rows` (int32 [ROWS]) and inputs first ..< first + INPUTS of D, fp32 [ROWS, INPUTS]; of format trellis those
    of C without the rows' scales. `first` and INPUTS are multiples of 64. What lies outside the weight is finite.

    GROUP is the group size, 0 for whole rows. CODE is the trellis code, or "row" or "shared" for the tables of lut.
    """
    # The lowest set bit of a group size is the largest power of two that divides it.
    SPAN: tl.constexpr = INPUTS if GROUP == 0 else min(INPUTS, GROUP & -GROUP)
    if FORMAT == "uniform":
        return uniform_tile(codes, scale, zero, rows, first, out_features, in_features, BITS, GROUP, SPAN, INPUTS)
    elif FORMAT == "lut":
        return lut_tile(
            codes,
            table,
            scale,
            rows,
            first,
            out_features,
            in_features,
            BITS,
            GROUP,
            SPAN,
            INPUTS,
            CODE == "shared",
        )
    else:
        return trellis_tile(codes, table, rows, first, out_features, in_features, BITS, CODE, INPUTS)
