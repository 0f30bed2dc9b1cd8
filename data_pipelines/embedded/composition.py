"""Composes a song: key, tempo, sections, chords and the notes of the voice and of the lead."""

import dataclasses
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

SCALES = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
    "harmonic minor": (0, 2, 3, 5, 7, 8, 11),
}
PROGRESSIONS = (
    (0, 4, 5, 3),
    (5, 3, 0, 4),
    (0, 5, 3, 4),
    (0, 3, 4, 3),
    (0, 6, 5, 4),
    (0, 2, 3, 4),
    (1, 4, 0, 0),
    (0, 0, 3, 4),
    (5, 4, 3, 4),
    (0, 3, 0, 4),
    (3, 4, 2, 5),
    (0, 6, 3, 0),
)
"""Roots of the bars, as scale degrees from 0."""


class Note(NamedTuple):
    """A pitch in time: seconds, MIDI, and loudness in 0..1. `phrase` counts phrases from 0."""

    start: float
    end: float
    pitch: float
    velocity: float
    phrase: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """Bars with one arrangement: whether the voice sings, how much of the band plays (0 to 1)."""

    first_bar: int
    bars: int
    vocal: bool
    energy: float
    backing: bool
    lead: bool
    drums: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Composition:
    """A score without sounds; times are seconds. A bar has `steps` sixteenths.

    Attributes:
        chords: scale degrees of each bar's chord, root first.
        melody: notes of the voice.
        lead: notes of the lead instrument.
    """

    seconds: float
    tempo_bpm: float
    steps: int
    swing: float
    tonic: int
    scale: tuple[int, ...]
    sections: tuple[Section, ...]
    chords: tuple[tuple[int, ...], ...]
    melody: tuple[Note, ...]
    lead: tuple[Note, ...]

    def time(self, bar: int, step: int) -> float:
        """Seconds of a sixteenth, in the bar or after it; swung: the odd sixteenths come late."""
        late = self.swing if step % 2 == 1 else 0.0
        return (bar * self.steps + step + late) * 15.0 / self.tempo_bpm

    def hits(self, bar: int, rhythm: str) -> list[tuple[int, float, float]]:
        """(step, start, end) of each "x" of a rhythm in a bar, held until the next one."""
        steps = [step for step in range(self.steps) if rhythm[step] == "x"]
        return [
            (step, self.time(bar, step), self.time(bar, following))
            for step, following in zip(steps, [*steps[1:], self.steps], strict=True)
        ]

    def pitch(self, degree: int) -> int:
        """MIDI pitch of a scale degree; degree 0 is the tonic, which lies in 48..59."""
        octave, index = divmod(degree, len(self.scale))
        return self.tonic + 12 * octave + self.scale[index]

    def section_of(self, bar: int) -> Section:
        """The section that a bar belongs to."""
        for section in self.sections:
            if bar < section.first_bar + section.bars:
                return section
        return self.sections[-1]

    def section_at(self, note: Note) -> Section:
        """The section in which a note starts."""
        return self.section_of(int((note.start + 1e-6) * self.tempo_bpm / 15.0 / self.steps))

    def moved(self, pitch: float, degrees: int) -> float:
        """Transposes a MIDI pitch by `degrees` steps of the scale, keeping its detuning."""
        nearest = self.nearest_degree(pitch)
        return pitch + self.pitch(nearest + degrees) - self.pitch(nearest)

    def nearest_degree(self, pitch: float) -> int:
        """The degree of the scale nearest to a MIDI pitch."""
        return min(range(-21, 36), key=lambda degree: abs(self.pitch(degree) - pitch))


def compose(
    rng: Generator, seconds: float, voice_centre: float, density: float = 1.0
) -> Composition:
    """A random song of `seconds`, its melody around the MIDI pitch `voice_centre`.

    `density` favours short notes (2) or long ones (0.5).
    """
    steps = int(rng.choice([16, 16, 16, 16, 12]))
    tempo = float(np.clip(rng.normal(108, 26), 62, 176))
    swing = float(rng.choice([0.0, 0.0, 0.0, rng.uniform(0.15, 0.6)]))
    mode = str(rng.choice(list(SCALES), p=[0.42, 0.3, 0.1, 0.1, 0.08]))
    bars = int(np.ceil(seconds / (steps * 15.0 / tempo))) + 1
    score = Composition(
        seconds=seconds,
        tempo_bpm=tempo,
        steps=steps,
        swing=swing,
        tonic=int(rng.integers(48, 60)),
        scale=SCALES[mode],
        sections=_sections(rng, bars),
        chords=_chords(rng, bars),
        melody=(),
        lead=(),
    )
    sung = [section.vocal for section in score.sections for _ in range(section.bars)]
    led = [section.lead for section in score.sections for _ in range(section.bars)]
    lead_centre = voice_centre + float(rng.choice([0.0, 0.0, 5.0, 12.0, -7.0]))
    return dataclasses.replace(
        score,
        melody=_melody(rng, score, voice_centre, density, sung),
        lead=_melody(rng, score, lead_centre, float(rng.choice([0.5, 1.0, 2.0])), led),
    )


