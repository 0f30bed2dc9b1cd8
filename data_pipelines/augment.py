"""Augmentations of a pair of stems: pitch, polarity, channels, gain. Each draws from a generator.

The pair stays a pair: the mixture is formed after them, so it is always the sum of the two stems.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from data_pipelines.pitch import shift_pitch
from data_pipelines.segments import Segment
from diffsep_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """How often and how much; 0 turns an augmentation off.

    The paper names the augmentations; the probabilities and ranges are ours.
    """

    polarity_probability: float = 0.5
    """Chance, for each stem on its own, to turn the waveform's sign."""
    channel_flip_probability: float = 0.5
    """Chance, for each stem on its own, to swap left and right."""
    remix_probability: float = 0.5
    """Chance to take the accompaniment from another song (stem remixing)."""
    pitch_probability: float = 0.2
    """Chance to shift the pitch of both stems by the same interval; the slowest of them all."""
    pitch_semitones: tuple[float, float] = (-2.0, 2.0)
    """Range of that interval."""
    gain_db: tuple[float, float] = (-4.0, 4.0)
    """Range of the gain, drawn for each stem on its own, in decibels."""

    def __post_init__(self) -> None:
        for name in ("polarity", "channel_flip", "remix", "pitch"):
            field = f"{name}_probability"
            if not 0.0 <= getattr(self, field) <= 1.0:
                raise UserError(f"{field}={getattr(self, field)}: expected 0 to 1")
        for field, limit in (("pitch_semitones", 12.0), ("gain_db", 60.0)):
            low, high = getattr(self, field)
            if not -limit <= low <= high <= limit:
                raise UserError(
                    f"{field}={(low, high)}: expected low <= high within -{limit:g}..{limit:g}"
                )


NO_AUGMENTATION = AugmentConfig(
    polarity_probability=0.0,
    channel_flip_probability=0.0,
    remix_probability=0.0,
    pitch_probability=0.0,
    gain_db=(0.0, 0.0),
)


def augment(
    rng: Generator,
    segment: Segment,
    config: AugmentConfig,
    sample_rate: int,
    gains: Sequence[float] = (1.0, 1.0),
) -> Segment:
    """Shift the pair's pitch, then change each stem on its own, `gains` included, in place.

    Stem remixing comes before: the two songs of a remix are shifted by the same interval too, so
    what holds between vocals and accompaniment does not change. The number of draws does not
    depend on what they are. `sample_rate` in Hz.
    """
    shifts = rng.random() < config.pitch_probability
    semitones = rng.uniform(*config.pitch_semitones)
    if shifts:
        segment = Segment(*(shift_pitch(stem, semitones, sample_rate) for stem in segment))
    pairs = zip(segment, gains, strict=True)
    return Segment(*(_augment_stem(rng, stem, gain, config) for stem, gain in pairs))


def _augment_stem(
    rng: Generator, stem: np.ndarray, gain: float, config: AugmentConfig
) -> np.ndarray:
    polarity, flip = rng.random(2)
    gain *= 10.0 ** (rng.uniform(*config.gain_db) / 20.0)
    if polarity < config.polarity_probability:
        gain = -gain
    if flip < config.channel_flip_probability:
        stem = stem[:, ::-1]
    stem *= np.float32(gain)
    return stem
