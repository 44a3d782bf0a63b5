"""What is read from machine code, the estimates made of it, and the figures that must not grow."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import gpusim_backend
import pytest
from gpu_estimates import FORMATS, SHAPES
from gpu_static import budget
from gpu_static.cubin import extract_cubin, run_tool
from gpu_static.gpus import A100, GPUS, H100, RTX_4090, Gpu
from gpu_static.kernels import Figures, LinearKernel, Variant, read_linear_kernels
from gpu_static.occupancy import resident_ctas
from gpu_static.plan import plan_linear
from gpu_static.roofline import Estimate, Layer, SparseCost, estimate
from gpu_static.sass import Code, Loop
from torch import nn

from requant_kernels import DenseSparseLinear

# A loop (5..13) with two sides of four and two instructions, inside another one (2..15).
PROGRAM = """
        /*0000*/                   S2R R0, SR_TID.X ;
        /*0010*/                   BRA.DIV UR4, `(.L_x_7) ;
        /*0020*/                   UMOV UR4, 0x1 ;
.L_x_1:
        /*0030*/                   LDGSTS.E.BYPASS.128 [R13], [R18.64], P1 ;
        /*0040*/                   BRA.U UP0, `(.L_x_4) ;
        /*0050*/                   BRA.CONV ~URZ, `(.L_x_2) ;
        /*0060*/                   CALL.REL.NOINC `($__internal_19_$__cuda_sm70_warpsync) ;
.L_x_2:
        /*0070*/                   HMMA.16816.F32.BF16 R20, R12, R24, RZ ;
        /*0080*/               @P1 BRA `(.L_x_3) ;
        /*0090*/                   HADD2.F32 R7, -RZ, R7.H0_H0 ;
        /*00a0*/                   HADD2.F32 R8, -RZ, R8.H0_H0 ;
        /*00b0*/                   PRMT R1, R2, R3, R4 ;
        /*00c0*/                   BRA `(.L_x_5) ;
.L_x_3:
        /*00d0*/                   IMAD.U32 R7, R7, 0x10000, RZ ;
.L_x_5:
        /*00e0*/              @!P0 BRA `(.L_x_2) ;
.L_x_4:
        /*00f0*/                   IADD3 R1, R1, 0x1, RZ ;
        /*0100*/               @P3 BRA `(.L_x_1) ;
        /*0110*/               @P0 EXIT ;
        /*0120*/                   STG.E [R2.64], R1 ;
        /*0130*/                   EXIT ;
