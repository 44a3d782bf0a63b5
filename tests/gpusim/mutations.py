"""Bugs, planted into the PTX of a kernel that is right: does the simulator, or a look at the results, find them?

    for mutation in mutate(ptx, "my_kernel"): ...

A mutation changes one instruction. Not every one is a bug: a barrier may be one too many, and a shifted address may
hold the same value. What has to be found is therefore said per kernel, by the tests.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple


class Mutation(NamedTuple):
    """One changed instruction."""

    operator: str
    line: int
    """In the PTX text, from 1."""
    before: str
    after: str
    ptx: str
    """The whole text."""

    def __str__(self) -> str:
        return f"{self.operator}, line {self.line}: {self.before!r} -> {self.after!r}"


class Operator(NamedTuple):
    """A kind of bug: where the pattern matches an instruction, it is replaced."""

    name: str
    pattern: re.Pattern[str]
    replacement: str | Callable[[re.Match[str]], str]


ACCESS_BYTES = {"8": 1, "16": 2, "32": 4, "64": 8}


def _shift_address(match: re.Match[str]) -> str:
    """By one access: alignment stays, what is accessed changes."""
    vector, bits = match["vector"], match["bits"]
    shift = ACCESS_BYTES[bits] * (int(vector) if vector else 1)
    return f"{match['head']}[{match['base']}+{int(match['offset'] or 0) + shift}]"


def _address(opcode: str) -> re.Pattern[str]:
    """An access with this start of the opcode."""
    return re.compile(
        rf"(?P<head>\b{opcode}[\w.:]*?(?:\.v(?P<vector>[24]))?\.[busf](?P<bits>8|16|32|64)\s[^;\[]*)"
        r"\[\s*(?P<base>[%$\w]+)\s*(?:\+\s*(?P<offset>-?\d+)\s*)?\]"
    )


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text)


OPERATORS = (
    Operator("dropped block barrier", _pattern(r"\bbar(?:rier)?(?:\.cta)?\.sync\b[^;]*;"), ""),
    Operator(
        "block barrier weakened to the warp", _pattern(r"\bbar(?:rier)?(?:\.cta)?\.sync\b[^;]*;"), "bar.warp.sync -1;"
    ),
    Operator("dropped warp barrier", _pattern(r"\bbar\.warp\.sync\b[^;]*;"), ""),
    Operator(
        "waits for one copy group less",
        _pattern(r"\bcp\.async\.wait_group\s+(\d+)"),
        lambda match: f"cp.async.wait_group {int(match[1]) + 1}",
    ),
    Operator("dropped wait for copies", _pattern(r"\bcp\.async\.wait_(?:all|group)\b[^;]*;"), ""),
    Operator("dropped commit of copies", _pattern(r"\bcp\.async\.commit_group\s*;"), ""),
    Operator("dropped copy", _pattern(r"(?:@!?%\w+\s+)?\bcp\.async\.c[ag]\b[^;]*;"), ""),
    Operator("shifted global load", _address(r"ld\.(?:volatile\.)?global"), _shift_address),
    Operator("shifted global store", _address(r"st\.(?:volatile\.)?global"), _shift_address),
    Operator("shifted shared load", _address(r"ld\.(?:volatile\.)?shared"), _shift_address),
    Operator("shifted shared store", _address(r"st\.(?:volatile\.)?shared"), _shift_address),
    Operator("dropped store", _pattern(r"(?:@!?%\w+\s+)?\bst\.(?:shared|global)\b[^;]*;"), ""),
    Operator(
        "dropped guard",
        _pattern(r"@!?%\w+\s+(?=(?:ld|st|cp|red|atom)\.)"),
        "",
    ),
    Operator(
        "negated branch", _pattern(r"@(!?)(%\w+)\s+(?=bra)"), lambda match: f"@{'' if match[1] else '!'}{match[2]} "
    ),
    Operator("missing lane", _pattern(r"(\bshfl\.sync\b[^;]*,\s*)[%\w-]+(?=\s*;)"), r"\g<1>0x7fffffff"),
    Operator("shuffle over no distance", _pattern(r"(\bshfl\.sync\.bfly\b[^;,]*,[^;,]*,\s*)[%\w]+"), r"\g<1>0"),
    Operator(
        "swapped matrix fragments",
        _pattern(r"(\bmma\.sync[^{]*\{[^}]*\}\s*,\s*\{)\s*([%\w]+)\s*,\s*([%\w]+)"),
        r"\1\3, \2",
    ),
    Operator("transposed matrix load", _pattern(r"(\bldmatrix\.sync\.aligned\.m8n8\.x[124])(\.shared)"), r"\1.trans\2"),
    Operator(
        "plain store instead of an atomic addition",
        _pattern(r"\bred\.(?:relaxed\.gpu\.)?global\.add\.(\w+)"),
        r"st.global.\1",
    ),
    Operator("loop runs once more", _pattern(r"\bsetp\.lt\.(?=[su]32)"), "setp.le."),
    Operator("loop ends too early", _pattern(r"\bsetp\.ge\.(?=[su]32)"), "setp.gt."),
    Operator(
        "product without its sum",
        _pattern(r"\bfma\.rn\.(f32|f16x2|bf16x2)\s+([%\w]+),\s*([%\w]+),[^;]*;"),
        r"mov.b32 \2, \3;",
    ),
    Operator(
        "swapped operands of a subtraction", _pattern(r"(\bsub\.[\w.]+\s+[%\w]+,\s*)([%\w]+),\s*([%\w]+)"), r"\1\3, \2"
    ),
    Operator(
        "other bits of a code",
        _pattern(r"(\bshr\.u32\s+[%\w]+,\s*[%\w]+,\s*)(\d+)"),
        lambda match: f"{match[1]}{int(match[2]) + 1}",
    ),
    Operator(
        "mask one bit short",
        _pattern(r"(\band\.b32\s+[%\w]+,\s*[%\w]+,\s*)(\d+)"),
        lambda match: f"{match[1]}{int(match[2]) >> 1}",
    ),
)


def entries(ptx: str) -> list[str]:
    """The kernels of a PTX text."""
    return re.findall(r"\.entry\s+([\w$]+)", ptx)


def _body(ptx: str, entry: str) -> tuple[int, int]:
    """Where the instructions of a kernel begin and end."""
    match = re.search(rf"\.entry\s+{re.escape(entry)}(?![\w$])", ptx)
    if match is None:
        raise ValueError(f"no kernel {entry!r}")
    begin = ptx.index("{", match.end())
    following = re.compile(r"\.entry\s").search(ptx, begin)
    return begin, ptx.rindex("}", begin, following.start() if following else len(ptx))


def extract(ptx: str, entry: str) -> str:
    """The module with this kernel alone: its variables stay, and so does what stands before its first kernel."""
    begin, end = _body(ptx, entry)
    head = ptx.rindex(".entry", 0, begin)
    linkage = re.search(r"(?:\.visible|\.weak)\s*$", ptx[:head])
    first = re.search(r"(?:(?:\.visible|\.weak)\s+)?\.entry\s", ptx)
    assert first is not None
    return ptx[: first.start()] + ptx[linkage.start() if linkage else head : end + 1] + "\n"


def mutate(ptx: str, entry: str, operators: Iterable[Operator] = OPERATORS) -> Iterator[Mutation]:
    """Every place of a kernel where an operator applies, one mutation each."""
    begin, end = _body(ptx, entry)
    body = ptx[begin:end]
    for operator in operators:
        for match in operator.pattern.finditer(body):
            before = match[0]
            after = (
                match.expand(operator.replacement)
                if isinstance(operator.replacement, str)
                else operator.replacement(match)
            )
            text = ptx[: begin + match.start()] + after + ptx[begin + match.end() :]
            line = ptx.count("\n", 0, begin + match.start()) + 1
            yield Mutation(operator.name, line, before, after, text)


def survivors(mutations: Iterable[Mutation], check: Callable[[str], object]) -> list[Mutation]:
    """The mutations that `check(ptx)` lets pass.

    Where it finds something wrong, it raises RuntimeError (of which SimulationError is one), ValueError or
    AssertionError.
    """
    passed = []
    for mutation in mutations:
        try:
            check(mutation.ptx)
        except (RuntimeError, ValueError, AssertionError):
            continue
        passed.append(mutation)
    return passed
