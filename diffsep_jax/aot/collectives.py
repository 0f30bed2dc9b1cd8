"""The communication in a compiled program, read from its HLO text."""

import dataclasses
import re
from collections.abc import Iterable

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")

# name = RESULT kind(OPERANDS), attributes. The `-done` of an asynchronous pair isn't counted again.
_INSTRUCTION = re.compile(rf"= (\(*[a-z].*?) (ragged-)?({'|'.join(KINDS)})(-start)?\(")
_ARRAY = re.compile(r"\b([a-z][a-z0-9]*)\[([0-9,]*)\]")
_BITS = re.compile(r"[a-z]+(\d+)")
_GROUP = re.compile(r"replica_groups=\{\{([0-9,]*)\}")
_GROUP_GRID = re.compile(r"replica_groups=\[\d+,(\d+)\]<=")
_CHAIN = re.compile(r'chain_id="(\d+)"')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collective:
    """One communication.

    Attributes:
        kind: one of `KINDS`.
        bytes: of its result, on one device.
        group: devices that take part together; 0 = all of them.
        line: the instruction.
    """

    kind: str
    bytes: int
    group: int
    line: str


def collectives(hlo: str) -> list[Collective]:
    """All communications as they stand in the program: one in a loop's body counts once.

    The TPU compiler cuts an asynchronous one into pieces, which it puts into its neighbours with
    the number of their chain; a chain counts once.
    """
    found, chains = [], set()
    for line in hlo.splitlines():
        match = _INSTRUCTION.search(line)
        if match is None:
            continue
        result, _, kind, start = match.groups()
        if chain := _CHAIN.search(line):
            if (kind, chain[1]) in chains:
                continue
            chains.add((kind, chain[1]))
        if start and kind != "all-reduce":
            result = _parts(result)[1]  # (operands, results, and what the device keeps)
        found.append(
            Collective(kind=kind, bytes=_bytes(result), group=_group(line), line=line.strip())
        )
    return found


def by_kind(found: Iterable[Collective]) -> dict[str, tuple[int, int]]:
    """Kind -> (count, bytes of the results on one device), for the kinds that occur."""
    totals: dict[str, tuple[int, int]] = {}
    for each in found:
        count, size = totals.get(each.kind, (0, 0))
        totals[each.kind] = (count + 1, size + each.bytes)
    return totals


def _bytes(shape: str) -> int:
    """Of an array, or of all in a tuple: `bf16[4,8]{1,0:T(8,128)}`, `(f32[], s32[3])`."""
    total = 0
    for dtype, sizes in _ARRAY.findall(shape):
        bits = _BITS.match(dtype)
        width = int(bits[1]) if bits else 8  # pred
        elements = 1
        for size in filter(None, sizes.split(",")):
            elements *= int(size)
        total += -(-elements * width // 8)
    return total


def _parts(shape: str) -> list[str]:
    """The elements of a tuple shape; brackets nest."""
    parts, depth = [""], 0
    for character in shape[1:-1]:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _group(line: str) -> int:
    if listed := _GROUP.search(line):
        return listed[1].count(",") + 1 if listed[1] else 0
    if grid := _GROUP_GRID.search(line):
        return int(grid[1])
    return 0