.L_x_7:
        /*0140*/                   NOP ;
        /*0150*/                   BRA `(.L_x_2) ;
"""
INNER, OUTER = Loop(7, 14), Loop(3, 16)


@pytest.fixture(scope="module")
def code() -> Code:
    return Code(PROGRAM)


def test_loops_are_found_from_the_inside_out(code: Code) -> None:
    assert code.loops == [INNER, OUTER]
    assert code.loop_with("tensor") == INNER
    assert code.loop_with("cp.async") == OUTER
    assert code.loop_around(INNER) == OUTER
    with pytest.raises(ValueError, match="no loop with sts"):
        code.loop_with("sts")


def test_a_turn_takes_the_longer_side_of_a_branch(code: Code) -> None:
    assert code.turn(INNER) == [7, 8, 9, 10, 11, 12, 14]
    assert code.classes(code.turn(INNER)) == {"tensor": 1, "control": 3, "fp16": 2, "bytes": 1}


def test_warps_whose_lanes_have_parted_do_not_count(code: Code) -> None:
    assert code.reachable.isdisjoint({6, 20, 21})


def test_what_is_in_no_loop_is_executed_once_at_most(code: Code) -> None:
    assert code.outside_loops == {0, 1, 2, 17, 18, 19}


def test_the_shortest_way_leaves_out_what_it_can(code: Code) -> None:
    assert code.distance({0}, {3}) == 3
    assert code.distance({3}, {INNER.first}) == 3
    assert code.exits(INNER) == {15}
    assert code.exits(OUTER) == {17}
    assert code.ends == {17, 19}
    assert code.distance({17}, code.ends) == 0
    with pytest.raises(ValueError, match="no way"):
        code.distance({17}, {3})


@pytest.mark.parametrize(
    ("architecture", "registers", "shared_bytes", "ctas"),
    [
        (80, 55, 0, 9),  # by registers: 56 of 512 for each of the four schedulers
        (80, 64, 16 << 10, 8),  # by registers, just
        (80, 32, 31 << 10, 5),  # by shared memory: 32 KB of 164
        (89, 32, 0, 12),  # by warps: 4 of 48
        (90, 32, 44 << 10, 5),  # 45 KB of 228
        (100, 255, 0, 2),
    ],
)
def test_occupancy(architecture: int, registers: int, shared_bytes: int, ctas: int) -> None:
    assert resident_ctas(architecture, 128, registers, shared_bytes) == ctas


@pytest.mark.parametrize(("gpu", "tolerance"), [(A100, 0.05), (H100, 0.05), (RTX_4090, 0.5)])
def test_limits_follow_from_the_gpus(gpu: Gpu, tolerance: float) -> None:
    for bits, limit in budget.LIMITS[gpu.architecture].items():
        assert limit == pytest.approx(gpu.instructions_per_weight(bits), abs=tolerance)


@pytest.mark.parametrize("zeros", [False, True])
def test_packed_bytes_are_those_of_a_layer(zeros: bool) -> None:
    shape = (256, 640)
    for format, bits in (("uniform", 4), ("lut", 3), ("trellis", 2)):
        linear = nn.Linear(shape[1], shape[0], bias=False).bfloat16()
        layer = DenseSparseLinear.from_linear(linear, format, bits, sparse_percent=0, symmetric=not zeros)
        stored = sum(buffer.nbytes for buffer in layer.buffers() if buffer is not None)
        assert Layer(format, bits, shape, zeros).packed_bytes == stored, format


def test_a_sparse_part_adds_its_entries_and_offsets() -> None:
    dense = Layer("uniform", 4, (4096, 4096))
    sparse = dense._replace(sparse_percent=0.5)
    assert sparse.entries == 83886
    assert sparse.packed_bytes - dense.packed_bytes == 4 * (83886 + 256 * 16 + 1)


@pytest.mark.parametrize(("tokens", "tiles"), [(1, 1), (8, 1), (9, 2), (33, 4)])
def test_the_plan_is_that_of_the_launcher(tokens: int, tiles: int) -> None:
    plan = plan_linear("uniform", 4, (4096, 14336), False, tokens, A100)
    assert (plan.token_tiles, plan.row_warps) == (tiles, tiles)
    assert plan.ctas == plan.row_groups * plan.splits * (2 if tokens > 32 else 1)
    assert plan.row_groups == 4096 // (16 * tiles)
    assert plan.splits * plan.split_inputs >= 14336
    assert plan.spans_ahead == 3


@pytest.mark.parametrize(
    ("tokens", "gpu", "shape"), [(1, A100, (1, 4)), (8, H100, (1, 4)), (9, A100, (2, 2)), (33, H100, (4, 4))]
)
def test_tall_layers_have_a_shape_of_their_own_for_few_tokens(tokens: int, gpu: Gpu, shape: tuple[int, int]) -> None:
    plan = plan_linear("lut", 3, (128256, 2048), True, tokens, gpu)
    assert (plan.token_tiles, plan.row_warps) == shape
    assert plan.row_groups == 128256 // (16 * plan.row_warps)
    assert plan.splits == 1


@pytest.mark.parametrize("in_features", [40, 640, 2048, 8192])
@pytest.mark.parametrize("tokens", range(1, 9))
def test_chunks_of_few_tokens_are_whole_slices(tokens: int, in_features: int) -> None:
    """Their kernels do not look at what lies outside of a chunk."""
    for out_features in (64, 128256):
        plan = plan_linear("uniform", 2, (out_features, in_features), True, tokens, A100)
        assert plan.chunk_inputs % 256 == plan.split_inputs % 256 == 0


def test_the_estimate_is_the_largest_of_its_terms() -> None:
    bound_by_issue = Estimate(10.0, 20.0, 5.0, waves=1.5, launches=2, instructions=1.0, resident=5)
    assert bound_by_issue.us == 20.0 * 1.5 + 2 * 2
    assert bound_by_issue.share == pytest.approx(10 / 34)
    assert bound_by_issue.bound == "issue"
    assert bound_by_issue._replace(latency_us=30.0).us == 30.0 * 1.5 + 2 * 2


BUDGET = budget.load()
COMMITTED = [(architecture, variant) for architecture, kernels in BUDGET.items() for variant in kernels]


def test_every_architecture_has_a_budget() -> None:
    assert set(BUDGET) == {gpu.architecture for gpu in GPUS}
    assert all(Variant.parse(str(variant)) == variant for _, variant in COMMITTED)


def test_committed_kernels_do_not_spill() -> None:
    assert [entry for entry in COMMITTED if BUDGET[entry[0]][entry[1]].spill_bytes] == []


def test_committed_kernels_keep_up_with_memory() -> None:
    limited = [entry for entry in COMMITTED if budget.limit(*entry)]
    assert {(architecture, variant.format) for architecture, variant in limited} >= {
        *((architecture, format) for architecture in (80, 89, 90) for format in ("uniform", "lut")),
        (89, "trellis"),
    }
    for architecture, variant in limited:
        limit = budget.limit(architecture, variant) or 0
        assert BUDGET[architecture][variant].instructions_per_weight <= limit, (architecture, str(variant))


def large_layers() -> Iterator[Layer]:
    """Of all formats and all models."""
    for stored in FORMATS.values():
        for shape in itertools.chain.from_iterable(SHAPES.values()):
            layer = Layer(shape=shape, **stored)
            if layer.packed_bytes >= budget.LARGE_LAYER_BYTES:
                yield layer


@pytest.mark.parametrize("gpu", GPUS, ids=lambda gpu: gpu.name)
def test_large_layers_of_one_token_are_bound_by_memory(gpu: Gpu) -> None:
    formats = budget.BOUND_BY_MEMORY.get(gpu.architecture, {})
    shares = {
        layer: estimate(layer, 1, gpu, BUDGET[gpu.architecture]).share
        for layer in large_layers()
        if layer.bits in formats.get(layer.format, ())
    }
    assert {(layer.format, layer.bits) for layer in shares} == {(f, bits) for f in formats for bits in formats[f]}
    assert {layer: share for layer, share in shares.items() if share < budget.SHARE_OF_MEMORY_BOUND} == {}


@pytest.mark.parametrize("gpu", GPUS, ids=lambda gpu: gpu.name)
def test_a_sparse_part_costs_large_layers_little_more_than_its_bytes(gpu: Gpu) -> None:
    kernels = BUDGET[gpu.architecture]
    costs = {}
    for layer in large_layers():
        dense, sparse = (
            estimate(layer._replace(sparse_percent=percent), 1, gpu, kernels) for percent in (0, budget.SPARSE_PERCENT)
        )
        costs[layer] = SparseCost.between(dense, sparse)
    assert len(costs) > 40
    limit = budget.SPARSE_COST
    assert {layer: cost for layer, cost in costs.items() if cost.instructions > limit.instructions} == {}
    if gpu.architecture in budget.SPARSE_TIME_HELD:
        assert {layer: cost for layer, cost in costs.items() if cost.time > limit.time} == {}


def test_what_a_sparse_part_costs() -> None:
    dense = Estimate(10.0, 20.0, 5.0, waves=1.0, launches=1, instructions=100.0, resident=5)
    sparse = dense._replace(memory_us=11.0, issue_us=22.1, instructions=107.0)
    assert SparseCost.between(dense, sparse) == pytest.approx((0.07, 1.1 / 22))


FIGURES = Figures(57, 0, 0, main_turn=100, chunk=30, frame=200, sparse_turn=20, sparse_chunk=50, sparse_frame=300)


def test_what_exceeds_the_budget_is_told() -> None:
    allowed = Figures(64, 0, 0, main_turn=102, chunk=33, frame=220, sparse_turn=22, sparse_chunk=55, sparse_frame=330)
    assert budget.excesses(allowed, FIGURES) == []
    worse = Figures(65, 4, 1, main_turn=103, chunk=34, frame=221, sparse_turn=23, sparse_chunk=56, sparse_frame=331)
    assert [excess.split(":")[0] for excess in budget.excesses(worse, FIGURES)] == list(Figures._fields)


def compiled_kernels(architecture: int, folder: Path) -> dict[Variant, LinearKernel]:
    """What `make gpusim` compiled for it."""
    kernels = {}
    for source in sorted((gpusim_backend.BUILD / "cuda").glob("*.o")):
        if b"linear_kernel" not in source.read_bytes():
            continue
        target = folder / source.stem
        target.mkdir()
        kernels |= read_linear_kernels(extract_cubin(source, architecture, target))
    return kernels


def compiled_architectures() -> list[int]:
    """That `make gpusim` compiled for and figures are committed of."""
    listed = run_tool("cuobjdump", "--list-elf", gpusim_backend.BUILD / "cuda" / "uniform.o")
    return [architecture for architecture in BUDGET if f"sm_{architecture}." in listed]


@pytest.mark.gpusim
def test_compiled_kernels_stay_within_the_budget(tmp_path: Path) -> None:
    assert compiled_architectures()
    for architecture in compiled_architectures():
        (tmp_path / str(architecture)).mkdir()
        kernels = compiled_kernels(architecture, tmp_path / str(architecture))
        committed = BUDGET[architecture]
        assert set(kernels) == set(committed)
        found = {str(variant): budget.excesses(kernels[variant].figures, committed[variant]) for variant in committed}
        assert {name: excesses for name, excesses in found.items() if excesses} == {}
