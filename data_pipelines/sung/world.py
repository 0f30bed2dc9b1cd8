"""Speech turned into singing with WORLD: its pitch replaced by a melody, its vowels held.

WORLD splits a voice into f0, a smooth spectrum and the share of noise in each band (Morise,
Yokomori and Ozawa 2016, by the package pyworld). Any speaker will do.
"""

from collections.abc import Sequence

import numpy as np
import soxr
from numpy.random import Generator

from data_pipelines import dsp
from data_pipelines.dsp import Mono
from data_pipelines.embedded.articulation import pitch_track
from data_pipelines.embedded.composition import Note
from data_pipelines.sung import syllables
from data_pipelines.sung.syllables import PERIOD_MS, RATE, Analysis, Treatment


def analyse(waveform: Mono, sample_rate: int) -> Analysis:
    """Analyses a mono recording of one voice without accompaniment; finds its syllables."""
    import pyworld

    x = np.ascontiguousarray(waveform, dtype=np.float64)
    f0, times = pyworld.dio(x, sample_rate, f0_floor=65.0, f0_ceil=800.0, frame_period=PERIOD_MS)
    f0 = pyworld.stonemask(x, f0, times, sample_rate)
    spectrum = pyworld.cheaptrick(x, f0, times, sample_rate).astype(np.float32)
    scale = 2 * (spectrum.shape[1] - 1) / sample_rate
    power = spectrum[:, int(400 * scale) : int(4500 * scale)].mean(axis=1)
    return Analysis(
        f0=f0,
        power=power,
        syllables=syllables.find_syllables(f0, power),
        spectrum=spectrum,
        aperiodicity=pyworld.d4c(x, f0, times, sample_rate).astype(np.float32),
        sample_rate=sample_rate,
    )


def resynthesise(
    rng: Generator,
    sources: Sequence[tuple[Analysis, int]],
    notes: Sequence[Note],
    melody: Sequence[Note],
    num_samples: int,
    sample_rate: int,
    treatment: Treatment,
) -> Mono:
    """Lays syllables under `notes` while the pitch follows `melody`, which may have more notes.

    `sources`: (analysis, index of its syllable), one for each note. The analyses share a sample
    rate, which limits the bandwidth. The result is mono float32, at an RMS of 0.1 while it sounds.
    """
    import pyworld

    frames = int(np.ceil(num_samples / sample_rate * RATE)) + 2
    spans = syllables.lay(rng, sources, notes, frames)
    pitch = pitch_track(rng, treatment.manner, melody, frames, RATE)
    f0 = syllables.follow(spans, pitch, treatment)
    level = np.log(syllables.loudness(spans, frames) + 1e-7).astype(np.float32)[:, None]
    log_spectrum = syllables.blend(spans, "log_spectrum", frames) + level
    source_rate = sources[0][0].sample_rate
    hz = np.linspace(0, source_rate / 2, log_spectrum.shape[1])
    envelope = np.exp(2 * syllables.warp(log_spectrum, treatment.tract)) + np.float32(1e-14)
    low = int(np.searchsorted(hz, 1500))
    envelope[:, :low] *= np.square(syllables.rumble_cut(f0, hz[:low]))
    treble = np.clip(hz / 4000, 0.05, 1).astype(np.float32)
    voiced_share = 1 - syllables.warp(
        syllables.blend(spans, "aperiodicity", frames), treatment.tract
    )
    noise = 1 - voiced_share * (1 - np.float32(treatment.breath) * treble)
    x = pyworld.synthesize(
        0 * f0 if treatment.whisper else f0,
        np.ascontiguousarray(envelope, np.float64),
        np.ascontiguousarray(noise, np.float64),
        source_rate,
        PERIOD_MS,
    )
    x = soxr.resample(x.astype(np.float32), source_rate, sample_rate)[:num_samples]
    x = np.pad(x, (0, num_samples - len(x)))
    return x * np.float32(0.1 / (dsp.rms(x[np.abs(x) > 0.05 * np.abs(x).max()]) + 1e-9))
