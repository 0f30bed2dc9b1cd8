"""Embedded songs: composed and rendered from a seed, with no download."""

import numpy as np

from data_pipelines.embedded.production import produce
from data_pipelines.source import SPLITS, Split, block_rms

VERSION = 2
"""Incremented whenever the sound of any song changes; part of every seed and cache file's name."""

MIN_SECONDS = 0.05
"""The shortest song."""


def render_song(
    *, split: Split, seed: int, song: int, seconds: float, sample_rate: int = 44100
) -> np.ndarray:
    """Composes and renders song number `song`: a pure function of its arguments and `VERSION`.

    Equal to the bit on one machine; another numpy build or processor may change the last bit of a
    sample.

    Returns:
        One record, as it is stored: `audio`, int16 [vocals and accompaniment, time, channel];
        `scale`, the factor from it to the waveform; `activity`, RMS of the vocals in each block of
        `source.ACTIVITY_BLOCK` samples.
    """
    entropy = [VERSION, SPLITS.index(split), seed, song]
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))
    stems = np.stack(produce(rng, seconds, sample_rate))
    scale = np.float32(max(float(np.abs(stems).max(initial=0.0)), 1e-6) / 32767)
    audio = np.round(stems / scale).astype(np.int16)
    activity = block_rms(audio[0] * scale)
    fields: list[tuple] = [
        ("scale", np.float32),
        ("activity", np.float32, activity.shape),
        ("audio", np.int16, audio.shape),
    ]
    return np.array([(scale, activity, audio)], fields)
