"""The drummer's parts: on a General MIDI kit, and on one-shots."""

import numpy as np
from numpy.random import Generator

from data_pipelines.embedded.composition import Composition, Note
from data_pipelines.sung import oneshots
from data_pipelines.sung.parts import Part, bars, player

KITS = (0, 1, 2, 3, 4, 8, 9, 11, 16, 17, 18, 24, 25, 32, 40)
ORCHESTRA_KIT = 48
"""Its keys 41 to 53 are timpani with a pitch."""

_KICKS = (
    "x.......x.......",
    "x...x...x...x...",
    "x.....x.x.......",
    "x..x....x.x.....",
    "x.........x..x..",
    "x.xx..x.x.xx..x.",
    "xxxxxxxxxxxxxxxx",
    "x..x..x...x.....",
)
_SNARES = (
    "....x.......x...",
    "....x.......x..o",
    "....x..o.o..x..o",
    "........x.......",
    "....x..o.x..x...",
    "x.o.x.o.x.o.x.o.",
    "....x.....o.x.o.",
    "..x...x...x...x.",
)
_TIMES = (
    "x.x.x.x.x.x.x.x.",
    "xoxoxoxoxoxoxoxo",
    "x...x...x...x...",
    "..x...x...x...x.",
    "x.ox.ox.ox.ox.o.",
    "x..xx..xx..xx..x",
)
_TOMS = (50, 48, 47, 45, 43, 41)
_CRASHES = (49, 57, 52, 55)
_HAND = (54, 56, 69, 70, 75, 76, 63, 62, 60)  # tambourine, cowbell, shakers, claves, congas, bongo


def _grooves(rng: Generator) -> list[list[str]]:
    """Kick, snare and time of the quiet and of the loud sections."""
    return [[str(rng.choice(p)) for p in (_KICKS, _SNARES, _TIMES)] for _ in range(2)]


def drum_kit(rng: Generator, score: Composition, *, dense: bool) -> Part:
    """Two grooves with ghost notes, fills, crashes, washes of cymbals, hand percussion."""
    grooves = _grooves(rng)
    kick, snare = int(rng.choice([35, 36])), int(rng.choice([38, 38, 40, 37, 39]))
    times = [int(rng.choice([42, 42, 44])), int(rng.choice([42, 46, 51, 53, 59, 57, 49]))]
    hand = str(rng.choice(_TIMES)) if rng.random() < 0.35 else "." * 16
    shaker = int(rng.choice(_HAND))
    wash = dense and rng.random() < 0.4
    notes: list[Note] = []

    def hit(key: int, time: float, velocity: float) -> None:
        loud = float(np.clip(velocity + rng.normal(0, 0.06), 0.05, 1.0))
        notes.append(Note(time, time + 0.12, float(key), loud))

    for bar, section in bars(score, 0.0):
        if not section.drums:
            continue
        loud = section.energy > 0.7
        kicks, snares, cymbals = grooves[loud]
        last = bar == section.first_bar + section.bars - 1
        fill_from = score.steps - int(rng.choice([2, 4, 8])) if last and rng.random() < 0.6 else 99
        if bar == section.first_bar and rng.random() < 0.8:
            hit(int(rng.choice(_CRASHES)), score.time(bar, 0), 0.9)
        for step in range(score.steps):
            time = score.time(bar, step)
            if step >= fill_from:
                if rng.random() < 0.85:
                    hit(int(rng.choice([snare, *_TOMS])), time, 0.8)
                continue
            if kicks[step] == "x":
                hit(kick, time, 0.9)
            if snares[step] != ".":
                hit(snare, time, 0.9 if snares[step] == "x" else 0.3)
            elif rng.random() < 0.04:
                hit(38, time, 0.2)
            if cymbals[step] != "." and section.energy > 0.3:
                hit(times[loud], time, 0.75 if cymbals[step] == "x" else 0.4)
            if wash and loud and step % 4 == 0:
                hit(int(rng.choice(_CRASHES[:2])), time, 0.7)
            if hand[step] != ".":
                hit(shaker, time, 0.6 if hand[step] == "x" else 0.35)
    kit = (int(rng.choice(KITS)),)
    level = 3.0 if dense else 1.0
    send = float(rng.uniform(0.02, 0.25))
    return player(
        rng, "drums", level, sound="drums", programs=kit, notes=tuple(notes), pan=0.0, send=send
    )


