"""A voice from notes and lyrics to a waveform, dry and mono.

A pulse train with jitter, shimmer, vibrato and glides is mixed with aspiration noise that breathes
with the glottis and passes a vocal tract whose resonances move. Consonants are silences, murmurs,
formant loci and noise bursts between the vowels.
"""

import numpy as np
import scipy.ndimage
from numpy.random import Generator

from data_pipelines import dsp
from data_pipelines.dsp import Mono
from data_pipelines.embedded import tract
from data_pipelines.embedded.articulation import articulate, pitch_track
from data_pipelines.embedded.composition import Note
from data_pipelines.embedded.phonetics import Syllable, random_syllable
from data_pipelines.embedded.singer import Singer

HOP = 128
"""Samples between two values of a control track."""


def write_lyrics(rng: Generator, count: int, melisma: float) -> list[Syllable | None]:
    """One syllable per note; None holds the vowel of the note before."""
    return [None if i and rng.random() < melisma else random_syllable(rng) for i in range(count)]


def sing(
    rng: Generator,
    singer: Singer,
    notes: tuple[Note, ...],
    lyrics: list[Syllable | None],
    n: int,
    sample_rate: int,
) -> Mono:
    """Renders notes to `n` samples, mono and dry, with an RMS near 0.1 while singing."""
    frames = n // HOP + 2
    rate = sample_rate / HOP
    if not notes:
        return np.zeros(n, np.float32)
    tracks = articulate(rng, singer, notes, lyrics)
    time = np.arange(frames) / rate
    level = np.interp(time, tracks.level_times, tracks.level, 0, 0)
    breath = np.interp(time, tracks.level_times, tracks.breath, 0, 0)
    f0 = pitch_track(rng, singer, notes, frames, rate)
    shimmer = 1 + singer.shimmer * np.clip(rng.standard_normal(frames), -2.5, 2.5)
    swell = 10 ** (dsp.smooth_noise(rng, frames, rate, 0.7) * 1.5 / 20)
    effort = np.clip(level * swell, 0, 1.3)

    phase = dsp.phase_of(dsp.upsample(f0, HOP, n), sample_rate)
    tense = dsp.oscillate(
        tract.glottal_tables(round(singer.open_quotient, 2)), phase, f0, HOP, sample_rate
    )
    amplitude = dsp.upsample((level * swell * shimmer).astype(np.float32), HOP, n)
    if singer.roughness:
        growl = singer.roughness * np.clip(dsp.smooth_noise(rng, frames, rate, 2.0) + 0.3, 0, 1.5)
        half = np.cos(np.pi * (phase % 2.0)).astype(np.float32)
        amplitude *= 1 + dsp.upsample(growl.astype(np.float32), HOP, n) * half
    source = tense * amplitude * np.float32(not singer.whisper)
    air = tract.untilted_noise(rng, singer, n, sample_rate)
    pulse = 0.0 if singer.whisper else 0.45
    gate = 0.55 + pulse * np.sin(2 * np.pi * (phase - np.floor(phase)).astype(np.float32))
    aspiration = singer.breath * level * swell + breath
    source += air * gate * dsp.upsample(aspiration.astype(np.float32), HOP, n)

    formants = np.array(tracks.formants) * (np.array(singer.formant_spread) * singer.tract)
    centre = (np.arange(-(-n // tract.FRAME_HOP) + 1) * tract.FRAME_HOP) / sample_rate
    moving = np.stack(
        [np.interp(centre, tracks.shape_times, column) for column in formants.T], axis=1
    )
    moving = scipy.ndimage.gaussian_filter1d(moving, 0.9, axis=0)
    nasal = np.interp(centre, tracks.shape_times, tracks.nasal) + 0.3 * singer.nasality
    pitch = np.interp(centre, time, f0)
    strength = np.interp(centre, time, effort)
    active = np.interp(centre, time, scipy.ndimage.maximum_filter1d(level + breath, 9)) > 1e-5
    out = tract.vocal_tract(
        singer, source, moving, np.clip(nasal, 0, 1), pitch, strength, active, sample_rate
    )
    voiced = np.repeat(active, tract.FRAME_HOP)[:n]
    out *= np.float32(0.1 / (dsp.rms(out[voiced]) + 1e-9))
    for start, seconds, low, high, gain in tracks.bursts:
        count = max(32, int(seconds * sample_rate))
        noise = dsp.shaped_noise(rng, count, sample_rate, low, high, 3.0)
        attack = max(8, min(count // 3, int(0.025 * sample_rate * min(1.0, seconds / 0.08))))
        noise[:attack] *= dsp.fade(attack)[::-1]
        noise[count - count // 3 :] *= dsp.fade(count // 3)
        dsp.place(out, noise * np.float32(0.1 * gain), int(start * sample_rate))
    return out
