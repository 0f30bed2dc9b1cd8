"""A player's part, families of programs, and the figures that parts are made of."""

import dataclasses
from typing import Any, Literal

from numpy.random import Generator

from data_pipelines.embedded.composition import Composition, Note, Section

Sound = Literal["programs", "drums", "amplifier", "saw", "glide", "noise", "one-shots"]

PROGRAMS: dict[str, tuple[int, ...]] = {
    "keys": (0, 1, 2, 3, 4, 5, 6, 7),
    "organ": (16, 17, 18, 19, 20),
    "plucked": (15, 24, 25, 26, 27, 46, 104, 105, 106, 107),
    "mallets": (8, 9, 10, 11, 12, 13, 14, 98, 108, 112, 114),
    "strings": (44, 45, 48, 49, 50, 51),
    "brass": (60, 61, 62, 63),
    "pad": (50, 51, 89, 92, 93, 95, 97, 99, 103),
    "synth": (62, 63, 80, 81, 84, 86, 87),
    "bowed": (40, 41, 42, 110),
    "wind": (22, 56, 57, 59, 60, 64, 65, 66, 67, 68, 69, 70, 71, 72, 73, 74, 75, 77, 79, 109, 111),
    "reed": (21, 23, 82, 83),
    "bass": (32, 33, 34, 35, 36, 37, 38, 39),
    "guitar": (25, 26, 27, 27, 29),
}
"""None is a voice, or uses samples of voices in FluidR3 or MuseScore General."""

RHYTHMS = {
    "held": ("x...............", "x.......x.......", "x.....x.x......."),
    "eighths": ("x.x.x.x.x.x.x.x.", "x.x.x.x.x.xxx.x.", "x.x.xxx.x.x.xxx."),
    "sixteenths": ("xxxxxxxxxxxxxxxx", "xx.xxx.xxx.xxx.x"),
    "strum": ("x...x.xxx...x.xx", "x...x.x..xx.x.x.", "x..xx.x.x..xx.xx", "x.x.xxx.x.xxx.xx"),
    "gallop": ("x.xxx.xxx.xxx.xx", "xxx.xxx.xxx.xxx."),
    "stabs": ("..x...x...x...x.", "x..x..x...x.....", "....x.......x...", "x..x..x..x..x.x."),
    "riff": ("x..x..x.x.x..x..", "x.x..x.xx..x.x..", "xx.x.xx.x..x.xx.", "x.....x.x..x..x."),
    "quarters": ("x...x...x...x...",),
    "arpeggio": ("x.x.x.x.x.x.x.x.", "x.x.x.x.x.x.x.x.", "xxxxxxxxxxxxxxxx"),
}
"""Over sixteen sixteenths; shorter bars cut them."""

_ARPEGGIOS = ((0, 1, 2, 3, 2, 1), (0, 1, 2, 3), (0, 2, 1, 3), (3, 2, 1, 0), (0, 2, 3, 2, 1, 2))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """One player: the notes, their sound, and its place in the mix.

    Attributes:
        programs: all play the same notes; of sound "drums" the kit.
        hits: for sound "one-shots": (sample, seconds, loudness); negative: it ends at that time.
        bends: scoops, bends and vibrato of a solo; 1 for a guitar, less for winds and strings.
        level_db: RMS while it plays, against the drums'.
        send: gain of the send to the reverb.
        drive_db: drive of sound "amplifier".
        swell_db: spread of the slow changes of loudness.
        effect: "chorus", "tremolo", "rotary", "wah", "sweep", "echo", "pump" or none.
    """

    role: str
    sound: Sound = "programs"
    programs: tuple[int, ...] = ()
    notes: tuple[Note, ...] = ()
    hits: tuple[tuple[str, float, float], ...] = ()
    bends: float = 0.0
    level_db: float
    pan: float
    send: float
    drive_db: float = 0.0
    swell_db: float = 0.0
    effect: str = ""


def player(
    rng: Generator, role: str, level_db: float, *, effects: tuple[str, ...] = ("",), **fields: Any
) -> Part:
    """A part with a level about `level_db`, one of the `effects`, and a random place."""
    drawn: dict[str, Any] = {
        "level_db": float(rng.normal(level_db, 2.2)),
        "pan": float(rng.uniform(-0.7, 0.7)),
        "send": float(rng.uniform(0.03, 0.4)),
        "effect": effects[int(rng.integers(len(effects)))],
    }
    return Part(role=role, **(drawn | fields))


def draw(rng: Generator, *families: str, count: int = 1) -> tuple[int, ...]:
    """`count` different programs of some families."""
    programs = sorted({program for family in families for program in PROGRAMS[family]})
    return tuple(int(program) for program in rng.choice(programs, count, replace=False))


