"""Pitched instruments that play single notes; a design is drawn once and is a function of pitch."""

from collections.abc import Callable

import numpy as np
import scipy.fft
from jaxtyping import Float
from numpy.random import Generator

from data_pipelines import dsp
from data_pipelines.dsp import Stereo

NoteMaker = Callable[[float], Stereo]
"""A stereo note of the design's full length at a MIDI pitch, with an RMS near 0.1 at its start."""


def _finish(note: Float[np.ndarray, "..."], sample_rate: int) -> Stereo:
    """Level by the first 0.3 s, soften the ends, make stereo."""
    head = note[: int(0.3 * sample_rate)]
    note = (note * np.float32(0.1 / (dsp.rms(head) + 1e-9))).astype(np.float32)
    if note.ndim == 1:
        note = np.stack([note, note], axis=1)
    end = min(len(note), int(0.05 * sample_rate))
    note[len(note) - end :] *= dsp.fade(end)[:, None]
    return note


def struck(rng: Generator, sample_rate: int, seconds: float) -> NoteMaker:
    """Piano-like: stiff double strings and a hammer; the treble dies first."""
    stiffness = np.exp(rng.uniform(-9.5, -7.0))
    tilt, decay0 = rng.uniform(0.6, 1.8), rng.uniform(0.6, 2.0)
    hardness, detune = rng.uniform(0.05, 0.3), rng.uniform(0.0003, 0.0025)
    spread, seed = rng.uniform(0.0, 0.3), int(rng.integers(2**62))

    def note(pitch: float) -> Stereo:
        local = np.random.default_rng([seed, int(pitch * 10)])
        n = int(seconds * sample_rate)
        k = np.arange(1, 29)
        f0 = dsp.midi_to_hz(pitch)
        f = f0 * k * np.sqrt(1 + stiffness * k**2)
        gain = (
            k**-tilt * np.exp(-k * f0 * hardness / 3000) * (0.3 + np.abs(np.sin(np.pi * k / 8.2)))
        )
        decay = decay0 * (220 / f0) ** 0.4 / (1 + 0.12 * k)
        sides = []
        for side in (-1, 1):
            both = np.concatenate([f * (1 - detune / 2), f * (1 + detune / 2)])
            gains = np.concatenate([gain, gain]) * (1 + side * spread * local.uniform(-1, 1, 56))
            decays = np.concatenate([decay, decay * 0.5])
            phases = local.uniform(0, 6.28, 56)
            sides.append(dsp.modal(both, decays, gains, phases, n, sample_rate))
        x = np.stack(sides, axis=1)
        knock = dsp.shaped_noise(local, n, sample_rate, 100.0, 1500.0)
        t = np.arange(n, dtype=np.float32) / sample_rate
        x += (knock * np.exp(-t / np.float32(0.012)) * np.float32(0.4))[:, None]
        attack = int(0.002 * sample_rate)
        x[:attack] *= dsp.fade(attack)[::-1, None]
        return _finish(x, sample_rate)

    return note


