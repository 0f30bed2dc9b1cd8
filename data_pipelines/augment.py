"""Augmentations of a pair of stems: pitch, polarity, channels, gain. Each draws from a generator.

The pair stays a pair: the mixture is formed after them, so it is always the sum of the two stems.
Limiter, low-pass and fade act on the mixture: the same gain or filter is applied to both stems.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy.random import Generator

from data_pipelines import mastering
from data_pipelines.pitch import shift_pitch
from data_pipelines.source import Segment
from diffsep_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """How often and how much; 0 turns an augmentation off.

    The paper names polarity, channel flip, remix and pitch; the other augmentations, and all
    probabilities and ranges, are ours.
    """

    polarity_probability: float = 0.5
    """Chance, for each stem on its own, to turn the waveform's sign."""
    channel_flip_probability: float = 0.5
    """Chance, for each stem on its own, to swap left and right."""
    remix_probability: float = 0.5
    """Chance to take the accompaniment from another song (stem remixing)."""
    silent_share: float = 0.0
    """Share of the examples whose vocals are set to zero; all others contain a voice, if any song
    does. Replaces the pipeline's `silent_kept`."""
    layer_probability: float = 0.0
    """Chance, for each of two layers, to add another song's accompaniment; the level stays."""
    layer_db: tuple[float, float] = (-8.0, 3.0)
    """Range of a layer's level relative to the first accompaniment, both songs at equal RMS."""
    speed_percent: tuple[float, float] = (0.0, 0.0)
    """Range by which both stems are played faster and higher: varispeed."""
    pitch_probability: float = 0.2
    """Chance to shift the pitch of both stems by the same interval; slower than all others."""
    pitch_semitones: tuple[float, float] = (-2.0, 2.0)
    """Range of that interval."""
    eq_db: tuple[float, float] = (0.0, 0.0)
    """Range of an equaliser's tilt about 1 kHz, drawn for each stem on its own: the gain of the
    highest treble; the lowest bass gets the opposite."""
    bus_probability: float = 0.0
    """Chance to saturate the accompaniment, whose level stays."""
    bus_db: tuple[float, float] = (0.0, 8.0)
    """Range of the drive: how far above 1 the peak at the input of a tanh is."""
    gain_db: tuple[float, float] = (-4.0, 4.0)
    """Range of the gain, drawn for each stem on its own, in decibels."""
    limiter_probability: float = 0.0
    """Chance of a limiter on the mixture, whose gain is applied to both stems."""
    limiter_db: tuple[float, float] = (0.0, 8.0)
    """Range of its reduction of the example's highest peak."""
    low_pass_probability: float = 0.0
    """Chance to low-pass the mixture, by the same filter on both stems."""
    low_pass_hz: tuple[float, float] = (3_500.0, 16_000.0)
    """Range of the cutoff, uniform in octaves; nothing is left above it."""
    fade_probability: float = 0.0
    """Chance to fade the example in, to fade it out, or to turn all of it down."""
    fade_db: tuple[float, float] = (0.0, 90.0)
    """Range of how far down."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in _RANGES:
                least, most = _RANGES[field.name]
                low, high = value
                if not least <= low <= high <= most:
                    raise UserError(
                        f"{field.name}={value}: expected low <= high within {least:g}..{most:g}"
                    )
            elif not 0.0 <= value <= 1.0:
                raise UserError(f"{field.name}={value}: expected 0 to 1")

    @property
    def filters(self) -> bool:
        """Whether an example is read with a margin at both ends, for the transients of filters."""
        return (
            self.speed_percent != (0.0, 0.0)
            or self.eq_db != (0.0, 0.0)
            or self.low_pass_probability > 0.0
        )


_RANGES = {
    "layer_db": (-60.0, 60.0),
    "speed_percent": (-50.0, 100.0),
    "pitch_semitones": (-12.0, 12.0),
    "eq_db": (-30.0, 30.0),
    "bus_db": (0.0, 60.0),
    "gain_db": (-60.0, 60.0),
    "limiter_db": (0.0, 60.0),
    "low_pass_hz": (100.0, 200_000.0),
    "fade_db": (0.0, 200.0),
}
"""Bounds of the fields that are ranges; all other fields are probabilities."""

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
    length: int | None = None,
) -> Segment:
    """Change the pair, then each stem on its own, `gains` included, then the mixture; in place.

    Stem remixing and layers come before, so both songs of a remix are shifted by one interval.
    `length`: number of samples of the result, which varispeed changes; by default that of
    `segment`. All random numbers are drawn first, used or not, so that no augmentation changes what
    another draws. `sample_rate` in Hz.
    """
    length = length or len(segment.vocals)
    semitones = drawn(rng, config.pitch_probability, config.pitch_semitones)
    changes = [_draw_change(rng, config) for _ in segment]
    tilts = rng.uniform(*config.eq_db, size=2)
    bus_db = drawn(rng, config.bus_probability, config.bus_db)
    limiter_db = drawn(rng, config.limiter_probability, config.limiter_db)
    lowest, highest = config.low_pass_hz
    octaves = drawn(rng, config.low_pass_probability, (math.log2(lowest), math.log2(highest)))
    fade_db = drawn(rng, config.fade_probability, config.fade_db)
    fade_ends = [(0.0, 1.0), (1.0, 0.0), (1.0, 1.0)][int(3 * rng.random())]

    if semitones is not None:
        segment = Segment(*(shift_pitch(stem, semitones, sample_rate) for stem in segment))
    if length != len(segment.vocals) or config.eq_db != (0.0, 0.0):
        responses = [mastering.tilt(length, sample_rate, tilt_db) for tilt_db in tilts]
        pairs = zip(segment, responses, strict=True)
        segment = Segment(*(mastering.resample(stem, length, response) for stem, response in pairs))
    if bus_db is not None:
        mastering.saturate(segment.accompaniment, bus_db)
    segment = Segment(*map(_change, segment, changes, gains))

    if limiter_db is not None:
        mixture = segment.vocals + segment.accompaniment
        _scale(segment, mastering.limiter_gain(mixture, sample_rate, limiter_db))
    if octaves is not None:
        response = mastering.low_pass(length, sample_rate, 2.0**octaves)
        segment = Segment(*(mastering.resample(stem, length, response) for stem in segment))
    if fade_db is not None:
        _scale(segment, mastering.fade(length, *(-fade_db * end for end in fade_ends)))
    return segment


def drawn(rng: Generator, probability: float, limits: tuple[float, float]) -> float | None:
    """A value within the limits, or, except by that chance, None; always draws two numbers."""
    happens, value = rng.random() < probability, rng.uniform(*limits)
    return value if happens else None


def _draw_change(rng: Generator, config: AugmentConfig) -> tuple[float, bool]:
    """A stem's gain, of either sign, and whether its channels are swapped."""
    polarity, flip = rng.random(2)
    gain = 10.0 ** (rng.uniform(*config.gain_db) / 20.0)
    sign = -1.0 if polarity < config.polarity_probability else 1.0
    return sign * gain, bool(flip < config.channel_flip_probability)


def _change(stem: np.ndarray, change: tuple[float, bool], gain: float) -> np.ndarray:
    drawn_gain, flips = change
    if flips:
        stem = stem[:, ::-1]
    stem *= np.float32(gain * drawn_gain)
    return stem


def _scale(segment: Segment, gain: Float[np.ndarray, "time"]) -> None:
    for stem in segment:
        stem *= gain[:, None]
