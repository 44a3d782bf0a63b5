"""How bugs are planted: what each operator makes of an instruction."""

from __future__ import annotations

import mutations
import pytest

HEADER = ".version 8.0\n.target sm_80\n.address_size 64\n"


def module(*instructions: str, entry: str = "kernel") -> str:
    return f".visible .entry {entry}(.param .u64 a)\n{{\n" + "\n".join(f"  {line}" for line in instructions) + "\n}\n"


@pytest.mark.parametrize(
    ("operator", "before", "after"),
    [
        ("dropped block barrier", "bar.sync 0;", ""),
        ("dropped block barrier", "barrier.cta.sync.aligned 1, 64;", ""),
        ("block barrier weakened to the warp", "bar.sync 0;", "bar.warp.sync -1;"),
        ("dropped warp barrier", "bar.warp.sync -1;", ""),
        ("waits for one copy group less", "cp.async.wait_group 1;", "cp.async.wait_group 2;"),
        ("dropped wait for copies", "cp.async.wait_all ;", ""),
        ("dropped commit of copies", "cp.async.commit_group ;", ""),
        ("dropped copy", "@%p1 cp.async.cg.shared.global [%r1], [%rd1], 16;", ""),
        (
            "shifted global load",
            "ld.global.nc.v4.u32 {%r1,%r2,%r3,%r4}, [%rd1];",
            "ld.global.nc.v4.u32 {%r1,%r2,%r3,%r4}, [%rd1+16];",
        ),
        ("shifted global load", "ld.global.b16 %rs1, [ %rd1 + 6 ];", "ld.global.b16 %rs1, [%rd1+8];"),
        ("shifted global store", "@%p1 st.global.f32 [%rd1], %f1;", "@%p1 st.global.f32 [%rd1+4], %f1;"),
        ("shifted shared load", "ld.shared.v2.u32 {%r1, %r2}, [%r3+-8];", "ld.shared.v2.u32 {%r1, %r2}, [%r3+0];"),
        ("shifted shared store", "st.shared.u8 [%r1], %rs1;", "st.shared.u8 [%r1+1], %rs1;"),
        ("dropped store", "@!%p1 st.shared.u32 [%r1], %r2;", ""),
        ("dropped guard", "@!%p1 st.shared.u32 [%r1], %r2;", "st.shared.u32 [%r1], %r2;"),
        ("negated branch", "@%p1 bra $L;", "@!%p1 bra $L;"),
        ("negated branch", "@!%p1 bra $L;", "@%p1 bra $L;"),
        (
            "missing lane",
            "shfl.sync.bfly.b32 %r1|%p1, %r2, 16, 31, -1;",
            "shfl.sync.bfly.b32 %r1|%p1, %r2, 16, 31, 0x7fffffff;",
        ),
        (
            "shuffle over no distance",
            "shfl.sync.bfly.b32 %r1, %r2, %r3, 31, -1;",
            "shfl.sync.bfly.b32 %r1, %r2, 0, 31, -1;",
        ),
        (
            "swapped matrix fragments",
            "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%f1,%f2,%f3,%f4}, {%r1,%r2}, {%r3}, {%f1,%f2,%f3,%f4};",
            "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%f1,%f2,%f3,%f4}, {%r2, %r1}, {%r3}, {%f1,%f2,%f3,%f4};",
        ),
        (
            "transposed matrix load",
            "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r1}, [%r2];",
            "ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%r1}, [%r2];",
        ),
        ("plain store instead of an atomic addition", "red.global.add.f32 [%rd1], %f1;", "st.global.f32 [%rd1], %f1;"),
        ("loop runs once more", "setp.lt.s32 %p1, %r1, %r2;", "setp.le.s32 %p1, %r1, %r2;"),
        ("loop ends too early", "setp.ge.u32 %p1, %r1, 5;", "setp.gt.u32 %p1, %r1, 5;"),
        ("product without its sum", "fma.rn.f32 %f1, %f2, %f3, %f1;", "mov.b32 %f1, %f2;"),
        ("swapped operands of a subtraction", "sub.f16x2 %r1, %r2, %r3;", "sub.f16x2 %r1, %r3, %r2;"),
        ("other bits of a code", "shr.u32 %r1, %r2, 4;", "shr.u32 %r1, %r2, 5;"),
        ("mask one bit short", "and.b32 %r1, %r2, 15;", "and.b32 %r1, %r2, 7;"),
    ],
)
def test_operators(operator: str, before: str, after: str) -> None:
    text = HEADER + module("mov.u32 %r9, 1;", before)
    planted = [mutation for mutation in mutations.mutate(text, "kernel") if mutation.operator == operator]
    assert [mutation.ptx for mutation in planted] == [HEADER + module("mov.u32 %r9, 1;", after)]
    assert planted[0].line == 7


def test_each_operator_is_tested() -> None:
    (mark,) = [mark for mark in test_operators.pytestmark if mark.name == "parametrize"]
    assert {row[0] for row in mark.args[1]} == {operator.name for operator in mutations.OPERATORS}


def test_only_the_named_kernel_is_mutated() -> None:
    text = HEADER + module("bar.sync 0;", entry="first") + module("ret;", "bar.sync 0;", entry="second")
    assert mutations.entries(text) == ["first", "second"]
    for entry, line in (("first", 6), ("second", 11)):
        dropped = next(mutation for mutation in mutations.mutate(text, entry))
        assert (dropped.operator, dropped.line) == ("dropped block barrier", line)
    with pytest.raises(ValueError, match="no kernel 'third'"):
        list(mutations.mutate(text, "third"))


def test_a_kernel_can_be_taken_out_of_its_module() -> None:
    shared = ".extern .shared .align 16 .b8 tile[];\n"
    text = HEADER + shared + module("bar.sync 0;", entry="first") + module("ret;", entry="second")
    assert mutations.extract(text, "second").split() == (HEADER + shared + module("ret;", entry="second")).split()


def test_survivors_are_what_the_check_lets_pass() -> None:
    text = HEADER + module("bar.sync 0;")
    errors = iter([RuntimeError("found"), None])

    def check(ptx: str) -> None:
        error = next(errors)
        if error:
            raise error

    left = mutations.survivors(mutations.mutate(text, "kernel"), check)
    assert [mutation.operator for mutation in left] == ["block barrier weakened to the warp"]
