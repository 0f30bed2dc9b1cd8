"""Singing with hibari-tts: its network's spectra under another pitch.

The network gives, for each 12.5 ms, the logarithms of a harmonic and of a noise spectrum, their
phases and f0. A waveform is a pulse train of any f0 through the first, plus noise through the
second, so singing needs no vocoder. Only the voice inside the package is used; nothing downloads.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import soxr
from jaxtyping import Complex64, Float
from numpy.random import Generator

from data_pipelines.dsp import Mono
from data_pipelines.embedded.articulation import pitch_track
from data_pipelines.embedded.composition import Note
from data_pipelines.sung import syllables
from data_pipelines.sung.syllables import Speech, Treatment

SAMPLE_RATE = 24000
RATE = 80.0
"""Frames per second."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line(Speech):
    """A line of text as the network speaks it, `RATE` frames per second.

    Attributes:
        harmonic: log amplitude of the harmonics, smooth over frequency.
        rotation: phases of the harmonics, as unit vectors.
        noise: log amplitude of the noise.
        grain: phases of the noise, which shape bursts.
    """

    harmonic: Float[np.ndarray, "frame bin"]
    rotation: Complex64[np.ndarray, "frame bin"]
    noise: Float[np.ndarray, "frame bin"]
    grain: Complex64[np.ndarray, "frame bin"]


@functools.cache
def synthesiser() -> Any:
    """The package's speaker, on one thread."""
    from hibari import Hibari

    return Hibari(voice="heart", threads=1)


@functools.lru_cache(maxsize=16)
def speak(text: str) -> Line:
    """The network's output for one sentence."""
    tts = synthesiser()
    ids = np.array([tts.ids("".join(tts.phonemize(text)))], np.int64)
    outputs = tts.sess.run(None, {"ids": ids, "speed": np.array([0.9], np.float32)})
    harmonic, angle, hiss, noise, phase, f0 = (x[0].T for x in outputs)
    f0 = np.where(f0 > 40, f0, 0.0)
    harmonic = np.minimum(harmonic, 7.0)
    bins = np.arange(harmonic.shape[1])
    hz = SAMPLE_RATE / 2 / bins[-1]
    for frame in np.flatnonzero(f0):
        # In speech, only values at the harmonics are heard; those between are arbitrary.
        at = np.round(np.arange(f0[frame], 11000, f0[frame]) / hz).astype(int)
        harmonic[frame] = np.interp(bins, at, harmonic[frame, at])
    noise = np.logaddexp(np.minimum(noise, 7.0), np.minimum(hiss, 7.0))
    vowels = slice(int(400 / hz), int(4500 / hz))
    power = (np.exp(2 * harmonic) * (f0 > 0)[:, None] + np.exp(2 * noise))[:, vowels].mean(axis=1)
    return Line(
        f0=f0,
        power=power,
        syllables=syllables.find_syllables(f0, power, RATE),
        harmonic=harmonic,
        rotation=np.exp(1j * np.pi * np.tanh(angle)),
        noise=noise,
        grain=np.exp(1j * phase),
    )


def sing_lines(
    rng: Generator,
    sources: Sequence[tuple[Line, int]],
    notes: Sequence[Note],
    melody: Sequence[Note],
    num_samples: int,
    sample_rate: int,
    treatment: Treatment,
) -> Mono:
    """As `world.resynthesise`, on syllables of lines."""
    from hibari import dsp as synthesis

    frames = int(np.ceil(num_samples / sample_rate * RATE)) + 2
    spans = syllables.lay(rng, sources, notes, frames, RATE)
    amplitude = syllables.loudness(spans, frames).astype(np.float32)[:, None]
    harmonic = syllables.warp(syllables.blend(spans, "harmonic", frames), treatment.tract)
    voice = np.exp(harmonic) * amplitude
    hiss = syllables.warp(syllables.blend(spans, "noise", frames), treatment.tract)
    noise = np.exp(hiss) * amplitude
    pitch = pitch_track(rng, treatment.manner, melody, frames, RATE)
    f0 = syllables.follow(spans, pitch, treatment)
    hz = np.linspace(0, SAMPLE_RATE / 2, voice.shape[1])
    noise *= syllables.rumble_cut(f0, hz)
    grain = syllables.blend(spans, "grain", frames)
    for span in spans:
        # Where time is stretched the phases of the noise would repeat and buzz. What was part of
        # the voice under the network's own phases is less loud as noise.
        held = np.flatnonzero(np.abs(np.gradient(span.positions) - 1) > 0.2) + span.first
        grain[held] = np.exp(2j * np.pi * rng.random((len(held), grain.shape[1]), np.float32))
        noise[held] *= np.where((f0[held] > 0)[:, None], np.clip(hz / 6000, 0.3, 1), 1)
    treble = np.clip(hz / 4000, 0.05, 1).astype(np.float32)
    # So that `breath` is relative to the harmonics, which are the sparser the higher they are.
    breath = 1.0 if treatment.whisper else treatment.breath
    air = breath * np.sqrt(30 / np.maximum(f0, 30)) * (f0 > 0)
    noise += air.astype(np.float32)[:, None] * treble * voice
    grain /= np.abs(grain) + 1e-6
    spectrum = noise * grain
    if not treatment.whisper:
        rotation = syllables.blend(spans, "rotation", frames)
        rotation /= np.abs(rotation) + 1e-6
        pulses = synthesis.stft(synthesis.pulses(f0), frames).T
        spectrum += pulses * rotation * voice
    x = synthesis.ola(spectrum.T)
    x = soxr.resample(x, SAMPLE_RATE, sample_rate)[:num_samples]
    return np.pad(x, (0, num_samples - len(x)))
