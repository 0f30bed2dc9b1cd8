"""What a source of songs offers: random access to segments of two stems."""

import math
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

ACTIVITY_BLOCK = 4096
"""Samples behind one value of a source's activity index."""

SILENCE = 0.03
"""A block of vocals is silent when its RMS is at most this share of the song's loudest block, or
`DITHER` of its mixture's RMS."""

DITHER = 1e-3
"""-60 dB: a stem of dither has a loudest block too."""


class Segment(NamedTuple):
    """A stretch of a song; the mixture is the sum of the two."""

    vocals: Float[np.ndarray, "time 2"]
    accompaniment: Float[np.ndarray, "time 2"]


@runtime_checkable
class Source(Protocol):
    """Random access to the stems of a numbered set of songs, stereo float32."""

    @property
    def sample_rate(self) -> int:
        """Samples per second of every segment."""

    def __len__(self) -> int:
        """Number of songs."""

    def name(self, song: int) -> str:
        """A name for reports, unique in the source."""

    def num_samples(self, song: int) -> int:
        """Length of a song."""

    def segment(self, song: int, start: int, length: int) -> Segment:
        """Samples start to start + length, in new arrays. Raises `ValueError` beyond the ends."""

    def activity(self, song: int) -> Float[np.ndarray, "block"]:
        """RMS of the vocals in each block of `ACTIVITY_BLOCK` samples."""

    def level(self, song: int) -> float:
        """RMS of the whole song's mixture, 0 for silence."""


def block_rms(vocals: Float[np.ndarray, "time 2"]) -> Float[np.ndarray, "block"]:
    """RMS over both channels in each block of `ACTIVITY_BLOCK` samples; the last may be shorter."""
    starts = np.arange(0, len(vocals), ACTIVITY_BLOCK)
    power = 0.5 * (np.square(vocals[:, 0], dtype=np.float64) + np.square(vocals[:, 1]))
    counts = np.diff(np.append(starts, len(vocals)))
    return np.sqrt(np.add.reduceat(power, starts) / counts).astype(np.float32)


def active_blocks(
    activity: Float[np.ndarray, "block"], level: float | np.floating
) -> Bool[np.ndarray, "block"]:
    """In which blocks of a song the voice sings; `level` is its mixture's RMS."""
    return activity > max(SILENCE * activity.max(initial=0.0), DITHER * level)


def mixture_rms(source: Source, song: int) -> float:
    """RMS of a song's mixture, read in stretches of about 20 s."""
    stretch, energy, length = 2**20, 0.0, source.num_samples(song)
    for start in range(0, length, stretch):
        vocals, accompaniment = source.segment(song, start, min(stretch, length - start))
        energy += float(np.square(vocals + accompaniment).sum(dtype=np.float64))
    return math.sqrt(energy / (2 * length))


def check_range(name: str, start: int, length: int, num_samples: int) -> None:
    """Raises `ValueError` if a segment leaves its song."""
    if start < 0 or length < 0 or start + length > num_samples:
        raise ValueError(
            f"{name}: samples are {start} to {start + length}; expected 0 to {num_samples}"
        )
