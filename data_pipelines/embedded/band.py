"""The band: drums, bass, chords and a lead, mixed in stereo with a room."""

import numpy as np
from numpy.random import Generator

from data_pipelines import dsp
from data_pipelines.dsp import Stereo
from data_pipelines.embedded.backing import bass_track, chord_track
from data_pipelines.embedded.composition import Composition
from data_pipelines.embedded.drums import drum_track
from data_pipelines.embedded.lead import lead_track


def play(rng: Generator, score: Composition, n: int, sample_rate: int) -> Stereo:
    """Renders the accompaniment of a song: stereo, mixed, in its room; the level is free."""
    mix = np.zeros((n, 2), np.float32)
    wet = np.zeros((n, 2), np.float32)
    acoustic = bool(rng.random() < 0.12)
    parts: list[tuple[np.ndarray, float, float]] = []
    if not acoustic:
        parts.append((drum_track(rng, score, n, sample_rate), rng.normal(0, 2.5), 0.1))
    if rng.random() < 0.93:
        parts.append((bass_track(rng, score, n, sample_rate), rng.normal(-2, 2.5), 0.02))
    for index in range(int(rng.choice([1, 2, 3], p=[0.25, 0.5, 0.25]))):
        spread = float(rng.uniform(-0.8, 0.8)) if index or rng.random() < 0.5 else 0.0
        # To a side without making it mono.
        sides = np.array([1 - max(spread, 0), 1 + min(spread, 0)], np.float32)
        track = chord_track(rng, score, n, sample_rate) * sides
        parts.append((track, rng.normal(-4, 3), rng.uniform(0.05, 0.4)))
    if score.lead and rng.random() < 0.85:
        track = lead_track(rng, score.lead, n, sample_rate)
        stereo = dsp.pan(track, float(np.clip(rng.normal(0, 0.35), -0.9, 0.9)))
        parts.append((stereo, rng.normal(-4, 3), rng.uniform(0.1, 0.5)))
    for track, level_db, send in parts:
        loud = dsp.active_rms(track, sample_rate // 5, 0.05)
        if loud < 1e-6:
            continue
        gain = np.float32(0.1 / loud * dsp.db_to_gain(float(np.clip(level_db, -12, 4))))
        mix += track * gain
        wet += track * (gain * np.float32(send * rng.uniform(0.3, 1.0)))
    seconds = float(rng.uniform(0.3, 2.2))
    impulse = dsp.room(rng, sample_rate, seconds, float(rng.uniform(1000, 5000)), 0.01)
    mix += dsp.reverberate(wet, impulse)
    shape = {80.0: 0.0, 300.0: 1.0, 800.0: 4.0, 2000.0: 5.0, 5000.0: 4.0, 12000.0: 2.0}
    curve = [(20.0, -20.0), *((hz, float(rng.normal(mean, 2.5))) for hz, mean in shape.items())]
    mix = dsp.equalise(mix, sample_rate, curve)
    if rng.random() < 0.15:
        mid = dsp.mono(mix)[:, None]
        mix = mid + (mix - mid) * np.float32(rng.uniform(0.0, 0.4))
    if rng.random() < 0.6:
        ratio, threshold = float(rng.uniform(1.5, 4)), float(rng.uniform(-6, 2))
        mix = dsp.compress(mix, sample_rate, ratio, threshold)
    return mix
