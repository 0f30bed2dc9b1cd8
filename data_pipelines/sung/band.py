"""The band of a sung song: parts through sound fonts and amplifiers, mixed on a compressed bus."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

from data_pipelines import dsp
from data_pipelines.dsp import Stereo, Track
from data_pipelines.embedded import instruments
from data_pipelines.embedded.backing import chord_track
from data_pipelines.embedded.composition import Composition, Note
from data_pipelines.embedded.drums import drum_track
from data_pipelines.embedded.lead import lead_track
from data_pipelines.sung import amplifier, oneshots, soundfont
from data_pipelines.sung.arrangement import Kind, arrange
from data_pipelines.sung.parts import Part

_GLUE: dict[Kind, tuple[float, float]] = {
    "sparse": (0.6, 0.4),
    "full": (0.6, 0.4),
    "dense": (0.9, 0.7),
    "ensemble": (0.2, 0.1),
    "machines": (0.8, 1.0),
    "landscape": (0.4, 0.2),
}
"""Chances that a band's bus is compressed, and that it is saturated."""


def play(
    rng: Generator, score: Composition, num_samples: int, sample_rate: int = 44100, *, font: Path
) -> tuple[Stereo, dict[str, Any]]:
    """Arranges and renders the accompaniment of a song: (stereo float32, what was played).

    The level is arbitrary. The description holds JSON values: kind, parts, procedural, cents, bus.
    Raises `UserError` as `play_notes` does.
    """
    arrangement = arrange(rng, score)
    mix = np.zeros((num_samples, 2), np.float32)
    wet = np.zeros((num_samples, 2), np.float32)

    def add(track: Stereo, level_db: float, send: float) -> None:
        loud = _active_rms(track, sample_rate)
        if loud > 1e-6:
            track *= np.float32(0.1 / loud * dsp.db_to_gain(float(np.clip(level_db, -16, 5))))
            np.add(mix, track, out=mix)
            track *= np.float32(send)
            np.add(wet, track, out=wet)

    for part in arrangement.parts:
        track = _render(rng, part, score, num_samples, sample_rate, font, arrangement.cents)
        add(_strip(rng, part, track, sample_rate, 60.0 / score.tempo_bpm), part.level_db, part.send)
    hall = arrangement.kind in ("ensemble", "landscape")
    procedural = []
    if not arrangement.cents and not hall:  # they could not follow the tuning
        for name, make, chance in (("chords", chord_track, 0.4), ("drums", drum_track, 0.2)):
            if rng.random() < chance:
                procedural.append(name)
                track = make(rng, score, num_samples, sample_rate)
                add(track, float(rng.normal(-4, 2.5)), float(rng.uniform(0.05, 0.3)))
    seconds = float(rng.uniform(1.2, 3.5) if hall else rng.uniform(0.3, 2.4))
    brightness = float(rng.uniform(1000, 5000))
    impulse = dsp.room(rng, sample_rate, seconds, brightness, float(rng.uniform(0, 0.03)))
    mix += dsp.reverberate(wet, impulse)
    mix, bus = _bus(rng, mix, sample_rate, arrangement.kind)
    description = {
        "kind": arrangement.kind,
        "parts": [
            {"role": part.role, "sound": part.sound, "effect": part.effect}
            | {"programs": list(part.programs), "notes": len(part.notes)}
            for part in arrangement.parts
        ],
        "procedural": procedural,
        "cents": round(arrangement.cents, 1),
        "bus": {name: round(value, 2) for name, value in bus.items()},
    }
    return mix, description


