"""Augmentations of a pair of stems: what is drawn for an example, and how it is applied.

The pair stays a pair: the mixture is formed afterwards, so it is always the sum of the two stems.
Limiter, low-pass and fade act on the mixture: the same gain or filter is applied to both stems.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from data_pipelines import mastering
from data_pipelines.dsp import Mono
from data_pipelines.pitch import shift_pitch
from data_pipelines.source import Segment
from diffsep_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """How often and how much; 0 turns an augmentation off.

    The paper names polarity, channel flip, remix and pitch; the other augmentations, and all
    probabilities and ranges, are ours. Probabilities are 0 to 1; ranges are (lowest, highest).

    Attributes:
        polarity_probability: chance of inverting a stem's waveform, drawn for each stem.
        channel_flip_probability: chance of swapping left and right, drawn for each stem.
        remix_probability: chance of an accompaniment from another song (stem remixing).
        silent_share: share of the examples whose vocals are set to zero; all others contain a
            voice, if any song does. Replaces the pipeline's `silent_kept`.
        layer_probability: chance of adding another song's accompaniment, for each of two layers;
            the level stays.
        layer_db: level of a layer relative to the first accompaniment, both songs at equal RMS.
        speed_percent: how much both stems are played faster and higher (varispeed).
        remix_speed_percent: the same for an accompaniment from another song and its layers, on top
            of `speed_percent`: few recordings then sound like many instruments.
        pitch_probability: chance of shifting both stems by one interval; slower than all others.
        pitch_semitones: interval of that shift.
        eq_db: tilt of an equaliser about 1 kHz, drawn for each stem: the gain of the highest
            treble; the lowest bass gets the opposite.
        bus_probability: chance of saturating the accompaniment, whose level stays.
        bus_db: drive of the saturation: how far its peak lies above 1 at the input of a tanh.
        gain_db: gain, drawn for each stem.
        limiter_probability: chance of a limiter on the mixture; its gain is applied to both stems.
        limiter_db: how much it reduces the example's highest peak.
        low_pass_probability: chance of a low-pass on the mixture: one filter for both stems.
        low_pass_hz: its cutoff, uniform in octaves; nothing is left above it.
        fade_probability: chance of fading the example in or out, or turning all of it down.
        fade_db: depth of the fade.
    """

    polarity_probability: float = 0.5
    channel_flip_probability: float = 0.5
    remix_probability: float = 0.5
    silent_share: float = 0.0
    layer_probability: float = 0.0
    layer_db: tuple[float, float] = (-8.0, 3.0)
    speed_percent: tuple[float, float] = (0.0, 0.0)
    remix_speed_percent: tuple[float, float] = (0.0, 0.0)
    pitch_probability: float = 0.2
    pitch_semitones: tuple[float, float] = (-2.0, 2.0)
    eq_db: tuple[float, float] = (0.0, 0.0)
    bus_probability: float = 0.0
    bus_db: tuple[float, float] = (0.0, 8.0)
    gain_db: tuple[float, float] = (-4.0, 4.0)
    limiter_probability: float = 0.0
    limiter_db: tuple[float, float] = (0.0, 8.0)
    low_pass_probability: float = 0.0
    low_pass_hz: tuple[float, float] = (3_500.0, 16_000.0)
    fade_probability: float = 0.0
    fade_db: tuple[float, float] = (0.0, 90.0)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in _RANGES:
                least, most = _RANGES[field.name]
                low, high = value
                if not least <= low <= high <= most:
                    raise UserError(
                        f"{field.name} is {value}; expected low <= high in {least:g}..{most:g}"
                    )
            elif not 0.0 <= value <= 1.0:
                raise UserError(f"{field.name} is {value}; expected 0 to 1")
        slowest, slowest_remix = self.speed_percent[0], self.remix_speed_percent[0]
        if (1.0 + slowest / 100.0) * (1.0 + slowest_remix / 100.0) < 0.5:  # what MARGIN is for
            raise UserError(
                f"speed_percent begins at {slowest:g} and remix_speed_percent at {slowest_remix:g};"
                " expected at least half the speed by both together"
            )

    @property
    def filters(self) -> bool:
        """Whether an example is read with a margin at both ends, for the transients of filters."""
        return (
            self.speed_percent != (0.0, 0.0)
            or self.remix_speed_percent != (0.0, 0.0)
            or self.eq_db != (0.0, 0.0)
            or self.low_pass_probability > 0.0
        )


_RANGES = {
    "layer_db": (-60.0, 60.0),
    "speed_percent": (-50.0, 100.0),
    "remix_speed_percent": (-50.0, 100.0),
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class StemChanges:
    """What was drawn for one stem: polarity, channels, gain, and the tilt of its equaliser."""

    inverted: bool
    swapped: bool
    gain_db: float
    tilt_db: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Changes:
    """What was drawn for a pair of stems; None where an augmentation is not applied.

    Attributes:
        semitones: pitch shift of both stems.
        vocals, accompaniment: changes of each stem.
        tilts: whether equalisers are on; the stems' `tilt_db` are 0 otherwise.
        bus_db: drive of the accompaniment's saturation.
        limiter_db: reduction of the mixture's highest peak.
        low_pass_hz: cutoff.
        fade_db: gains at the start and at the end of the example.
    """

    semitones: float | None
    vocals: StemChanges
    accompaniment: StemChanges
    tilts: bool
    bus_db: float | None
    limiter_db: float | None
    low_pass_hz: float | None
    fade_db: tuple[float, float] | None


def draw_changes(rng: Generator, config: AugmentConfig) -> Changes:
    """Draws what to do to a pair of stems.

    All random numbers are drawn whether they are used or not, so that no augmentation changes what
    another draws.
    """
    semitones = maybe(rng, config.pitch_probability, config.pitch_semitones)
    mirrored = []
    for _ in range(2):
        polarity, flip = rng.random(2)
        gain_db = float(rng.uniform(*config.gain_db))
        inverted = bool(polarity < config.polarity_probability)
        mirrored.append((inverted, bool(flip < config.channel_flip_probability), gain_db))
    tilts_db = rng.uniform(*config.eq_db, size=2).tolist()
    stems = [
        StemChanges(inverted=inverted, swapped=swapped, gain_db=gain_db, tilt_db=tilt_db)
        for (inverted, swapped, gain_db), tilt_db in zip(mirrored, tilts_db, strict=True)
    ]
    bus_db = maybe(rng, config.bus_probability, config.bus_db)
    limiter_db = maybe(rng, config.limiter_probability, config.limiter_db)
    lowest, highest = config.low_pass_hz
    octaves = maybe(rng, config.low_pass_probability, (math.log2(lowest), math.log2(highest)))
    fade_db = maybe(rng, config.fade_probability, config.fade_db)
    first, last = [(0.0, 1.0), (1.0, 0.0), (1.0, 1.0)][int(3 * rng.random())]
    return Changes(
        semitones=semitones,
        vocals=stems[0],
        accompaniment=stems[1],
        tilts=config.eq_db != (0.0, 0.0),
        bus_db=bus_db,
        limiter_db=limiter_db,
        low_pass_hz=None if octaves is None else 2.0**octaves,
        fade_db=None if fade_db is None else (-fade_db * first, -fade_db * last),
    )


def maybe(rng: Generator, probability: float, limits: tuple[float, float]) -> float | None:
    """A value within the limits with that probability, else None; always draws two numbers."""
    happens, value = rng.random() < probability, rng.uniform(*limits)
    return value if happens else None


def augment(
    segment: Segment,
    changes: Changes,
    sample_rate: int,
    gains: Sequence[float] = (1.0, 1.0),
    length: int | None = None,
) -> Segment:
    """Applies the changes to the pair, then to each stem, then to the mixture; in place.

    Stem remixing and layers come before, so both songs of a remix are shifted by one interval.

    Args:
        segment: the stems; their lengths differ if their speeds do.
        changes: from `draw_changes`.
        gains: gains of vocals and accompaniment, applied with those drawn.
        length: samples of the result, which varispeed changes; by default those of the vocals.
    """
    length = length or len(segment.vocals)
    stems = (changes.vocals, changes.accompaniment)
    if changes.semitones is not None:
        semitones = changes.semitones
        segment = Segment(*(shift_pitch(stem, semitones, sample_rate) for stem in segment))
    if changes.tilts or any(len(stem) != length for stem in segment):
        responses = [mastering.tilt(length, sample_rate, stem.tilt_db) for stem in stems]
        pairs = zip(segment, responses, strict=True)
        segment = Segment(*(mastering.resample(stem, length, response) for stem, response in pairs))
    if changes.bus_db is not None:
        mastering.saturate(segment.accompaniment, changes.bus_db)
    segment = Segment(*map(_change, segment, stems, gains))

    if changes.limiter_db is not None:
        mixture = segment.vocals + segment.accompaniment
        _scale(segment, mastering.limiter_gain(mixture, sample_rate, changes.limiter_db))
    if changes.low_pass_hz is not None:
        response = mastering.low_pass(length, sample_rate, changes.low_pass_hz)
        segment = Segment(*(mastering.resample(stem, length, response) for stem in segment))
    if changes.fade_db is not None:
        _scale(segment, mastering.fade(length, *changes.fade_db))
    return segment


def _change(stem: np.ndarray, changes: StemChanges, gain: float) -> np.ndarray:
    if changes.swapped:
        stem = stem[:, ::-1]
    sign = -1.0 if changes.inverted else 1.0
    stem *= np.float32(gain * (sign * 10.0 ** (changes.gain_db / 20.0)))
    return stem


def _scale(segment: Segment, gain: Mono) -> None:
    for stem in segment:
        stem *= gain[:, None]
