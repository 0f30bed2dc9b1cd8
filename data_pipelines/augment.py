"""Augmentations of a pair of stems: polarity, channels, gain. Each draws from the generator given.

The pair stays a pair: the mixture is formed after them, so it is always the sum of the two stems.
"""

import dataclasses

import numpy as np
from numpy.random import Generator

from data_pipelines.segments import Segment
from diffsep_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """How often and how much; 0 turns an augmentation off."""

    polarity_probability: float = 0.5
    """Chance, for each stem on its own, to turn the waveform's sign."""
    channel_flip_probability: float = 0.5
    """Chance, for each stem on its own, to swap left and right."""
    remix_probability: float = 0.5
    """Chance to take the accompaniment from another song (stem remixing)."""
    gain_db: tuple[float, float] = (-4.0, 4.0)
    """Range of the gain, drawn for each stem on its own, in decibels."""

    def __post_init__(self) -> None:
        for field in ("polarity_probability", "channel_flip_probability", "remix_probability"):
            if not 0.0 <= getattr(self, field) <= 1.0:
                raise UserError(f"{field}={getattr(self, field)}: expected 0 to 1")
        if not -60.0 <= self.gain_db[0] <= self.gain_db[1] <= 60.0:
            raise UserError(f"gain_db={self.gain_db}: expected low <= high within -60..60")


NO_AUGMENTATION = AugmentConfig(
    polarity_probability=0.0,
    channel_flip_probability=0.0,
    remix_probability=0.0,
    gain_db=(0.0, 0.0),
)


def augment(rng: Generator, segment: Segment, config: AugmentConfig) -> Segment:
    """Change each stem on its own. The number of draws does not depend on what they are."""
    return Segment(
        vocals=_augment_stem(rng, segment.vocals, config),
        accompaniment=_augment_stem(rng, segment.accompaniment, config),
    )


def _augment_stem(rng: Generator, stem: np.ndarray, config: AugmentConfig) -> np.ndarray:
    polarity, flip = rng.random(2)
    gain = 10.0 ** (rng.uniform(*config.gain_db) / 20.0)
    if polarity < config.polarity_probability:
        gain = -gain
    if flip < config.channel_flip_probability:
        stem = stem[:, ::-1]
    return np.ascontiguousarray(stem * np.float32(gain))
