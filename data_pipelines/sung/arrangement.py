"""The players of a song: a composition for a band, an ensemble, machines or a landscape.

Bands (sparse, full or dense) play popular music. Ensembles are one to six melodies of orchestral
instruments in a hall, machines a distorted wall of drums and noise, landscapes slow layers with
long reverberation.
"""

import dataclasses
from typing import Literal

from numpy.random import Generator

from data_pipelines.embedded.composition import Composition, Note
from data_pipelines.sung import drummer, parts
from data_pipelines.sung.parts import Part, Sound, draw, player

Kind = Literal["sparse", "full", "dense", "ensemble", "machines", "landscape"]
KINDS: dict[Kind, float] = {
    "sparse": 0.12,
    "full": 0.22,
    "dense": 0.33,
    "ensemble": 0.18,
    "machines": 0.07,
    "landscape": 0.08,
}
"""Share of the songs."""

_GUITAR_STYLES = (  # figure, voicing, share of each note that is held, lowest pitch
    ("held", "power", 1.0, 40),
    ("eighths", "power", 0.95, 40),
    ("eighths", "fifth", 0.45, 36),  # palm-muted
    ("gallop", "fifth", 0.5, 36),
    ("sixteenths", "root", 0.5, 40),
    ("riff", "power", 0.9, 38),
    ("strum", "power", 0.95, 43),
    ("riff", "octave", 0.9, 50),
    ("eighths", "octave", 0.95, 55),
    ("strum", "guitar", 0.95, 52),
    ("held", "guitar", 1.0, 52),
    ("stabs", "close", 0.6, 52),
)
_FAMILIES = {  # of chord instruments: (how often, whether the notes last)
    "keys": (0.27, False),
    "organ": (0.13, True),
    "plucked": (0.17, False),
    "mallets": (0.05, False),
    "strings": (0.14, True),
    "brass": (0.08, True),
    "pad": (0.1, True),
    "synth": (0.06, False),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arrangement:
    """The parts of a song.

    Attributes:
        cents: tuning of the whole band.
    """

    kind: Kind
    parts: tuple[Part, ...]
    cents: float


def arrange(rng: Generator, score: Composition) -> Arrangement:
    """Draws the players and writes their parts."""
    kind = list(KINDS)[int(rng.choice(len(KINDS), p=list(KINDS.values())))]
    others = {"ensemble": _ensemble, "machines": _machines, "landscape": _landscape}
    band = others[kind](rng, score) if kind in others else _band(rng, score, kind)
    return Arrangement(
        kind=kind,
        parts=tuple(part for part in band if part.notes or part.hits),
        cents=float(rng.uniform(-30, 30)) if rng.random() < 0.2 else 0.0,
    )


def _band(rng: Generator, score: Composition, kind: Kind) -> list[Part]:
    """Drums, bass, chords and melodies."""
    size = ("sparse", "full", "dense").index(kind)
    dense = kind == "dense"

    def joins(*chances: float) -> bool:
        """Whether a part plays, with one chance for each kind of band."""
        return bool(rng.random() < chances[size])

    band: list[Part] = []
    if joins(0.35, 0.93, 0.97):
        band.append(drummer.drum_kit(rng, score, dense=dense))
        if joins(0.4, 0.55, 0.55):
            band += drummer.one_shots(rng, score)
        if joins(0.1, 0.3, 0.4):
            band.append(drummer.swells(rng, score))
    if joins(0.6, 0.97, 0.97):
        band.append(_bass(rng, score))
    guitars = joins(0.0, 0.35, 0.7)
    for _ in range(int(rng.integers(1, 3)) if guitars else 0):
        band += _guitars(rng, score, dense)
    wall = dense and not guitars
    if joins(0.1, 0.3, 0.6):
        band += _synthesizers(rng, score, wall)
    for index in range(int(rng.choice(((1, 1, 2), (1, 2, 2, 3), (1, 2, 2, 3, 4))[size]))):
        layers = int(rng.choice([1, 1, 2, 2 + dense]))
        band.append(_chord_part(rng, score, layers, first=index == 0))
    for role, notes, level in _melodies(rng, score, size):
        band.append(_soloist(rng, role, notes, level, guitars))
    if rng.random() < 0.3:
        stops = _stops(rng, score)
        band = [part if part.sound == "drums" else _with_stops(part, stops) for part in band]
    return band


def _ensemble(rng: Generator, score: Composition) -> list[Part]:
    """Melodies on orchestral instruments: a soloist, chamber music or an orchestra."""
    players = int(rng.choice([1, 2, 3, 4, 5, 6], p=[0.15, 0.15, 0.2, 0.2, 0.15, 0.15]))
    hall = float(rng.uniform(0.2, 1.2))
    pace = int(rng.integers(3))
    ranges = [float(rng.uniform(60, 80)), *rng.uniform(40, 78, players - 1)]
    band = []
    for index, centre in enumerate(ranges):
        steps = (
            ((1, 1, 2), (1, 2), (2, 2, 4)),
            ((1, 2, 2, 4), (2, 4), (2, 2, 4)),
            ((2, 4), (4, 8)),
        )
        families = ("bowed", "bowed", "strings", "wind", "wind", "brass")
        # Some play as sections, some alone.
        programs = draw(rng, *families, count=1 if rng.random() < 0.7 else int(rng.integers(2, 4)))
        notes = parts.line(
            rng, score, centre, steps[pace][int(rng.integers(len(steps[pace])))],
            0.0 if index == 0 else _entry(rng, early=True),
        )  # fmt: skip
        slur = float(rng.choice([0.0, 0.0, 0.04, -0.06]))
        notes = tuple(n._replace(end=max(n.end + slur, n.start + 0.06)) for n in notes)
        band.append(
            player(
                rng, "ensemble", 0.0 if index == 0 else -3.0,
                programs=programs, notes=notes, send=hall,
                bends=float(rng.uniform(0.4, 0.95)), swell_db=float(rng.uniform(1, 7)),
            )
        )  # fmt: skip
    if rng.random() < 0.45:
        figure = str(rng.choice(["held", "arpeggio", "eighths", "quarters"]))
        notes = parts.chords(
            rng, score, figure, "wide", int(rng.integers(48, 60)), entry=_entry(rng, early=True)
        )
        programs = draw(rng, "keys", "strings", "plucked", "organ")
        band.append(player(rng, "chords", -4.0, programs=programs, notes=notes, send=hall))
    if rng.random() < 0.3:
        band.append(drummer.orchestral(rng, score, hall))
    return band


def _machines(rng: Generator, score: Composition) -> list[Part]:
    """A wall of distorted drums, basses, noise and gliding synthesisers."""
    band = [drummer.drum_kit(rng, score, dense=True), _bass(rng, score)]
    band += drummer.one_shots(rng, score)
    for _ in range(int(rng.integers(1, 4))):
        figure = str(rng.choice(["held", "sixteenths", "gallop", "stabs", "eighths"]))
        notes = parts.chords(
            rng, score, figure, str(rng.choice(["root", "fifth", "octave"])),
            int(rng.integers(28, 60)), entry=_entry(rng, early=True),
            length=float(rng.choice([1.0, 0.5])),
        )  # fmt: skip
        sound: Sound = ("saw", "amplifier", "noise")[int(rng.integers(3))]
        programs = draw(rng, "synth", "bass") if sound == "amplifier" else ()
        band.append(
            player(
                rng, "machine", -2.0, sound=sound, programs=programs, notes=notes,
                drive_db=float(rng.uniform(20, 55)),
                effects=("", "sweep", "wah", "pump", "tremolo"),
            )
        )  # fmt: skip
    for role, notes, level in _melodies(rng, score, 1):
        band.append(_soloist(rng, role, notes, level, guitars=True))
    return band


def _landscape(rng: Generator, score: Composition) -> list[Part]:
    """Slow layers, bells and percussion in a large space."""
    space = float(rng.uniform(0.5, 1.5))
    band = []
    for _ in range(int(rng.integers(1, 4))):
        notes = parts.chords(
            rng, score, "held", str(rng.choice(["wide", "fifth", "close"])),
            int(rng.integers(36, 66)), entry=0.0,
        )  # fmt: skip
        sound: Sound = "noise" if rng.random() < 0.2 else "programs"
        programs = draw(rng, "pad", "strings", "organ") if sound == "programs" else ()
        band.append(
            player(
                rng, "layer", -2.0, sound=sound, programs=programs, notes=notes, send=space,
                effects=("", "sweep", "chorus", "tremolo"), swell_db=float(rng.uniform(2, 10)),
            )
        )  # fmt: skip
    for _ in range(int(rng.integers(1, 4))):
        notes = parts.line(rng, score, float(rng.uniform(55, 84)), (1, 2, 4, 8), 0.0)
        programs = draw(rng, "mallets", "plucked", "keys", "wind")
        band.append(
            player(
                rng, "bells", -3.0, programs=programs, notes=notes, send=space,
                effects=("", "echo"), bends=0.4 * (programs[0] in parts.PROGRAMS["wind"]),
            )
        )  # fmt: skip
    if rng.random() < 0.6:
        band += drummer.one_shots(rng, score)
    if rng.random() < 0.4:
        band.append(drummer.drum_kit(rng, score, dense=False))
    return band


def _entry(rng: Generator, *, early: bool) -> float:
    """Lowest energy of the sections in which a part plays."""
    return float(rng.choice([0.0, 0.0, 0.5] if early else [0.0, 0.5, 0.7, 0.9]))


def _bass(rng: Generator, score: Composition) -> Part:
    figure = str(rng.choice(["eighths", "quarters", "held", "riff", "strum", "gallop"]))
    kind = "octave" if rng.random() < 0.08 else "root"
    length = float(rng.choice([1.0, 0.9, 0.6]))
    return player(
        rng, "bass", 1.0,
        sound="amplifier" if rng.random() < 0.25 else "programs",
        programs=draw(rng, "bass"),
        notes=parts.chords(rng, score, figure, kind, 28, entry=0.0, length=length),
        drive_db=float(rng.uniform(0, 20)), pan=0.0, send=0.02,
    )  # fmt: skip


def _guitars(rng: Generator, score: Composition, dense: bool) -> list[Part]:
    """Amplified rhythm guitars: one, or the same notes played twice, left and right."""
    figure, kind, length, base = _GUITAR_STYLES[int(rng.integers(len(_GUITAR_STYLES)))]
    notes = parts.chords(
        rng, score, figure, kind, base + int(rng.integers(0, 5)),
        entry=_entry(rng, early=dense), length=length, stagger=0.008,
    )  # fmt: skip
    muted = length <= 0.5
    programs = (28,) if muted and rng.random() < 0.6 else draw(rng, "guitar")
    # Chords with thirds blur in much distortion.
    drive = rng.uniform(14, 30) if kind in ("guitar", "close") else rng.uniform(22, 50)
    twice = dense or rng.random() < 0.5
    width, aside = float(rng.uniform(0.6, 1.0)), float(rng.uniform(-0.7, 0.7))
    return [
        player(
            rng, "guitar", (-1.0 if dense else -3.0) - 3.0 * twice,
            sound="amplifier",
            programs=programs if side < 1 or rng.random() < 0.7 else (27,),
            notes=notes,
            pan=width * side if twice else aside, send=float(rng.uniform(0.02, 0.15)),
            drive_db=float(drive + rng.normal(0, 1.5)),
            effects=("",) if muted else ("", "", "", "", "wah", "chorus"),
        )
        for side in ((-1, 1) if twice else (0,))
    ]  # fmt: skip


def _synthesizers(rng: Generator, score: Composition, wall: bool) -> list[Part]:
    """Chords of detuned saws, arpeggios of plucked synthesisers, or both."""
    saws = wall or rng.random() < 0.6
    band = []
    if saws:
        figure = str(rng.choice(["held", "held", "eighths", "stabs", "strum"]))
        kind, base = str(rng.choice(["close", "doubled", "wide"])), int(rng.integers(48, 58))
        notes = parts.chords(
            rng, score, figure, kind, base,
            entry=_entry(rng, early=wall), length=float(rng.choice([1.0, 0.7])),
        )  # fmt: skip
        effects: tuple[str, ...] = ("", "sweep", "pump", "pump", "chorus")
        level = -1.0 if wall else -4.0
        band.append(player(rng, "saws", level, sound="saw", notes=notes, pan=0.0, effects=effects))
    if not saws or rng.random() < 0.5:
        kind, base = str(rng.choice(["close", "doubled"])), int(rng.integers(48, 68))
        notes = parts.chords(
            rng, score, "arpeggio", kind, base,
            entry=_entry(rng, early=not saws), length=float(rng.choice([0.5, 0.9])),
        )  # fmt: skip
        programs, effects = draw(rng, "synth", "plucked", "mallets"), ("", "echo", "sweep")
        band.append(player(rng, "arpeggio", -5.0, programs=programs, notes=notes, effects=effects))
    return band


def _chord_part(rng: Generator, score: Composition, layers: int, first: bool) -> Part:
    """Keys, organs, acoustic guitars, strings, brass or pads, alone or layered."""
    chances = [chance for chance, _ in _FAMILIES.values()]
    family, *others = (str(name) for name in rng.choice([*_FAMILIES], layers, p=chances))
    programs = draw(rng, family)
    for other in others:
        programs = tuple(dict.fromkeys((*programs, *draw(rng, other))))
    lasting = _FAMILIES[family][1]
    effects = ("", "", "chorus", "tremolo", "sweep" if lasting else "echo")
    figures = ["held", "eighths", "strum", "stabs", "quarters", "arpeggio", "arpeggio"]
    figure = str(rng.choice(["held", "held", "stabs", "eighths"] if lasting else figures))
    kind = str(rng.choice(["close", "close", "wide", "doubled"]))
    if family == "plucked" and figure == "strum":
        kind = "guitar"
    return player(
        rng, "chords", -5.5 if family == "pad" else -3.5,
        programs=programs,
        notes=parts.chords(
            rng, score, figure, kind, int(rng.integers(45, 61)),
            entry=0.0 if first else _entry(rng, early=False),
            length=float(rng.choice([1.0, 0.95, 0.7])),
            stagger=0.012 if family == "plucked" else 0.002,
        ),
        effects=("rotary", "rotary", "") if family == "organ" else effects,
    )  # fmt: skip


def _melodies(
    rng: Generator, score: Composition, size: int
) -> list[tuple[str, tuple[Note, ...], float]]:
    """(role, notes, level): the lead, counter-melodies, fills, and doubles of the sung melody."""
    melodies = []
    if rng.random() < 0.9:
        melodies.append(("lead", score.lead, -2.0))
    for _ in range(int(rng.choice(((0, 0, 1), (0, 1, 1), (0, 1, 2))[size]))):
        steps = ((4, 8), (2, 4, 4, 8), (2, 2, 4), (1, 2))[int(rng.integers(4))]
        notes = parts.line(rng, score, float(rng.uniform(52, 76)), steps, _entry(rng, early=False))
        melodies.append(("counter-melody", notes, -5.0))
    if rng.random() < 0.4:
        melodies.append(("fills", parts.fills(rng, score), -3.0))
    if rng.random() < (0.15, 0.3, 0.45)[size]:
        interval = int(rng.choice([0, 0, 12, -12, 4, 7]))
        notes = parts.doubled(score, interval, float(rng.choice([0.0, 0.7, 0.9])))
        melodies.append(("double", notes, -6.0))
    return melodies


def _soloist(
    rng: Generator, role: str, notes: tuple[Note, ...], level_db: float, guitars: bool
) -> Part:
    """One of a band's melodies on a solo instrument, a lead guitar or a gliding synthesiser."""
    sound: Sound = "programs"
    programs = draw(rng, "bowed", "wind", "reed", "wind", "synth", count=1)
    if guitars and rng.random() < 0.6:
        sound, programs = "amplifier", draw(rng, "guitar")
    elif rng.random() < 0.25:
        sound, programs = "glide", ()
    elif rng.random() < 0.35:
        programs = draw(
            rng, "bowed", "wind", "synth", "strings", "brass", "keys", "mallets", count=2
        )
    if rng.random() < 0.15:
        notes += tuple(note._replace(pitch=note.pitch + 12) for note in notes)
    return player(
        rng, role, level_db,
        sound=sound,
        programs=programs,
        notes=notes,
        bends=1.0 if sound == "amplifier" else 0.4 * (len(programs) == 1),
        drive_db=float(rng.uniform(18, 46)),
        effects=("", "", "echo", "echo", "chorus", "wah"),
    )  # fmt: skip


def _stops(rng: Generator, score: Composition) -> list[tuple[float, float]]:
    """Intervals in seconds, at the ends of some sections, in which only the drums play."""
    stops = []
    for section in score.sections:
        last, step = section.first_bar + section.bars - 1, score.steps - int(rng.choice([4, 8]))
        if rng.random() < 0.5:
            stops.append((score.time(last, step), score.time(last + 1, 0)))
    return stops


def _with_stops(part: Part, stops: list[tuple[float, float]]) -> Part:
    """The part without notes that begin in a stop; earlier notes end where it begins."""
    notes = part.notes
    for first, last in stops:
        notes = tuple(
            note._replace(end=min(note.end, first)) if note.start < first else note
            for note in notes
            if not first - 0.02 <= note.start < last - 0.02
        )
    return dataclasses.replace(part, notes=notes)