def orchestral(rng: Generator, score: Composition, send: float) -> Part:
    """Timpani on the chords' roots, bass and snare drum, cymbals where sections begin."""
    rhythm = str(rng.choice(["x...............", "x.......x.......", "x.....x.x.x.x.x."]))
    snare = str(rng.choice(["................", "....x.......x...", "x.oox.oox.oox.oo"]))
    notes: list[Note] = []

    def hit(key: int, time: float, velocity: float) -> None:
        notes.append(Note(time, time + 0.3, float(key), velocity + float(rng.normal(0, 0.06))))

    for bar, section in bars(score, 0.5):
        if bar == section.first_bar:
            hit(int(rng.choice([57, 59])), score.time(bar, 0), 0.8)
            hit(35, score.time(bar, 0), 0.9)
        root = 41 + (score.pitch(score.chords[bar][0]) - 41) % 12
        for step in range(score.steps):
            if rhythm[step] == "x":
                hit(root, score.time(bar, step), 0.7)
            if snare[step] != ".":
                hit(38, score.time(bar, step), 0.6 if snare[step] == "x" else 0.3)
    kit = (ORCHESTRA_KIT,)
    return player(rng, "drums", -4.0, sound="drums", programs=kit, notes=tuple(notes), send=send)


def swells(rng: Generator, score: Composition) -> Part:
    """Reversed cymbals and rolls into the sections."""
    program = int(rng.choice([119, 119, 116, 118]))  # reverse cymbal, taiko, synthetic drum
    notes = []
    for section in score.sections[1:]:
        start, step = score.time(section.first_bar, 0), 15.0 / score.tempo_bpm
        if program == 119:
            notes.append(Note(start - 1.7, start, 60.0, 0.9))
        else:
            notes += [Note(start - k * step, start, 48.0, 0.9 - 0.04 * k) for k in range(1, 13)]
    heard = tuple(note for note in notes if 0 <= note.start < score.seconds)
    return player(rng, "swells", -7.0, programs=(program,), notes=heard)


def one_shots(rng: Generator, score: Composition) -> list[Part]:
    """Recorded drums over the kit, a loop of percussion, swooshes and impacts between sections."""
    pick = {family: rng.choice(names.split(), 3) for family, names in oneshots.SAMPLES.items()}
    grooves, used = _grooves(rng), [rng.random() < chance for chance in (0.6, 0.6, 0.4)]
    chance = 0.6 if rng.random() < 0.5 else 0.0
    looped = set(np.flatnonzero(rng.random(16) < chance))
    which, gain = rng.integers(0, 3, 16), float(rng.uniform(0.2, 0.6))
    swoosh, impact = rng.random() < 0.5, rng.random() < 0.5
    drums: list[tuple[str, float, float]] = []
    events: list[tuple[str, float, float]] = []
    for bar, section in bars(score, 0.0):
        start, loud = score.time(bar, 0), section.energy > 0.7
        if bar == section.first_bar and loud and bar:
            if swoosh:
                events.append((str(pick["rise"][0]), -start, 0.7))
            if impact:
                events.append((str(pick["impact"][0]), start, 0.8))
        for step in range(score.steps if section.drums else 0):
            time = score.time(bar, step)
            for k, family in enumerate(("kick", "snare", "hat")):
                mark = grooves[loud][k][step]
                if used[k] and mark != ".":
                    velocity = (1.0 if mark == "x" else 0.3) * (0.4 if family == "hat" else 1.0)
                    drums.append((str(pick[family][0]), time, velocity))
            if step in looped:
                drums.append((str(pick["percussion"][which[step]]), time, gain))
    return [
        player(rng, "one-shots", -4.0, sound="one-shots", hits=tuple(drums)),
        player(rng, "transitions", -6.0, sound="one-shots", hits=tuple(events)),
    ]
