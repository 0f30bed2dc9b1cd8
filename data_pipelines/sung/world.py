"""Speech made to sing with WORLD: its pitch replaced by a melody, its vowels held.

WORLD parts a voice into f0, a smooth spectrum and the share of noise in each band (Morise, Yokomori
and Ozawa 2016, by the package pyworld). It does not matter whose speech it is.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
import soxr
from jaxtyping import Float
from numpy.random import Generator

from data_pipelines import dsp
from data_pipelines.articulation import pitch_track
from data_pipelines.composition import Note
from data_pipelines.singer import Manner
from data_pipelines.sung.syllables import (
    Syllable,
    blend,
    find_syllables,
    follow,
    lay,
    loudness,
    rumble_cut,
    warp,
)

_PERIOD_MS = 5.0
RATE = 1000.0 / _PERIOD_MS
"""Frames per second of an analysis."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Analysis:
    """A recording of speech in WORLD's parts, `RATE` frames per second."""

    f0: Float[np.ndarray, "frame"]
    """Hertz; 0 where unvoiced."""
    spectrum: Float[np.ndarray, "frame bin"]
    """Power of the smooth envelope."""
    aperiodicity: Float[np.ndarray, "frame bin"]
    """Share of noise in the amplitude, 0 to 1."""
    sample_rate: int
    syllables: tuple[Syllable, ...]
    """(start, nucleus, end) in frames."""

    @functools.cached_property
    def power(self) -> Float[np.ndarray, "frame"]:
        """Of each frame where vowels are loudest, 400 to 4,500 Hz."""
        scale = 2 * (self.spectrum.shape[1] - 1) / self.sample_rate
        return self.spectrum[:, int(400 * scale) : int(4500 * scale)].mean(axis=1)

    @functools.cached_property
    def log_spectrum(self) -> Float[np.ndarray, "frame bin"]:
        """Logarithm of the amplitude."""
        return 0.5 * np.log(self.spectrum + 1e-16)


def analyse(waveform: Float[np.ndarray, "time"], sample_rate: int) -> Analysis:
    """Part a mono recording of one voice without accompaniment, and find its syllables."""
    import pyworld

    x = np.ascontiguousarray(waveform, dtype=np.float64)
    f0, times = pyworld.dio(x, sample_rate, f0_floor=65.0, f0_ceil=800.0, frame_period=_PERIOD_MS)
    f0 = pyworld.stonemask(x, f0, times, sample_rate)
    parts = Analysis(
        f0=f0,
        spectrum=pyworld.cheaptrick(x, f0, times, sample_rate).astype(np.float32),
        aperiodicity=pyworld.d4c(x, f0, times, sample_rate).astype(np.float32),
        sample_rate=sample_rate,
        syllables=(),
    )
    return dataclasses.replace(parts, syllables=find_syllables(f0, parts.power, RATE))


def sing_syllables(
    rng: Generator,
    sources: Sequence[tuple[Analysis, int]],
    notes: Sequence[Note],
    num_samples: int,
    sample_rate: int,
    *,
    tract: float = 1.0,
    vibrato_hz: float = 5.5,
    vibrato_cents: float = 40.0,
    drift_cents: float = 10.0,
    glide_seconds: float = 0.06,
    hard_tuned: bool = False,
) -> Float[np.ndarray, "time"]:
    """Sing notes on given syllables: (analysis, index of its syllable), one for each note.

    The analyses have one sample rate in common, which limits the bandwidth; the result is mono and
    float32 at `sample_rate`. `tract` is a factor on the formants. Hard tuning hits every pitch
    exactly and at once. The RMS while singing is 0.1.
    """
    manner = Manner(
        jitter=0.0015,
        vibrato_hz=vibrato_hz,
        vibrato_cents=vibrato_cents,
        vibrato_delay=0.25,
        glide=0.004 if hard_tuned else glide_seconds,
        scoop=0.0 if hard_tuned else 0.2,
        drift=0.0 if hard_tuned else drift_cents / 100,
        hard_tuned=hard_tuned,
    )
    return resynthesise(rng, sources, notes, notes, num_samples, sample_rate, manner, tract=tract)


def resynthesise(
    rng: Generator,
    sources: Sequence[tuple[Analysis, int]],
    notes: Sequence[Note],
    melody: Sequence[Note],
    num_samples: int,
    sample_rate: int,
    manner: Manner,
    *,
    tract: float = 1.0,
    melodic: float = 1.0,
    speech_hz: float = 200.0,
    breath: float = 0.0,
    whisper: bool = False,
) -> Float[np.ndarray, "time"]:
    """Lay syllables under `notes` while the pitch follows `melody`, which may have more notes.

    With `melodic` below 1 the pitch lies between the melody and the speech's own contour, moved to
    the mean `speech_hz`. `breath` (0 to 1) adds noise, first in the treble.
    """
    if not notes:
        return np.zeros(num_samples, np.float32)
    frames = count_frames(num_samples, sample_rate)
    spans = lay(rng, sources, notes, frames, RATE)
    level = np.log(loudness(spans, frames) + 1e-7).astype(np.float32)[:, None]
    return synthesise(
        follow(spans, pitch_track(rng, manner, melody, frames, RATE), melodic, speech_hz),
        blend(spans, lambda speech: speech.log_spectrum, frames) + level,
        blend(spans, lambda speech: speech.aperiodicity, frames),
        sources[0][0].sample_rate,
        num_samples,
        sample_rate,
        tract=tract,
        breath=breath,
        whisper=whisper,
    )


def count_frames(num_samples: int, sample_rate: int) -> int:
    """Frames that `num_samples` need."""
    return int(np.ceil(num_samples / sample_rate * RATE)) + 2


def synthesise(
    f0_hz: Float[np.ndarray, "frame"],
    log_spectrum: Float[np.ndarray, "frame bin"],
    aperiodicity: Float[np.ndarray, "frame bin"],
    source_rate: int,
    num_samples: int,
    sample_rate: int,
    *,
    tract: float,
    breath: float,
    whisper: bool,
) -> Float[np.ndarray, "time"]:
    """A waveform from WORLD's parts, at `sample_rate`; the arguments are `resynthesise`'s."""
    import pyworld

    hz = np.linspace(0, source_rate / 2, log_spectrum.shape[1])
    envelope = np.exp(2 * warp(log_spectrum, tract)) + np.float32(1e-14)
    low = int(np.searchsorted(hz, 1500))
    envelope[:, :low] *= np.square(rumble_cut(f0_hz, hz[:low]))
    treble = np.clip(hz / 4000, 0.05, 1).astype(np.float32)
    noise = 1 - (1 - warp(aperiodicity, tract)) * (1 - np.float32(breath) * treble)
    x = pyworld.synthesize(
        0 * f0_hz if whisper else f0_hz,
        np.ascontiguousarray(envelope, np.float64),
        np.ascontiguousarray(noise, np.float64),
        source_rate,
        _PERIOD_MS,
    )
    x = soxr.resample(x.astype(np.float32), source_rate, sample_rate)[:num_samples]
    x = np.pad(x, (0, num_samples - len(x)))
    return x * np.float32(0.1 / (dsp.rms(x[np.abs(x) > 0.05 * np.abs(x).max()]) + 1e-9))
