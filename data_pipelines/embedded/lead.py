"""Monophonic instruments that glide from note to note: the lead, and the synthesiser's bass."""

import numpy as np
import scipy.ndimage
from jaxtyping import Float
from numpy.random import Generator

from data_pipelines import dsp
from data_pipelines.dsp import Mono
from data_pipelines.embedded.composition import Note

HOP = 128
"""Samples between two values of a control track."""


def continuous(
    rng: Generator,
    notes: tuple[Note, ...],
    n: int,
    sample_rate: int,
    gains: Float[np.ndarray, "harmonic"],
    glide: float,
    vibrato: float,
    attack: float,
    dull: Float[np.ndarray, "harmonic"] | None = None,
) -> Mono:
    """A monophonic instrument that glides between notes; `dull` is the timbre of soft ones."""
    if not notes:
        return np.zeros(n, np.float32)
    frames, rate = n // HOP + 2, sample_rate / HOP
    time = np.arange(frames) / rate
    when: list[float] = []
    pitch: list[float] = []
    level_at: list[float] = [-1.0]
    level: list[float] = [0.0]
    depth = np.zeros(frames)
    release = float(rng.uniform(0.03, 0.15))
    sag = float(rng.choice([1.0, 0.7, 0.25]))
    for i, note in enumerate(notes):
        when += [note.start, note.end]
        pitch += [note.pitch, note.pitch]
        tied = i > 0 and note.start - notes[i - 1].end < 0.01 and rng.random() < 0.5
        if not tied:
            level_at.append(max(note.start, level_at[-1] + 1e-4))
            level.append(0.1 * note.velocity if i and level[-1] > 0 else 0.0)
        for at, value in (
            (note.start + attack, note.velocity),
            (note.start + 0.9 * (note.end - note.start), note.velocity * sag),
        ):
            if at > level_at[-1]:
                level_at.append(at)
                level.append(value)
        if i + 1 == len(notes) or notes[i + 1].start - note.end > 0.02:
            level_at.append(max(note.end + release, level_at[-1] + 1e-4))
            level.append(0.0)
        a, b = int((note.start + 0.15) * rate), int(note.end * rate)
        if vibrato and b > a + 4:
            depth[a : min(b, frames)] = rng.uniform(0.4, 1.2)
    order = np.argsort(when, kind="stable")
    track = np.interp(time, np.array(when)[order], np.array(pitch)[order])
    track = scipy.ndimage.gaussian_filter1d(track, max(glide * rate, 0.3))
    if vibrato:
        speed = rng.uniform(4.5, 7.0) * (1 + 0.05 * dsp.smooth_noise(rng, frames, rate, 1.5))
        depth = scipy.ndimage.gaussian_filter1d(depth, 0.08 * rate)
        track += vibrato * depth * np.sin(2 * np.pi * np.cumsum(speed) / rate)
    track += rng.uniform(0, 0.08) * dsp.smooth_noise(rng, frames, rate, 2.0)
    f0 = np.clip(440.0 * 2 ** ((track - 69) / 12), 25.0, 4000.0)
    envelope = np.interp(time, level_at, level).astype(np.float32)
    phase = dsp.phase_of(dsp.upsample(f0, HOP, n), sample_rate)
    phases = np.exp(2j * np.pi * rng.random(len(gains)))
    x = dsp.oscillate(dsp.wavetables(gains * phases), phase, f0, HOP, sample_rate)
    if dull is not None:
        soft = dsp.oscillate(dsp.wavetables(dull * phases), phase, f0, HOP, sample_rate)
        x = soft + (x - soft) * dsp.upsample(np.clip(envelope, 0, 1) ** 2, HOP, n)
    return x * dsp.upsample(envelope, HOP, n) * np.float32(0.1)


def lead_track(rng: Generator, notes: tuple[Note, ...], n: int, sample_rate: int) -> Mono:
    """A lead with glides and vibrato: synth, violin, flute, trumpet, electric guitar, theremin."""
    design = str(rng.choice(["saw", "square", "violin", "flute", "trumpet", "guitar", "sine"]))
    k = np.arange(1.0, 201.0)
    bright = {
        "saw": k**-1.0,
        "square": k**-1.0 * (k % 2 + 0.02),
        "violin": k**-0.9,
        "flute": np.exp(-0.9 * (k - 1)) * (0.4 + 0.6 * (k % 2)),
        "trumpet": np.exp(-0.12 * k) * (k**0.3),
        "guitar": k**-1.1 * (0.1 + np.abs(np.sin(k * 0.7))),
        "sine": np.where(k < 2, 1.0, 0.02 * k**-2.0),
    }[design]
    dull = bright * np.exp(-0.25 * (k - 1)) if design in ("violin", "trumpet", "saw") else None
    attack = {"violin": 0.07, "flute": 0.05, "trumpet": 0.04, "sine": 0.06}.get(design, 0.01)
    vibrato = {"violin": 0.35, "flute": 0.2, "trumpet": 0.2, "guitar": 0.3, "sine": 0.5}.get(design)
    x = continuous(
        rng, notes, n, sample_rate, bright,
        glide=float(rng.uniform(0.005, 0.06)),
        vibrato=float(rng.choice([0.0, 0.25]) if vibrato is None else vibrato),
        attack=attack, dull=dull,
    )  # fmt: skip
    if design == "flute":
        envelope = np.sqrt(scipy.ndimage.uniform_filter1d(x * x, 1024).clip(0))
        x += dsp.shaped_noise(rng, n, sample_rate, 800.0, 6000.0) * envelope * np.float32(0.12)
    if design == "guitar":
        x = np.tanh(x * np.float32(rng.uniform(5, 60))) * np.float32(0.1)
    curve = [(30.0, -12.0), (120.0, 0.0)]
    curve += [(float(hz), float(rng.normal(0, 5))) for hz in (300, 600, 1100, 2200, 4000)]
    top = float(rng.uniform(5000, 14000))
    curve += [(top, -4.0), (top * 2, -24.0)]
    return dsp.equalise(x[:, None], sample_rate, curve)[:, 0]
