"""Syllables of real people, pitched by WORLD to a melody that fits the band."""

import dataclasses
from typing import Any

import numpy as np
from numpy.random import Generator

from data_pipelines.devset.lines import SAMPLE_RATE, Take
from data_pipelines.devset.tonality import Tonality
from data_pipelines.dsp import Mono, Stereo, db_to_gain, pan
from data_pipelines.embedded.composition import Note
from data_pipelines.embedded.singer import Manner
from data_pipelines.sung.syllables import Analysis, Treatment
from data_pipelines.sung.world import analyse, resynthesise

_MOST_NOISE, _NUCLEUS_FRAMES = 0.2, 10
_BELOW, _ABOVE = 5, 8
_REST_SECONDS = 0.7
_HALF_BEATS, _HALF_BEAT_SHARES = np.array([1, 2, 3, 4, 6]), np.array([0.44, 0.34, 0.08, 0.11, 0.03])
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


def compose_melody(
    rng: Generator, tonality: Tonality, centre: float, seconds: float
) -> tuple[Note, ...]:
    """Phrases of 2 to 5 s that end on a held note, with rests of at least 0.7 s around them.

    Pitches are MIDI, those of the key at the excerpt's tuning, from 5 semitones below `centre` to 8
    above; on the beat they tend to what the band plays.
    """
    step = tonality.beat_seconds / 2
    rest = int(np.ceil(_REST_SECONDS / step))
    last = int((seconds - _REST_SECONDS - tonality.first_beat) / step)
    pitches = np.arange(np.ceil(centre - _BELOW), centre + _ABOVE + 1e-9).astype(int)
    pitches = pitches[np.isin(pitches % 12, list(tonality.pitch_classes()))]
    notes: list[Note] = []
    position = max(0, int(np.ceil((_REST_SECONDS - tonality.first_beat) / step)))
    phrase, pitch = 0, centre
    while last - position >= 3:
        end = min(position + round(rng.uniform(2, 5) / step), last)
        if last - end < rest + 3:
            end = last
        while position < end:
            length = int(rng.choice(_HALF_BEATS, p=_HALF_BEAT_SHARES))
            is_last = end - position - length < 2
            if is_last:  # held
                length = min(end - position, 5)
            weights = _fit(tonality, pitches, position, pitch, centre)
            pitch = float(rng.choice(pitches, p=weights / weights.sum()))
            start = tonality.first_beat + position * step
            tuned, loud = pitch + tonality.tuning_cents / 100, float(rng.uniform(0.6, 0.9))
            notes.append(Note(start, start + length * step, tuned, loud, phrase))
            position += length
            if is_last:
                break
        position = end + rest + int(rng.integers(0, 2))
        phrase += 1
    return tuple(notes)


def _fit(
    tonality: Tonality, pitches: np.ndarray, position: int, before: float, centre: float
) -> np.ndarray:
    """How well each pitch follows the one before; `position` counts half beats."""
    beat = min(position // 2, len(tonality.chroma) - 1)
    played = tonality.chroma[beat][pitches % 12]
    harmony = (0.04 + played) ** (1.5 if position % 2 == 0 else 0.7)
    interval = np.abs(pitches - before)
    near = np.where(interval == 0, 0.35, np.exp(-interval / 2.5))
    return harmony * near * np.exp(-0.5 * ((pitches - centre - 1) / 5) ** 2)


def harmonise(notes: tuple[Note, ...], tonality: Tonality, degrees: int) -> tuple[Note, ...]:
    """Transposes notes by `degrees` steps of the key's scale: 2 is a third up, -2 one down."""
    scale = [pitch for pitch in range(128) if pitch % 12 in tonality.pitch_classes()]
    tuning = tonality.tuning_cents / 100
    return tuple(
        note._replace(pitch=scale[scale.index(round(note.pitch - tuning)) + degrees] + tuning)
        for note in notes
    )
