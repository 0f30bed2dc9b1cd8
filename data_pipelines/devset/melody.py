"""A melody for an existing recording of a band: in its key, on its beat, near its harmony."""

import numpy as np
from numpy.random import Generator

from data_pipelines.devset.tonality import Tonality
from data_pipelines.embedded.composition import Note

_BELOW, _ABOVE = 5, 8
_REST_SECONDS = 0.7
_HALF_BEATS, _HALF_BEAT_SHARES = np.array([1, 2, 3, 4, 6]), np.array([0.44, 0.34, 0.08, 0.11, 0.03])


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
