"""Syllables of real people, pitched by WORLD to a melody that fits the band."""

import dataclasses
from typing import Any

import numpy as np
from numpy.random import Generator

from data_pipelines.devset.lines import SAMPLE_RATE, Take
from data_pipelines.devset.melody import compose_melody, harmonise
from data_pipelines.devset.tonality import Tonality
from data_pipelines.dsp import Mono, Stereo, db_to_gain, pan
from data_pipelines.embedded.composition import Note
from data_pipelines.embedded.singer import Manner
from data_pipelines.sung.syllables import Analysis, Treatment
from data_pipelines.sung.world import analyse, resynthesise

_MOST_NOISE, _NUCLEUS_FRAMES = 0.2, 10
_KEYS = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")


def sing_line(
    rng: Generator,
    takes: list[Take],
    tonality: Tonality,
    num_samples: int,
    *,
    companion: str | None,
) -> tuple[Stereo, dict[str, Any]]:
    """A melody on the syllables of some takes, one for each note, and the choices made.

    `companion` is "double" or "harmony": a second voice at the sides; None for one voice alone.
    """
    analyses = []
    for take in takes:
        # Where a codec left nothing, WORLD finds NaN: noise at -80 dB.
        dither = 1e-4 * rng.standard_normal(len(take.samples))
        analyses.append(analyse(take.samples + dither, SAMPLE_RATE))
    syllables = [
        (speech, index)
        for speech in analyses
        for index in range(len(speech.syllables))
        if _noise_share(speech, index) < _MOST_NOISE
    ]
    f0_hz = np.concatenate([speech.f0 for speech in analyses])
    # People sing higher than they speak.
    centre = float(69 + 12 * np.log2(np.median(f0_hz[f0_hz > 0]) / 440)) + rng.uniform(2, 7)
    notes = compose_melody(rng, tonality, centre, num_samples / SAMPLE_RATE)
    sources = [syllables[i % len(syllables)] for i in range(len(notes))]
    manner = Manner(
        jitter=0.0015,
        vibrato_hz=rng.uniform(4.8, 6.3),
        vibrato_cents=rng.uniform(15, 70),
        vibrato_delay=0.25,
        drift=rng.uniform(4, 14) / 100,
        glide=rng.uniform(0.03, 0.1),
        scoop=0.2,
        hard_tuned=bool(rng.random() < 0.2),
    )
    if manner.hard_tuned:
        manner = dataclasses.replace(manner, glide=0.004, scoop=0.0, drift=0.0)
    treatment = Treatment(manner=manner)

    def sing(melody: tuple[Note, ...]) -> Mono:
        return resynthesise(rng, sources, melody, melody, num_samples, SAMPLE_RATE, treatment)

    voice = pan(sing(notes), 0.0)
    if companion is not None:
        degrees = int(rng.choice([2, -2, -3])) if companion == "harmony" else 0
        sides = rng.uniform(0.4, 0.9) * rng.permutation([-1, 1])
        second = harmonise(notes, tonality, degrees)
        gain = db_to_gain(rng.uniform(-9, -4))
        voice = voice + gain * sum(pan(sing(second), float(side)) for side in sides)
    facts = {
        "key": f"{_KEYS[tonality.tonic]} {tonality.mode}",
        "tuning_cents": round(tonality.tuning_cents),
        "tempo_bpm": round(60 / tonality.beat_seconds, 1),
        "companion": companion,
        "notes": [
            [round(note.start, 3), round(note.end, 3), round(note.pitch, 2)] for note in notes
        ],
    }
    return voice.astype(np.float64), facts


def _noise_share(speech: Analysis, index: int) -> float:
    """Share of noise in the power around a syllable's nucleus, which a long note sustains."""
    start, nucleus, end = speech.syllables[index]
    frames = slice(max(start, nucleus - _NUCLEUS_FRAMES), min(end, nucleus + _NUCLEUS_FRAMES))
    power = speech.spectrum[frames]
    noise = np.where(speech.f0[frames, None] > 0, np.square(speech.aperiodicity[frames]), 1)
    return float(np.sum(power * noise) / np.sum(power))
