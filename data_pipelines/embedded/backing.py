"""Bass and chords: their notes over a composition, and their instruments."""

import numpy as np
from numpy.random import Generator

from data_pipelines import dsp
from data_pipelines.dsp import Stereo
from data_pipelines.embedded import instruments
from data_pipelines.embedded.composition import Composition, Note
from data_pipelines.embedded.lead import continuous


def bass_track(rng: Generator, score: Composition, n: int, sample_rate: int) -> np.ndarray:
    """Roots, fifths and octaves under the chords: plucked, or a synthesiser with glides."""
    pattern = str(
        rng.choice(["x...............", "x.......x.......", "x.x.x.x.x.x.x.x.", "x..x..x.x..x..x.",
                    "x...x...x...x...", "x.....x...x.x...", "xxxxxxxxxxxxxxxx", "..x...x...x...x."])
    )  # fmt: skip
    notes = []
    for bar, chord in enumerate(score.chords):
        for step, start, end in score.hits(bar, pattern):
            root = score.pitch(chord[0])
            pitch = 28 + (root - 28) % 12 + int(rng.choice([0, 0, 0, 0, 7, 12]) if step else 0)
            if start < score.seconds:
                length = (end - start) * float(rng.choice([1.0, 0.9, 0.6]))
                notes.append(
                    Note(start, start + length, float(pitch), float(rng.uniform(0.7, 1.0)))
                )
    if rng.random() < 0.6:
        track = np.zeros((n, 2), np.float32)
        maker = instruments.plucked(rng, sample_rate, 2.0, bass=True)
        _place_notes(track, notes, maker, sample_rate, 0.05)
        return track
    harmonics = np.arange(1, 65)
    tilt, corner = rng.uniform(0.8, 1.4), np.exp(rng.uniform(np.log(2), np.log(30)))
    gains = harmonics**-tilt / (1 + (harmonics / corner) ** 2)
    if rng.random() < 0.4:
        gains[1::2] *= 0.1
    x = continuous(rng, tuple(notes), n, sample_rate, gains, glide=0.01, vibrato=0.0, attack=0.006)
    if rng.random() < 0.3:
        x = np.tanh(x * 12).astype(np.float32)
    return np.stack([x, x], axis=1)


def _place_notes(
    track: Stereo,
    notes: list[Note],
    maker: instruments.NoteMaker,
    sample_rate: int,
    release: float,
    attack: float = 0.0,
    loop: bool = False,
) -> None:
    """Renders each pitch once and adds its copies."""
    cache: dict[float, np.ndarray] = {}
    tail, rise = int(release * sample_rate), int(attack * sample_rate)
    for note in notes:
        if note.pitch not in cache:
            cache[note.pitch] = maker(note.pitch)
        sample = cache[note.pitch]
        count = int((note.end - note.start) * sample_rate)
        if loop:
            offset = int(note.start * 1000) % len(sample)
            sample = np.take(sample, np.arange(offset, offset + count + tail), axis=0, mode="wrap")
        sample = dsp.cut(sample, count, tail)
        if rise:
            head = min(rise, len(sample))
            sample[:head] *= dsp.fade(head)[::-1, None]
        sample *= np.float32(note.velocity)
        dsp.place(track, sample, int(note.start * sample_rate))


def chord_track(rng: Generator, score: Composition, n: int, sample_rate: int) -> np.ndarray:
    """A chord instrument: held, repeated, strummed, arpeggiated or stabbed."""
    design = str(
        rng.choice(
            ["piano", "bell", "guitar", "distorted", "strings", "organ", "pad", "saw", "brass"],
            p=[0.2, 0.1, 0.2, 0.13, 0.1, 0.08, 0.07, 0.07, 0.05],
        )
    )
    long = design in ("strings", "organ", "pad", "saw", "brass")
    if long:
        figure = str(rng.choice(["held", "held", "stabs"]))
    else:
        figure = str(rng.choice(["held", "eighths", "strum", "arpeggio", "stabs"]))
    if design == "distorted":
        figure = str(rng.choice(["held", "eighths", "stabs"]))
    rhythm = {
        "held": "x...............",
        "eighths": "x.x.x.x.x.x.x.x.",
        "strum": str(rng.choice(["x...x.xxx...x.xx", "x...x.x..xx.x.x.", "x.......x...x..."])),
        "arpeggio": "x.x.x.x.x.x.x.x.",
        "stabs": str(rng.choice(["..x...x...x...x.", "x..x..x...x.....", "....x.......x..."])),
    }[figure]
    base = int(rng.choice([45, 50, 55, 60])) - 10 * (design == "distorted")
    stagger = float(rng.uniform(0.008, 0.03)) if figure == "strum" or design == "guitar" else 0.0
    notes: list[Note] = []
    for bar, chord in enumerate(score.chords):
        section = score.section_of(bar)
        if long and section.energy < 0.3 and rng.random() < 0.5:
            continue
        pitches = sorted(base + (score.pitch(degree) - base) % 12 for degree in chord)
        if design == "distorted":
            root = base + (score.pitch(chord[0]) - base) % 12
            pitches = [root, root + 7, root + 12]
        if design == "guitar":
            pitches = [pitches[0] - 12, *pitches, pitches[0] + 12]
        for i, (_, start, end) in enumerate(score.hits(bar, rhythm)):
            start += abs(float(rng.normal(0, 0.004)))
            if figure == "stabs":
                end = min(end, start + 0.2)
            chosen = [pitches[(i * 2 + i // 3) % len(pitches)]] if figure == "arpeggio" else pitches
            loud = float(rng.uniform(0.6, 1.0)) * (0.6 + 0.4 * section.energy)
            for k, pitch in enumerate(chosen):
                if start < score.seconds:
                    notes.append(Note(start + k * stagger, end, float(pitch), loud))
    track = np.zeros((n, 2), np.float32)
    if long:
        maker = instruments.sustained(rng, sample_rate, 1.5, design)
        rise = {"strings": 0.12, "pad": 0.25, "organ": 0.01, "saw": 0.02, "brass": 0.05}[design]
        rise = min(rise, 0.1) if figure == "stabs" else rise
        _place_notes(track, notes, maker, sample_rate, 0.12, rise, loop=True)
        return track
    seconds = 2.5
    if design == "piano":
        maker = instruments.struck(rng, sample_rate, seconds)
    elif design == "bell":
        maker = instruments.bell(rng, sample_rate, seconds)
    else:
        maker = instruments.plucked(rng, sample_rate, seconds)
    _place_notes(track, notes, maker, sample_rate, 0.08)
    if design == "distorted":
        return _distort(rng, track, sample_rate)
    return track


def _distort(rng: Generator, track: Stereo, sample_rate: int) -> np.ndarray:
    """Amplifier and cabinet; half the time two takes left and right."""
    drive = np.float32(np.exp(rng.uniform(np.log(8), np.log(80))))
    left = np.tanh(track[:, :1] * drive)
    if rng.random() < 0.5:
        delay = int(rng.uniform(0.008, 0.02) * sample_rate)
        late = np.roll(track[:, 1:], delay, axis=0)
        sides = np.concatenate([left, np.tanh(late * drive * np.float32(0.8))], axis=1)
    else:
        sides = np.repeat(left, 2, axis=1)
    top = float(rng.uniform(3500, 6500))
    curve = [
        (40.0, -24.0),
        (90.0, 0.0),
        (400.0, rng.uniform(-5, 0)),
        (2200.0, rng.uniform(0, 5)),
        (top, 0.0),
        (top * 2, -30.0),
    ]
    return dsp.equalise(sides, sample_rate, curve)
