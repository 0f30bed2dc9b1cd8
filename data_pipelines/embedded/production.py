"""The studio: doubles, harmonies, effects and place of the voice, and its balance with the band."""

import dataclasses

import numpy as np
from numpy.random import Generator

from data_pipelines import dsp
from data_pipelines.dsp import Stereo
from data_pipelines.embedded import band, voice
from data_pipelines.embedded.composition import Composition, Note, compose
from data_pipelines.embedded.singer import Singer, random_singer


def produce(rng: Generator, seconds: float, sample_rate: int) -> tuple[Stereo, Stereo]:
    """Compose, sing, play and mix one song: (vocals, accompaniment), float32, peaks below 1.

    Over the blocks where the voice is active, the vocals lie about 3 dB below the accompaniment
    (-9 to +3 dB over songs); the mixture's RMS is about 0.1 (0.04 to 0.2).
    """
    n = round(seconds * sample_rate)
    singer = random_singer(rng)
    density = 2.4 if singer.speech else float(rng.choice([0.7, 1.2, 1.7, 2.2]))
    score = compose(rng, seconds, singer.centre, density)
    vocals = sing_song(rng, singer, score, n, sample_rate)
    accompaniment = band.play(rng, score, n, sample_rate)

    ratio_db = float(np.clip(rng.normal(-2.5, 3.0), -9.0, 3.0))
    vocals = vocals * np.float32(balance(vocals, accompaniment, sample_rate, ratio_db))
    loudness = 0.1 * np.exp(float(np.clip(rng.normal(0, 0.35), -0.9, 0.7)))
    mixture = vocals + accompaniment
    peak = max(float(np.abs(x).max(initial=0.0)) for x in (mixture, vocals, accompaniment))
    gain = np.float32(min(loudness / (dsp.rms(mixture) + 1e-9), 0.99 / (peak + 1e-9)))
    return vocals * gain, accompaniment * gain


def balance(vocals: Stereo, accompaniment: Stereo, sample_rate: int, ratio_db: float) -> float:
    """The gain of the vocals that brings them to `ratio_db` against the band while they sound.

    1 where either is silent.
    """
    n = len(vocals)
    block = max(1, sample_rate // 10)
    count = max(1, n // block)
    power = np.square(vocals[: count * block]).reshape(count, -1).mean(axis=1)
    active = power > 0.03 * (power.max() + 1e-12)
    behind = np.square(accompaniment[: count * block]).reshape(count, -1).mean(axis=1)
    sung = np.sqrt(power[active].mean()) if active.any() else 0.0
    played = np.sqrt(max(behind[active].mean() if active.any() else 0.0, 0.1 * behind.mean()))
    return float(dsp.db_to_gain(ratio_db) * played / sung) if sung > 0 and played > 0 else 1.0


def sing_song(
    rng: Generator, singer: Singer, score: Composition, n: int, sample_rate: int
) -> Stereo:
    """Lead and backing voices with their effects, stereo; the level is free."""
    lyrics = voice.write_lyrics(rng, len(score.melody), float(rng.choice([0.05, 0.15, 0.3])))
    lead = voice.sing(rng, singer, score.melody, lyrics, n, sample_rate)
    dry = dsp.pan(lead, lead_position(rng, 0.2))
    backed = [i for i, note in enumerate(score.melody) if score.section_at(note).backing]
    style = str(rng.choice(["none", "double", "harmony", "choir"], p=[0.4, 0.25, 0.2, 0.15]))
    if backed and style != "none":
        voices = {"double": [0, 0], "harmony": [2], "choir": [2, 4, -3]}[style]
        width = float(rng.uniform(0.2, 0.95))
        level = dsp.db_to_gain(float(rng.uniform(-12, -3)))
        for index, steps in enumerate(voices):
            other = singer
            if style != "double":
                drawn = random_singer(rng)
                other = dataclasses.replace(drawn, speech=singer.speech, centre=singer.centre)
            late = float(rng.uniform(-0.02, 0.035))
            notes = tuple(shifted(score, score.melody[i], steps, late) for i in backed)
            track = voice.sing(rng, other, notes, [lyrics[i] for i in backed], n, sample_rate)
            side = width * (1 if index % 2 else -1) * (0.4 if len(voices) == 1 else 1.0)
            dry += dsp.pan(track * np.float32(level), side)
    return _effects(rng, dry, score, sample_rate)


def lead_position(rng: Generator, aside: float) -> float:
    """-1 (left) to 1; near the centre, as in most records, except for a share `aside`."""
    if rng.random() < aside:
        return float(rng.uniform(-0.75, 0.75))
    return float(np.clip(rng.normal(0, 0.08), -0.3, 0.3))


def shifted(score: Composition, note: Note, steps: int, late: float) -> Note:
    """The note `steps` scale steps away, a little displaced in time."""
    pitch = score.moved(note.pitch, steps)
    return note._replace(start=note.start + late, end=note.end + late, pitch=pitch)


def _effects(rng: Generator, dry: Stereo, score: Composition, sample_rate: int) -> Stereo:
    """Equaliser, compressor, saturation, delay, reverb: each by chance and with its own setting."""
    curve = [(20.0, -30.0), (float(rng.uniform(60, 140)), 0.0)]
    presence = {250.0: 0.0, 700.0: 0.5, 1800.0: 2.0, 3500.0: 3.0, 7000.0: 3.0, 14000.0: 2.0}
    curve += [(hz, float(rng.normal(mean, 3.0))) for hz, mean in presence.items()]
    if rng.random() < 0.05:
        curve = [(150.0, -30.0), (450.0, 0.0), (2800.0, 2.0), (4200.0, -24.0)]
    x = dsp.equalise(dry, sample_rate, curve)
    x = dsp.compress(x, sample_rate, float(rng.uniform(1.5, 5)), float(rng.uniform(-9, 3)))
    if rng.random() < 0.35:
        drive = np.float32(rng.uniform(0.5, 4.0) / (5 * dsp.rms(x) + 1e-9))
        x = np.tanh(x * drive) / drive
    if rng.random() < 0.1:
        late = int(rng.uniform(0.008, 0.02) * sample_rate)
        x[:, 1] = 0.3 * x[:, 1] + 0.7 * np.concatenate([np.zeros(late, np.float32), x[:-late, 1]])
    send = x
    if rng.random() < 0.35:
        beat = 60.0 / score.tempo_bpm * float(rng.choice([0.25, 0.5, 0.75, 1.0]))
        echo, gain = x, float(rng.uniform(0.08, 0.3))
        for repeat in range(4):
            late = int(beat * sample_rate)
            echo = np.concatenate([np.zeros((late, 2), np.float32), echo])[: len(x)]
            echo = echo[:, ::-1] * np.float32(gain if repeat == 0 else 0.5)
            send = send + echo
    seconds = float(rng.choice([0.3, 0.8, 1.3, 1.8, 2.3]))
    impulse = dsp.room(
        rng, sample_rate, seconds, float(rng.uniform(1500, 6000)), rng.uniform(0, 0.04)
    )
    wet = dsp.db_to_gain(float(rng.uniform(-26, -9)))
    return send + dsp.reverberate(send, impulse) * np.float32(wet)