def bars(score: Composition, entry: float) -> list[tuple[int, Section]]:
    """The bars of the sections whose energy is at least `entry`."""
    sections = ((bar, score.section_of(bar)) for bar in range(len(score.chords)))
    return [
        (bar, section)
        for bar, section in sections
        if section.energy >= entry and score.time(bar, 0) < score.seconds
    ]


def voicing(score: Composition, chord: tuple[int, ...], kind: str, base: int) -> list[int]:
    """MIDI pitches of a chord, its closed position within an octave above `base`."""
    root = base + (score.pitch(chord[0]) - base) % 12
    close = sorted(base + (score.pitch(degree) - base) % 12 for degree in chord)
    return {
        "root": [root],
        "fifth": [root, root + 7],
        "octave": [root, root + 12],
        "power": [root, root + 7, root + 12],
        "close": close,
        "wide": [root - 12, *close],
        "guitar": [close[0] - 12, close[1] - 12, *close, close[0] + 12],
        "doubled": [*close, *(pitch + 12 for pitch in close)],
    }[kind]


def chords(
    rng: Generator,
    score: Composition,
    figure: str,
    kind: str,
    base: int,
    *,
    entry: float,
    length: float = 1.0,
    stagger: float = 0.0,
) -> tuple[Note, ...]:
    """Notes of a chord instrument in the voicing `kind`; each is held for a share `length`."""
    order = _ARPEGGIOS[int(rng.integers(len(_ARPEGGIOS)))]
    rhythms = [str(rng.choice(RHYTHMS[figure])) for _ in range(2)]
    moves = rng.choice([0, 0, 0, 1, 2, -1, 4], 16) * (figure == "riff")
    notes = []
    for bar, section in bars(score, entry):
        chord = score.chords[bar]
        pitches = voicing(score, chord, kind, base)
        for i, (step, start, end) in enumerate(score.hits(bar, rhythms[section.energy > 0.7])):
            loud = 0.55 + 0.35 * section.energy + 0.1 * (step % 4 == 0)
            shift = score.pitch(chord[0] + int(moves[step])) - score.pitch(chord[0])
            chosen = pitches[:: 1 if i % 2 == 0 else -1]  # strokes down and up
            if figure == "arpeggio":
                chosen = [pitches[order[i % len(order)] % len(pitches)]]
            for k, pitch in enumerate(chosen):
                at = start + k * stagger
                stop = max(start + (end - start) * length, at + 0.05)
                notes.append(Note(at, stop, float(pitch + shift), loud + rng.normal(0, 0.05)))
    return tuple(notes)


def line(
    rng: Generator, score: Composition, centre: float, steps: tuple[int, ...], entry: float
) -> tuple[Note, ...]:
    """A melody of chord and passing tones around a MIDI pitch, in notes of some `steps`."""
    home = degree = score.nearest_degree(centre)
    notes = []
    for bar, section in bars(score, entry):
        step = int(rng.choice([0, 0, 2, 4, score.steps]))
        while step < score.steps:
            end = min(step + int(rng.choice(steps)), score.steps)
            degree += int(rng.choice([-2, -1, -1, 0, 1, 1, 2])) + round(0.3 * (home - degree))
            chord = {d % 7 for d in score.chords[bar]}
            if step % 4 == 0 and degree % 7 not in chord:
                degree += 1 if (degree + 1) % 7 in chord else -1
            stop = score.time(bar, end)
            loud = 0.5 + 0.3 * section.energy + float(rng.normal(0, 0.07))
            notes.append(Note(score.time(bar, step), stop, float(score.pitch(degree)), loud))
            step = end
    return tuple(notes)


def fills(rng: Generator, score: Composition) -> tuple[Note, ...]:
    """Runs on the scale in the rests of the melody."""
    notes = []
    for note, following in zip(score.melody, score.melody[1:], strict=False):
        gap = following.start - note.end
        if gap < 0.3 or rng.random() < 0.3:
            continue
        degree = score.nearest_degree(note.pitch) + int(rng.choice([-7, 0, 0, 2, 7]))
        length = 60 / score.tempo_bpm / int(rng.choice([2, 4, 4]))
        move = int(rng.choice([-1, 1]))
        for k in range(min(12, int(gap / length))):
            start, loud = note.end + k * length, float(rng.uniform(0.5, 0.9))
            notes.append(Note(start, start + length, float(score.pitch(degree)), loud))
            degree += move if rng.random() < 0.8 else -2 * move
    return tuple(notes)


def doubled(score: Composition, interval: int, entry: float) -> tuple[Note, ...]:
    """The sung melody, `interval` semitones away; 4 is a third of the scale."""
    return tuple(
        note._replace(pitch=score.moved(note.pitch, 2) if interval == 4 else note.pitch + interval)
        for note in score.melody
        if score.section_at(note).energy >= entry
    )
