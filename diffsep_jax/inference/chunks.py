"""Chunks: where they lie in a track, how a track is cut into them, and how they are joined."""

import dataclasses
import math
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Float32

from diffsep_jax.audio.read import Block
from diffsep_jax.errors import UserError

DEFAULT_OVERLAP = 0.2
DEFAULT_BATCH_SIZE = 4


@dataclasses.dataclass(frozen=True)
class Plan:
    """Where the chunks of a track lie: chunk i starts at i x hop and has `segment` samples."""

    num_samples: int
    segment: int
    overlap: int

    @property
    def hop(self) -> int:
        return self.segment - self.overlap

    @property
    def num_chunks(self) -> int:
        return 1 + max(0, math.ceil((self.num_samples - self.segment) / self.hop))

    def touching(self, start: int, stop: int) -> range:
        """Indices of the chunks that overlap samples [start, stop)."""
        first = max(0, (start - self.segment) // self.hop + 1)
        return range(min(first, self.num_chunks - 1), min(-(-stop // self.hop), self.num_chunks))


def plan(num_samples: int, segment: int, overlap: float, stride: int = 1) -> Plan:
    """The layout of chunks that overlap by a share of `segment`, in samples at the model's rate.

    `segment` is a multiple of `stride`, and so is the hop, so that the frames of all chunks lie on
    one grid. The overlap may therefore be shorter than asked, by less than a stride. It is longer
    where the same number of chunks can then end soon after the track: within a stride for each.

    Raises:
      UserError: overlap not in [0, 0.5].
    """
    check_overlap(overlap)
    # A product like 0.3 x 10 ends just under the whole number that it stands for.
    asked = Plan(num_samples, segment, int(overlap * segment / stride + 1e-6) * stride)
    if asked.num_chunks == 1:
        return asked
    hop = math.ceil((num_samples - segment) / (asked.num_chunks - 1) / stride) * stride
    return Plan(num_samples, segment, segment - hop)


def check_overlap(overlap: float) -> None:
    """Raises UserError unless `overlap` is a share of a chunk in [0, 0.5]."""
    if not 0 <= overlap <= 0.5:
        raise UserError(f"overlap is {overlap}; expected a share of a chunk from 0 to 0.5")


class Fifo:
    """A queue of samples: blocks of any length in, blocks of a chosen length out."""

    def __init__(self, num_channels: int) -> None:
        self._blocks = [np.zeros((0, num_channels), np.float32)]
        self.length = 0

    def push(self, block: Block) -> None:
        self._blocks.append(block)
        self.length += len(block)

    def pop(self, count: int, keep: int = 0) -> Block:
        """The oldest `count` samples, of which the last `keep` stay in the queue."""
        samples = np.concatenate(self._blocks)
        self._blocks = [samples[count - keep :]]
        self.length -= count - keep
        return samples[:count]


def cut(blocks: Iterable[Block], plan: Plan) -> Iterator[Float32[np.ndarray, "segment 2"]]:
    """The plan's chunks. Zeros follow blocks that end before the track does.

    What a chunk lacks beyond the track is filled with the chunk itself from its start on, again and
    again: a part that is silent would change how networks normalise the rest.
    """
    blocks = iter(blocks)
    fifo = Fifo(2)
    for index in range(plan.num_chunks):
        while fifo.length < plan.segment and (block := next(blocks, None)) is not None:
            fifo.push(block)
        length = min(plan.segment, plan.num_samples - index * plan.hop)
        if fifo.length < length:
            fifo.push(np.zeros((length - fifo.length, 2), np.float32))
        yield np.resize(fifo.pop(length, keep=plan.overlap), (plan.segment, 2))


def overlap_add(chunks: Iterable[Block], plan: Plan) -> Iterator[Block]:
    """Joins the plan's chunks by linear cross-fades into blocks of `num_samples` in all.

    A fade is old + w (new - old): the two weights sum to one exactly, and where two chunks agree
    the result is bitwise theirs. If the chunks end early, so do the blocks.
    """
    fade = (np.arange(plan.overlap, dtype=np.float32) + np.float32(0.5))[:, None] / plan.overlap
    fade = fade.astype(np.float32)
    tail = None
    for index, chunk in enumerate(chunks):
        if tail is not None:
            faded = tail + fade * (chunk[: plan.overlap] - tail)
            chunk = np.concatenate([faded, chunk[plan.overlap :]])
        is_last = index == plan.num_chunks - 1
        yield chunk[: plan.num_samples - index * plan.hop if is_last else plan.hop]
        tail = chunk[plan.hop :]
