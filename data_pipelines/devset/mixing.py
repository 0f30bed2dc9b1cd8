"""Mixes a voice and an excerpt of a band into a clip: level, panning, room, silence."""

import numpy as np
import scipy.signal
from jaxtyping import Float
from numpy.random import Generator

from data_pipelines.devset.lines import SAMPLE_RATE, sounding
from data_pipelines.dsp import Mono, Stereo, db_to_gain, mono, reverberate, rms
from data_pipelines.song_folders import Song

LEVEL_DB = (-6.0, 3.0)
"""Vocals against the band, while they sound."""
LEAST_SILENCE_SECONDS = 1.0
_BLOCK, _SILENCE_DB = 2_048, -60.0  # as in the measure of leakage
_PEAK = 0.89
_GATE_DB, _GATE_SECONDS = -40.0, 0.02


def mix(
    rng: Generator, voice: Stereo, band: Stereo, *, off_centre: bool, reverberant: bool
) -> Song:
    """A dry voice over a band of its length; the mixture's peak is 0.89.

    If reverberation leaves less than a second of silence, a gate shortens its tails.
    """
    level_db = rng.uniform(*LEVEL_DB)
    side_db = rng.choice([-1, 1]) * rng.uniform(1, 2.5) if off_centre else 0.0
    dry = mono(voice)
    vocals = voice * np.array([db_to_gain(side_db), db_to_gain(-side_db)])
    room_seconds = 0.0
    if reverberant:
        room_seconds = rng.uniform(0.35, 1.3)
        vocals = vocals + reverberate(voice, _room(rng, room_seconds))
    mask = sounding(dry)
    vocals *= db_to_gain(level_db) * rms(band[: len(mask)][mask]) / rms(vocals[: len(mask)][mask])
    vocals = _gated(vocals, dry, band)
    gain = _PEAK / np.abs(vocals + band).max()
    return Song(
        vocals=(vocals * gain).astype(np.float32),
        accompaniment=(band * gain).astype(np.float32),
        facts={
            "level_db": round(level_db, 2),
            "rt60_s": round(room_seconds, 2),
            "left_minus_right_db": round(2 * side_db, 2),
            "voice_active": round(float(mask.mean()), 2),
        },
    )


def _room(rng: Generator, seconds: float) -> Float[np.ndarray, "tap 2"]:
    """Dull noise that falls by 60 dB in `seconds`, after a pre-delay; 5 to 11 dB below the dry."""
    t = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    noise = scipy.signal.lfilter([0.35], [1, -0.65], rng.standard_normal((len(t), 2)), axis=0)
    tail = noise * np.exp(-6.91 * t / seconds)[:, None]
    predelay = int(rng.uniform(0.008, 0.03) * SAMPLE_RATE)
    tail *= db_to_gain(rng.uniform(-11, -5)) / np.sqrt(np.square(tail).sum(axis=0))
    return np.pad(tail, ((predelay, 0), (0, 0)))


def silent_seconds(vocals: Stereo, accompaniment: Stereo) -> float:
    """Time of the blocks of 2,048 samples in which the vocals are 60 dB below the clip's mixture.

    These are the blocks in which leakage is measured.
    """
    whole = len(vocals) // _BLOCK * _BLOCK
    levels = np.sqrt(np.square(vocals[:whole].reshape(-1, 2 * _BLOCK)).mean(axis=1))
    silent = levels < db_to_gain(_SILENCE_DB) * rms(vocals + accompaniment)
    return int(silent.sum()) * _BLOCK / SAMPLE_RATE


def _gated(vocals: Stereo, dry: Mono, band: Stereo) -> Stereo:
    """The vocals with their tails cut, as late as still leaves enough silence."""
    if silent_seconds(vocals, band) >= LEAST_SILENCE_SECONDS:
        return vocals
    time = np.arange(len(dry)) / SAMPLE_RATE
    sounds = np.abs(dry) > db_to_gain(_GATE_DB) * np.abs(dry).max()
    since = time - np.maximum.accumulate(np.where(sounds, time, -np.inf))
    gated = vocals
    for hold in np.linspace(1, 0, 101):
        closing = np.clip((since - hold) / _GATE_SECONDS, 0, 1)
        gated = vocals * (0.5 + 0.5 * np.cos(np.pi * closing))[:, None]
        if silent_seconds(gated, band) >= LEAST_SILENCE_SECONDS:
            break
    return gated