def _active_rms(track: Stereo, sample_rate: int) -> float:
    return dsp.active_rms(track, sample_rate // 10, 0.03)


def _render(
    rng: Generator,
    part: Part,
    score: Composition,
    n: int,
    sample_rate: int,
    font: Path,
    cents: float,
) -> Stereo:
    """One part, not yet levelled."""
    if part.sound == "one-shots":
        return _place_hits(part, n, sample_rate)
    notes = _humanise(rng, part.notes, part.sound == "drums")
    if part.sound == "noise":
        return _noise(rng, notes, n, sample_rate)
    if part.sound == "saw":
        return _supersaw(rng, notes, n, sample_rate, cents)
    if part.sound == "glide":
        tuned = (note._replace(pitch=note.pitch + cents / 100) for note in notes)
        lead = lead_track(rng, tuple(sorted(tuned)), n, sample_rate)
        return np.stack([lead, lead], axis=1)
    bend = _expression(rng, notes, n, sample_rate, part.bends) if part.bends else None
    out = np.zeros((n, 2), np.float32)
    for index, program in enumerate(part.programs):
        layer = soundfont.play_notes(
            notes, n, sample_rate,
            font=font, program=program, cents=cents, bend=bend,
            bank=128 if part.sound == "drums" else 0,
        )  # fmt: skip
        loud = _active_rms(layer, sample_rate)
        gain = 1.0 if index == 0 else dsp.db_to_gain(float(rng.uniform(-6, 0)))
        if loud > 0:
            out += layer * np.float32(gain / loud)
    if part.sound == "amplifier":
        one = amplifier.amplify(rng, dsp.mono(out), sample_rate, drive_db=part.drive_db)
        return np.stack([one, one], axis=1)
    return out


def _humanise(rng: Generator, notes: tuple[Note, ...], drums: bool) -> tuple[Note, ...]:
    """Notes with a player's timing and dynamics."""
    late = float(rng.normal(0, 0.003 if drums else 0.008))
    spread = float(rng.uniform(0.001, 0.006 if drums else 0.012))
    curve = float(np.exp(rng.normal(0, 0.3)))
    times = rng.normal(late, spread, len(notes))
    loud = np.clip([note.velocity for note in notes], 0.02, 1.0) ** curve
    return tuple(
        note._replace(start=max(0.0, note.start + t), end=note.end + t, velocity=float(v))
        for note, t, v in zip(notes, times, loud, strict=True)
    )


def _expression(
    rng: Generator, notes: tuple[Note, ...], n: int, sample_rate: int, amount: float
) -> Track:
    """Pitch bends in semitones: scoops and bends into notes, and vibrato on held ones."""
    hop = soundfont.BEND_HOP
    frames, rate = n // hop + 1, sample_rate / hop
    drift = 0.06 * amount * dsp.smooth_noise(rng, frames, rate, 2.0)
    bend = drift.copy()
    hz, depth = rng.uniform(4.8, 6.8), rng.uniform(0.1, 0.6) * max(amount, 0.5)
    for note in notes:
        first, last = int(note.start * rate), min(int(note.end * rate), frames)
        t = np.arange(last - first) / rate
        if len(t) < 4:
            continue
        shape = np.zeros(len(t))
        if rng.random() < 0.5 * amount:
            start = float(rng.choice([-1.0, -2.0, 1.0]) if amount == 1 else rng.uniform(-0.8, 0))
            shape += start * (1 - np.clip(t / rng.uniform(0.05, 0.25), 0, 1) ** 0.7)
        if note.end - note.start > 0.25 and rng.random() < 0.75:
            rise = np.clip((t - 0.15) / 0.3, 0, 1)
            shape += depth * rise * np.sin(2 * np.pi * hz * t)
        bend[first:last] = drift[first:last] + shape
    return bend


def _supersaw(
    rng: Generator, notes: tuple[Note, ...], n: int, sample_rate: int, cents: float
) -> Stereo:
    """Chords of detuned sawtooth waves."""
    maker = instruments.sustained(rng, sample_rate, 1.5, "saw")
    rise, tail = int(rng.uniform(0.003, 0.05) * sample_rate), int(0.15 * sample_rate)
    cache: dict[float, np.ndarray] = {}
    out = np.zeros((n, 2), np.float32)
    for note in notes:
        if note.pitch not in cache:
            cache[note.pitch] = maker(note.pitch + cents / 100)
        cycle = cache[note.pitch]
        count = max(int((note.end - note.start) * sample_rate), rise) + tail
        offset = int(rng.integers(len(cycle)))
        sample = np.take(cycle, np.arange(offset, offset + count), axis=0, mode="wrap")
        sample[:rise] *= dsp.fade(rise)[::-1, None]
        sample[-tail:] *= dsp.fade(tail)[:, None]
        dsp.place(out, sample * np.float32(note.velocity), int(note.start * sample_rate))
    return out


def _noise(rng: Generator, notes: tuple[Note, ...], n: int, sample_rate: int) -> Stereo:
    """Bursts of filtered noise in the rhythm of the notes."""
    low = float(np.exp(rng.uniform(np.log(60), np.log(3000))))
    high = low * float(rng.uniform(1.5, 12))
    noise = [dsp.shaped_noise(rng, n, sample_rate, low, high, 4.0) for _ in range(2)]
    gate = np.zeros(n, np.float32)
    rise, decay = float(rng.uniform(0.002, 0.2)), float(rng.choice([0.05, 0.3, 30.0]))
    for note in notes:
        first, last = int(note.start * sample_rate), min(int(note.end * sample_rate), n)
        t = np.arange(max(last - first, 0)) / sample_rate
        gate[first:last] = note.velocity * np.minimum(t / rise, 1) * np.exp(-t / decay)
    return np.stack(noise, axis=1) * gate[:, None]


def _place_hits(part: Part, n: int, sample_rate: int) -> Stereo:
    """One-shots at their times; a negative one is where the sample ends."""
    out = np.zeros((n, 2), np.float32)
    for name, time, gain in part.hits:
        sample = oneshots.load(name, sample_rate)
        at = int(abs(time) * sample_rate) - (len(sample) if time < 0 else 0)
        dsp.place(out, sample * np.float32(gain), at)
    return out


def _strip(rng: Generator, part: Part, x: Stereo, sample_rate: int, beat: float) -> Stereo:
    """A part's channel strip: equaliser, compressor, saturation, effect, width and pan."""
    points = [(float(hz), float(rng.normal(0, 2.5))) for hz in (90, 250, 700, 1800, 4500, 11000)]
    low = 25.0 if part.role in ("bass", "drums", "one-shots") else float(rng.uniform(60, 180))
    if part.role in ("bass", "drums"):
        points[0] = (70.0, float(rng.normal(4.0, 2.5)))
    x = dsp.equalise(x, sample_rate, [(low / 3, -24.0), (low, 0.0), *points])
    if rng.random() < 0.5:
        ratio, threshold = float(rng.uniform(1.5, 5)), float(rng.uniform(-8, 2))
        x = dsp.compress(x, sample_rate, ratio, threshold)
    if rng.random() < 0.3:
        drive = np.float32(rng.uniform(0.5, 3.0) / (_active_rms(x, sample_rate) * 3 + 1e-9))
        x = np.tanh(x * drive)
    n = len(x)
    if part.swell_db:
        x = x * dsp.swell(rng, n, sample_rate, part.swell_db, 0.3)[:, None]
    if part.effect in ("chorus", "tremolo", "rotary"):
        x = amplifier.widen(rng, x, sample_rate, part.effect)
    elif part.effect in ("wah", "sweep"):
        wah = part.effect == "wah"
        position = amplifier.swing(n, sample_rate, hz=rng.uniform(0.8, 3) if wah else 0.12)
        low_hz, high_hz = (400.0, 2200.0) if wah else (500.0, 9000.0)
        left, right = (
            amplifier.sweep(side, sample_rate, position, low_hz=low_hz, high_hz=high_hz, wah=wah)
            for side in (x[:, 0], x[:, 1])
        )
        x = np.stack([left, right], axis=1)
    elif part.effect == "pump":
        duck = amplifier.swing(n, sample_rate, hz=1 / beat, phase=1.0)
        x = x * (1 - np.float32(0.7) * duck)[:, None]
    elif part.effect == "echo":
        late = int(beat * float(rng.choice([0.5, 0.75, 1.0])) * sample_rate)
        for repeat in range(1, 4):
            gain = np.float32(0.35**repeat)
            x[late * repeat :] += x[: max(0, n - late * repeat), ::-1] * gain
    width = 1.0 if part.role in ("drums", "saws") else float(rng.uniform(0.2, 1.0))
    mid = dsp.mono(x)
    placed = dsp.pan(mid, part.pan)
    return placed + (x - mid[:, None]) * np.float32(width * (1 - abs(part.pan)))


def _bus(
    rng: Generator, mix: Stereo, sample_rate: int, kind: Kind
) -> tuple[Stereo, dict[str, float]]:
    """Glue compression, saturation, tilt and width of the whole band, with their settings."""
    settings: dict[str, float] = {}
    compressed, driven = _GLUE[kind]
    if rng.random() < compressed:
        settings |= {"ratio": rng.uniform(1.5, 4), "threshold_db": rng.uniform(-8, 1)}
        mix = dsp.compress(mix, sample_rate, settings["ratio"], settings["threshold_db"])
    if rng.random() < driven:
        settings["drive_db"] = float(rng.uniform(0, 24 if kind == "machines" else 9))
        drive = np.float32(0.35 * dsp.db_to_gain(settings["drive_db"]) / (dsp.rms(mix) + 1e-9))
        mix = np.tanh(mix * drive * np.float32(0.5))
    settings["tilt_db"] = float(rng.normal(-1.5, 2.5))
    curve = [(60.0, -settings["tilt_db"]), (10000.0, settings["tilt_db"])]
    mix = dsp.equalise(mix, sample_rate, [(20.0, -20.0), *curve])
    settings["width"] = float(rng.uniform(0.5, 1.3)) if rng.random() < 0.5 else 1.0
    mid = dsp.mono(mix)[:, None]
    return mid + (mix - mid) * np.float32(settings["width"]), settings