def plucked(rng: Generator, sample_rate: int, seconds: float, bass: bool = False) -> NoteMaker:
    """Guitar, bass, harp, banjo or a filtered synth: harmonics with a pluck position."""
    where = rng.uniform(0.08, 0.45)
    tilt = rng.uniform(0.7, 1.6) + 0.3 * bass
    decay0 = rng.uniform(0.25, 1.2) + 0.4 * bass
    damping = np.exp(rng.uniform(np.log(0.02), np.log(0.3)))
    stiffness, seed = np.exp(rng.uniform(-12, -9)), int(rng.integers(2**62))
    body = [(rng.uniform(90, 130), 4.0), (rng.uniform(180, 260), 4.0), (rng.uniform(350, 700), 2.0)]

    def note(pitch: float) -> Stereo:
        local = np.random.default_rng([seed, int(pitch * 10)])
        n = int(seconds * sample_rate)
        f0 = dsp.midi_to_hz(pitch)
        k = np.arange(1, min(48, int(0.45 * sample_rate / f0)) + 1)
        f = f0 * k * np.sqrt(1 + stiffness * k**2)
        gain = (
            k**-tilt * (0.1 + np.abs(np.sin(np.pi * k * where))) * local.uniform(0.7, 1.3, len(k))
        )
        for hz, strength in body:
            gain *= 1 + strength * np.exp(-((np.log2(f / hz) * 3) ** 2)) * (not bass)
        decay = decay0 * (200 / f0) ** 0.3 / (1 + damping * k)
        x = dsp.modal(f, decay, gain, local.uniform(0, 6.28, len(k)), n, sample_rate)
        t = np.arange(n, dtype=np.float32) / sample_rate
        pick = dsp.shaped_noise(local, n, sample_rate, 600.0 if bass else 1500.0, 7000.0)
        peak = np.float32(0.25 * dsp.rms(x[: n // 8]))
        x += pick * np.exp(-t / np.float32(0.006)) * peak
        attack = int(0.0015 * sample_rate)
        x[:attack] *= dsp.fade(attack)[::-1]
        return _finish(x, sample_rate)

    return note


def bell(rng: Generator, sample_rate: int, seconds: float) -> NoteMaker:
    """Electric piano, vibraphone, marimba, bells: a few partials, some inharmonic."""
    sets = ([1, 2, 3, 14.0], [1, 4.0, 10.0], [1, 2.76, 5.4, 8.9], [1, 2, 3, 4.2, 5.4], [1, 3, 7.0])
    ratios = np.array(sets[int(rng.integers(len(sets)))], np.float64)
    gain = ratios ** -rng.uniform(0.6, 1.6) * rng.uniform(0.5, 1.0, len(ratios))
    decay = rng.uniform(0.3, 1.5) / ratios ** rng.uniform(0.3, 0.8)
    speed, depth = rng.uniform(3, 7), float(rng.choice([0.0, 0.0, 0.4]))

    def note(pitch: float) -> Stereo:
        n = int(seconds * sample_rate)
        f = dsp.midi_to_hz(pitch) * ratios
        x = dsp.modal(f, decay, gain, np.full(len(f), -np.pi / 2), n, sample_rate)
        swing = depth * np.sin(2 * np.pi * speed * np.arange(n) / sample_rate)
        return _finish(np.stack([x * (1 + swing), x * (1 - swing)], axis=1), sample_rate)

    return note


def sustained(rng: Generator, sample_rate: int, seconds: float, kind: str) -> NoteMaker:
    """Strings, brass, organ or synth pads: spectra with spread partials, turned by one inverse FFT.

    A Gaussian band around each partial with random phases sounds like an ensemble; the note fills
    exactly one FFT, so it may be repeated without a seam.
    """
    size = scipy.fft.next_fast_len(int(seconds * sample_rate), real=True)
    f = scipy.fft.rfftfreq(size, 1 / sample_rate)
    seed = int(rng.integers(2**62))
    tilt = {"organ": 0.0, "strings": 1.0, "brass": 0.9, "pad": 1.3, "saw": 1.0}[kind]
    cents = {"organ": 0.6, "strings": 14.0, "brass": 7.0, "pad": 16.0, "saw": 10.0}[kind]
    cents *= float(rng.uniform(0.6, 1.5))
    cutoff = float(np.exp(rng.uniform(np.log(1200), np.log(9000))))
    bars = rng.integers(0, 9, 9) / 8.0
    humps = [
        (np.exp(rng.uniform(np.log(300), np.log(5000))), rng.uniform(0, 2.5)) for _ in range(3)
    ]

    def note(pitch: float) -> Stereo:
        local = np.random.default_rng([seed, int(pitch * 10)])
        f0 = dsp.midi_to_hz(pitch)
        if kind == "organ":
            ratios = np.array([0.5, 1.5, 1, 2, 3, 4, 5, 6, 8])
            gains = bars + 0.15
        else:
            ratios = np.arange(
                1, max(2, min(60, int(0.45 * sample_rate / f0))) + 1, dtype=np.float64
            )
            gains = ratios**-tilt / (1 + (ratios * f0 / cutoff) ** 2)
        spectrum = np.zeros((2, len(f)), np.complex64)
        for ratio, gain in zip(ratios, gains, strict=True):
            centre = f0 * ratio
            for hz, strength in humps:
                gain *= 1 + strength * np.exp(-((np.log2(centre / hz) * 2) ** 2))
            width = max(centre * (2 ** (cents / 1200) - 1), 0.6 / seconds)
            low = np.searchsorted(f, centre - 3 * width)
            high = np.searchsorted(f, centre + 3 * width) + 1
            line = np.exp(-0.5 * ((f[low:high] - centre) / width) ** 2)
            phases = np.exp(2j * np.pi * local.random((2, len(line))))
            spectrum[:, low:high] += gain / np.sqrt(np.sum(line**2) + 1e-9) * line * phases
        x = scipy.fft.irfft(spectrum, size, axis=-1).T
        return (x * np.float32(0.1 / (dsp.rms(x) + 1e-12))).astype(np.float32)

    return note