def _sections(rng: Generator, bars: int) -> tuple[Section, ...]:
    """Verses and choruses, now and then an instrumental break or a sparse passage."""
    sections: list[Section] = []
    first, sung = 0, 0
    rest_first = rng.random() < 0.4
    while first < bars:
        length = int(rng.choice([4, 4, 8, 2]))
        instrumental = (first == 0 and rest_first) or (sung >= 8 and rng.random() < 0.45)
        if instrumental:
            length = min(length, 4 if first else 2)
        sung = 0 if instrumental else sung + length
        energy = float(rng.choice([0.25, 0.6, 0.85, 1.0], p=[0.15, 0.3, 0.25, 0.3]))
        sections.append(
            Section(
                first_bar=first,
                bars=length,
                vocal=not instrumental,
                energy=energy,
                backing=bool(rng.random() < 0.2 + 0.3 * energy),
                lead=bool(instrumental or rng.random() < 0.45),
                drums=bool(rng.random() < 0.35 + 0.65 * energy),
            )
        )
        first += length
    return tuple(sections)


def _chords(rng: Generator, bars: int) -> tuple[tuple[int, ...], ...]:
    """One chord a bar: two progressions that take turns; triads, sevenths, added ninths."""
    loops = [PROGRESSIONS[int(rng.integers(len(PROGRESSIONS)))] for _ in range(2)]
    colour = (0, 2, 4, 6) if rng.random() < 0.3 else (0, 2, 4)
    chords = []
    for bar in range(bars):
        root = loops[(bar // 8) % 2][bar % 4]
        extra = (8,) if rng.random() < 0.1 else ()
        chords.append(tuple(root + step for step in colour + extra))
    return tuple(chords)


def _melody(
    rng: Generator, score: Composition, centre: float, density: float, active: list[bool]
) -> tuple[Note, ...]:
    """Phrases of one to two bars: a walk on the scale drawn to chord notes, then a rest."""
    degrees = np.arange(-14, 36)
    pitches = np.array([score.pitch(int(degree)) for degree in degrees])
    durations = np.array([1, 2, 3, 4, 6, 8])
    weights = np.array([0.05, 0.42, 0.1, 0.26, 0.1, 0.07]) * durations ** -(density - 1.0)
    weights /= weights.sum()
    notes: list[Note] = []
    home = int(np.argmin(np.abs(pitches - centre)))
    position, phrase, bar = home, 0, 0
    while bar < len(active):
        if not active[bar]:
            bar += 1
            continue
        length = 2 if bar + 1 < len(active) and active[bar + 1] and rng.random() < 0.7 else 1
        total = length * score.steps
        step = int(rng.choice([0, 0, 2, 2, 4, 1]))
        stop = total - int(rng.choice([0, 1, 2, 2, 4, 6]))
        arch = float(rng.normal(2, 2))
        while step < stop:
            duration = int(rng.choice(durations, p=weights))
            if stop - step - duration < 3:
                duration = stop - step
            position += int(rng.choice([-4, -3, -2, -1, 0, 1, 2, 3, 4], p=_STEP_WEIGHTS))
            target = home + arch * np.sin(np.pi * step / total)
            position += int(np.round(0.3 * (target - position)))
            at = bar + step // score.steps
            if step % 4 == 0 and rng.random() < 0.7:
                chord = {degree % 7 for degree in score.chords[min(at, len(score.chords) - 1)]}
                near = [p for p in range(position - 2, position + 3) if degrees[p] % 7 in chord]
                position = min(near, key=lambda p: abs(p - position), default=position)
            position = int(np.clip(position, home - 8, home + 8))
            start, end = score.time(bar, step), score.time(bar, step + duration)
            velocity = float(np.clip(rng.normal(0.7, 0.12) + 0.1 * (step % 4 == 0), 0.3, 1.0))
            notes.append(Note(start, end, float(pitches[position]), velocity, phrase))
            step += duration
        phrase += 1
        bar += length
    return tuple(note for note in notes if note.start < score.seconds)


_STEP_WEIGHTS = np.array([0.03, 0.05, 0.13, 0.2, 0.2, 0.18, 0.12, 0.06, 0.03])
