"""From notes and syllables to control tracks: what the voice does at each moment of a song."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import scipy.ndimage
from numpy.random import Generator

from data_pipelines import dsp
from data_pipelines.dsp import Track
from data_pipelines.embedded.composition import Note
from data_pipelines.embedded.phonetics import (
    CONSONANTS,
    VOWELS,
    Formants,
    Syllable,
    random_syllable,
)
from data_pipelines.embedded.singer import Manner, Singer

_SILENCE = 0.05
"""Seconds between notes from which on the voice stops between them."""


@dataclasses.dataclass
class Tracks:
    """Breakpoints of the control tracks, and the noise bursts, gathered syllable by syllable.

    Attributes:
        haste: factor on the length of consonants.
        nasal: 0..1, at `shape_times` like the formants (Hz).
        breath: aspiration beyond the singer's own, at `level_times` like the level of the voice.
        bursts: noise of consonants and breaths: start, seconds, low Hz, high Hz, level.
    """

    rng: Generator
    singer: Singer
    haste: float
    shape_times: list[float] = dataclasses.field(default_factory=list)
    formants: list[Formants] = dataclasses.field(default_factory=list)
    nasal: list[float] = dataclasses.field(default_factory=list)
    level_times: list[float] = dataclasses.field(default_factory=list)
    level: list[float] = dataclasses.field(default_factory=list)
    breath: list[float] = dataclasses.field(default_factory=list)
    bursts: list[tuple[float, float, float, float, float]] = dataclasses.field(default_factory=list)

    def shape(self, time: float, formants: Formants, nasal: float = 0.0) -> None:
        """Adds a target of formants; ignored at a time before the last one."""
        if not self.shape_times or time > self.shape_times[-1]:
            self.shape_times.append(time)
            self.formants.append(formants)
            self.nasal.append(nasal)

    def sound(self, time: float, level: float, breath: float = 0.0) -> None:
        """Adds a target of levels; ignored at a time before the last one."""
        if not self.level_times or time > self.level_times[-1]:
            self.level_times.append(time)
            self.level.append(level)
            self.breath.append(breath)


def articulate(
    rng: Generator, singer: Singer, notes: tuple[Note, ...], lyrics: list[Syllable | None]
) -> Tracks:
    """Sings syllables on the notes (None holds the previous vowel), with breaths in the rests."""
    vowels: tuple[str, ...] = ("a",)
    breathing = rng.random() < 0.8
    haste = 0.75 if singer.speech else float(rng.uniform(0.85, 1.25))
    tracks = Tracks(rng, singer, haste)
    tracks.sound(-1.0, 0.0)
    for i, (note, syllable) in enumerate(zip(notes, lyrics, strict=True)):
        gap = note.start - notes[i - 1].end if i else 1.0
        ends = i + 1 == len(notes) or notes[i + 1].start - note.end > _SILENCE
        successor = None if ends else lyrics[i + 1]
        held = not ends and successor is None
        length = note.end - note.start
        level = note.velocity**1.5
        start = note.start + float(rng.normal(0, 0.008))
        if gap > 0.5 and breathing:
            _breathe(tracks, start, gap)
        if syllable is None and gap < _SILENCE:
            tracks.sound(start, level * 0.92)
            tracks.shape(start, _target(vowels[-1]))
        else:
            syllable = syllable or random_syllable(rng)
            vowels = syllable.vowels
            _attack(tracks, syllable, start, length, level, gap > _SILENCE)
        if len(vowels) == 2 and not held:
            tracks.shape(start + length * float(rng.uniform(0.4, 0.6)), _target(vowels[0], rng))
            tracks.shape(start + length * 0.9, _target(vowels[1], rng))
        tracks.sound(start + length * 0.35, level * float(rng.uniform(0.9, 1.2)))
        if not held:
            coda = syllable.coda if syllable and length > 0.18 else ""
            onset = successor.onset if successor else ""
            _release(tracks, coda, vowels[-1], start, length, level, ends, onset)
    tracks.sound(tracks.level_times[-1] + 0.1, 0.0)
    return tracks


def _breathe(tracks: Tracks, start: float, gap: float) -> None:
    """An audible breath in the rest before a phrase."""
    rng = tracks.rng
    seconds = float(rng.uniform(0.2, min(0.5, gap * 0.7)))
    at = start - seconds - float(rng.uniform(0.08, 0.15))
    low = float(rng.uniform(500, 1500))
    tracks.bursts.append((at, seconds, low, low * 5, float(rng.uniform(0.01, 0.07))))


def _attack(
    tracks: Tracks, syllable: Syllable, start: float, length: float, level: float, after_rest: bool
) -> None:
    """The onset consonant, which ends where the note starts, and the way into the first vowel."""
    rng, singer = tracks.rng, tracks.singer
    tail = 0.03
    if syllable.onset:
        consonant = CONSONANTS[syllable.onset]
        seconds = consonant.seconds * tracks.haste * float(rng.uniform(0.8, 1.3))
        seconds = min(seconds, 0.45 * length + 0.03)
        at = start - seconds
        nasal = float(consonant.nasal)
        low = level * consonant.voicing
        if singer.silent_rests and after_rest:
            tracks.sound(at - 0.02, 0.0)
        tracks.sound(at, low * (0.5 if after_rest else 1.0))
        tracks.shape(at + 0.015, consonant.locus, nasal)
        tracks.shape(start - 0.01, consonant.locus, nasal)
        air = 0.12 * consonant.breath
        tracks.sound(at + 0.02, low, air if syllable.onset == "h" else 0.0)
        tracks.sound(start - 0.005, low * 1.1, air)
        for begin, share, low_hz, high_hz, gain in consonant.noise:
            gain *= singer.sibilance * float(rng.uniform(0.6, 1.3)) * (0.35 + 0.5 * level)
            shift = float(rng.uniform(0.88, 1.15)) * singer.tract**0.5
            tracks.bursts.append(
                (at + begin * seconds, share * seconds, low_hz * shift, high_hz * shift, gain)
            )
        tail = 0.045 if consonant.breath else 0.025
    elif after_rest:
        tail = float(rng.uniform(0.02, 0.09))
        tracks.sound(start - 0.02, 0.0, 0.03 * singer.breath)
    tracks.sound(start + tail, level)
    tracks.shape(start + float(rng.uniform(0.03, 0.06)), _target(syllable.vowels[0], rng))


def _release(
    tracks: Tracks,
    coda: str,
    vowel: str,
    start: float,
    length: float,
    level: float,
    before_rest: bool,
    next_onset: str,
) -> None:
    """The end of the last vowel and the coda, leaving room for the next onset."""
    rng, singer = tracks.rng, tracks.singer
    end = start + length * (0.7 if singer.speech else float(rng.uniform(0.88, 1.0)))
    fall = float(rng.uniform(0.04, 0.16)) if before_rest else 0.02
    end -= CONSONANTS[next_onset].seconds if next_onset else 0.0
    end = max(end, start + 0.4 * length)
    decay = float(rng.uniform(0.5, 1.0))
    if coda:
        consonant = CONSONANTS[coda]
        seconds = min(consonant.seconds * tracks.haste, 0.3 * length)
        end -= seconds * 0.5
        nasal = float(consonant.nasal)
        tracks.shape(end - 0.03, _target(vowel))
        tracks.sound(end - 0.03, level * decay)
        tracks.shape(end + 0.02, consonant.locus, nasal)
        tracks.sound(end + 0.02, level * consonant.voicing * 0.8)
        tracks.shape(end + seconds, consonant.locus, nasal)
        tracks.sound(end + seconds, level * consonant.voicing * 0.4)
        for begin, share, low_hz, high_hz, gain in consonant.noise:
            gain *= singer.sibilance * (0.3 + 0.4 * level)
            tracks.bursts.append((end + begin * seconds, share * seconds, low_hz, high_hz, gain))
        end += seconds
    else:
        tracks.shape(end, _target(vowel, rng))
        tracks.sound(end - fall * 0.5, level * decay)
    if before_rest or coda:
        tracks.sound(end + fall, 0.0, 0.01 * singer.breath)
        tracks.sound(end + fall + 0.02, 0.0)


def _target(vowel: str, rng: Generator | None = None) -> Formants:
    """Formants of a vowel, a little different at each utterance."""
    f1, f2, f3 = VOWELS[vowel]
    if rng is None:
        return f1, f2, f3
    a, b, c = rng.normal(1.0, 0.04, 3)
    return (f1 * a, f2 * b, f3 * c)


def pitch_track(
    rng: Generator, manner: Manner, notes: Sequence[Note], frames: int, rate: float
) -> Track:
    """f0 in hertz: glides, scoops, falls, vibrato that sets in late, drift and jitter."""
    time = np.arange(frames) / rate
    points: list[tuple[float, float]] = []
    depth: list[tuple[float, float]] = [(0.0, 0.0)]
    loose = 0.0 if manner.hard_tuned else 1.0
    tuning = loose * rng.normal(0, 0.06)
    for i, note in enumerate(notes):
        after_rest = i == 0 or note.start - notes[i - 1].end > 0.05
        before_rest = i + 1 == len(notes) or notes[i + 1].start - note.end > 0.05
        pitch = note.pitch + tuning + loose * rng.normal(0, 0.08)
        length = note.end - note.start
        glide = min(manner.glide * float(np.exp(rng.normal(0, 0.4))), 0.4 * length)
        if manner.speech:
            pitch += rng.normal(0, 2.0)
            points += [(note.start, pitch + rng.normal(1, 1)), (note.end - 0.02, pitch - 2.0)]
            continue
        lead = note.start - 0.5 * glide
        if after_rest and rng.random() < manner.scoop:
            points.append((note.start - 0.05, pitch - rng.uniform(1, 4)))
            lead = note.start + rng.uniform(0.0, 0.06)
        elif after_rest:
            points.append((note.start - 0.05, pitch - loose * rng.uniform(0, 0.6)))
        points.append((lead + glide, pitch))
        falling = before_rest and rng.random() < 0.2 * loose
        points.append(
            (note.end - (0.12 if falling else 0.5 * glide), pitch + loose * rng.normal(0, 0.05))
        )
        if falling:
            points.append((note.end, pitch - rng.uniform(1, 5)))
        onset = note.start + manner.vibrato_delay * float(np.exp(rng.normal(0, 0.3)))
        if onset + 0.15 < note.end:
            full = manner.vibrato_cents * float(rng.uniform(0.5, 1.3))
            depth += [
                (onset, 0.0),
                (min(onset + 0.35, note.end - 0.05), full),
                (note.end, full * 0.6),
            ]
            depth.append((note.end + 0.03, 0.0))
    points.sort()
    depth.sort()
    when, what = np.array(points).T
    track = np.interp(time, when, what)
    track = scipy.ndimage.gaussian_filter1d(track, 0.3 * manner.glide * rate)
    wobble = manner.vibrato_hz * (1 + 0.06 * dsp.smooth_noise(rng, frames, rate, 1.5))
    vibrato = np.interp(time, *np.array(depth).T) / 100
    track += vibrato * np.sin(2 * np.pi * np.cumsum(wobble) / rate)
    track += manner.drift * dsp.smooth_noise(rng, frames, rate, 2.5)
    track += 12 * manner.jitter * rng.standard_normal(frames)
    return np.clip(440.0 * 2 ** ((track - 69) / 12), 55.0, 1400.0)
