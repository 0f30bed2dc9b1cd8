"""Limits vocals that come out louder than the mixture, as happens in quiet passages.

In lead-ins, pauses and fades the network gets next to no signal. Its vocals then keep a low level
of their own, which does not follow the mixture down.
"""

import itertools
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Float32

from diffsep_jax.audio.read import Block

LIMIT = 1.25
"""Largest RMS of the vocals over that of the mixture: 1.9 dB. Both are taken over 46 ms."""

# The window is centred: 23 ms of look-ahead. The gain is computed at the ends of cells, which are
# counted from the track's start, and is linear in between.
_WINDOW_SECONDS, _CELLS = 0.046, 32
_HALF = _CELLS // 2


def reach(sample_rate: int) -> int:
    """How far from a sample the audio still affects its gain, in samples."""
    return (_HALF + 1) * _cell(sample_rate)


def limit(
    blocks: Iterable[tuple[Block, Block]], sample_rate: int, dc: Float32[np.ndarray, "channel"]
) -> Iterator[tuple[Block, Block]]:
    """The (vocals, mixture) blocks of a track, with vocals x min(1, `LIMIT` mixture / vocals).

    `dc` is not counted in the mixture's RMS. Vocals within the limit are returned to the bit. The
    result does not depend on where the blocks begin and end; those returned are cut elsewhere.
    """
    cell = _cell(sample_rate)
    silence = np.tile(np.stack([np.zeros_like(dc), dc]), (reach(sample_rate), 1, 1))
    fraction = (np.arange(cell)[:, None] + 0.5) / cell
    waiting = silence[cell:]  # begins half a window before the samples that come next
    num_left = 0
    for block in itertools.chain((np.stack(pair, axis=1) for pair in blocks), [silence]):
        num_left += 0 if block is silence else len(block)
        waiting = np.concatenate([waiting, block])
        num_cells = len(waiting) // cell - _CELLS
        if num_cells < 1:
            continue
        heard = waiting[: (num_cells + _CELLS) * cell] - silence[0]
        energies = np.square(heard, dtype=np.float64).reshape(-1, cell, 2, len(dc)).sum((1, 3))
        windows = np.lib.stride_tricks.sliding_window_view(energies, _CELLS, axis=0)
        vocals, mixture = windows.sum(-1).T
        gains = np.ones(num_cells + 1)
        loud = vocals > LIMIT**2 * mixture
        gains[loud] = LIMIT * np.sqrt(mixture[loud] / vocals[loud])
        slopes = gains[:-1] + fraction * np.diff(gains)  # [sample of the cell, cell]
        ready = waiting[_HALF * cell : (_HALF + num_cells) * cell][:num_left]
        gain = slopes.T.reshape(-1, 1)[: len(ready)].astype(np.float32)
        yield ready[:, 0] * gain, ready[:, 1]
        waiting = waiting[num_cells * cell :]
        num_left -= len(ready)


def _cell(sample_rate: int) -> int:
    return max(1, round(_WINDOW_SECONDS * sample_rate / _CELLS))
