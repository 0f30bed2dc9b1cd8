"""Syllables of speech: finding them, and stretching one under each note.

A syllable is (start, nucleus, end) in frames of an analysis: from the first frame of its onset
consonants over the loudest voiced frame to the frame where the next one's onset begins.
"""

import dataclasses
import functools
import itertools
from collections.abc import Sequence

import numpy as np
import scipy.ndimage
import scipy.signal
from jaxtyping import Float
from numpy.random import Generator

from data_pipelines import dsp
from data_pipelines.dsp import Track
from data_pipelines.embedded.composition import Note
from data_pipelines.embedded.singer import Manner

Syllable = tuple[int, int, int]

PERIOD_MS = 5.0
"""From one frame of an analysis to the next."""
RATE = 1000.0 / PERIOD_MS
"""Frames per second."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Treatment:
    """How a voice sings on someone's speech.

    Attributes:
        tract: factor on the formants.
        melodic: 1: the pitch follows the melody; 0: the contour of the speech; between them, both.
        speech_hz: mean pitch of that contour.
        breath: added noise, 0 to 1, mostly in the treble.
        whisper: nothing but noise.
    """

    manner: Manner
    tract: float = 1.0
    melodic: float = 1.0
    speech_hz: float = 200.0
    breath: float = 0.0
    whisper: bool = False


def find_syllables(f0_hz: Track, power: Track) -> tuple[Syllable, ...]:
    """Syllables of speech; f0 is 0 where it is unvoiced.

    One for each peak of the voiced level. Two are separated where the level begins to fall into the
    consonants between them, so that all of them belong to the second one and none is cut.
    """
    level = np.log(power + 1e-6 * power.max(initial=1e-12)) + np.where(f0_hz > 0, 2.0, -2.0)
    level = scipy.ndimage.gaussian_filter1d(level, 0.015 * RATE)
    padded = np.concatenate([[level.min()], level, [level.min()]])
    found = scipy.signal.find_peaks(padded, distance=max(1, int(0.08 * RATE)), prominence=0.2)[0]
    # Opening takes away voiced runs that are too short to sing.
    loud = scipy.ndimage.grey_opening(power * (f0_hz > 0), max(3, int(0.05 * RATE)))
    peaks = [int(p) - 1 for p in found if loud[p - 1] > 0.03 * loud.max()]
    cuts = [0]
    for a, b in itertools.pairwise(peaks):
        floor = level[a:b].min()
        edge = floor + 0.4 * (min(level[a], level[b]) - floor)
        cuts.append(a + int(np.argmax(level[a:b] <= edge)))
    cuts.append(len(f0_hz))
    syllables = []
    for peak, low, high in zip(peaks, cuts, cuts[1:], strict=False):
        start = max(low, peak - int(0.3 * RATE))
        end = min(high, peak + max(2, int(0.45 * RATE)))
        audible = np.flatnonzero(power[start:end] > 1e-4 * power[peak]) + start
        syllables.append((int(audible[0]), peak, int(audible[-1]) + 1))
    return tuple(syllables)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Analysis:
    """A recording of speech as WORLD's parameters, `RATE` frames per second.

    Attributes:
        f0: hertz; 0 where unvoiced.
        power: between 400 and 4,500 Hz, where vowels stand out from nasals and glides.
        spectrum: power of the smooth envelope.
        aperiodicity: share of noise in the amplitude, 0 to 1.
    """

    f0: Track
    power: Track
    syllables: tuple[Syllable, ...]
    spectrum: Float[np.ndarray, "frame bin"]
    aperiodicity: Float[np.ndarray, "frame bin"]
    sample_rate: int

    @functools.cached_property
    def log_spectrum(self) -> Float[np.ndarray, "frame bin"]:
        """Logarithm of the amplitude."""
        return 0.5 * np.log(self.spectrum + 1e-16)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Span:
    """One syllable laid under one note: from output frame `first` on, positions in its source.

    Attributes:
        weight: fades at both ends; where two spans meet their weights cross.
        log_gain: amplitude that brings the nucleus to the note's level.
    """

    source: Analysis
    first: int
    positions: Track
    weight: Track
    log_gain: float


def lay(
    rng: Generator,
    sources: Sequence[tuple[Analysis, int]],
    notes: Sequence[Note],
    frames: int,
) -> list[Span]:
    """Stretches one syllable under each note: its vowel begins on the note and is held to its end.

    Onset consonants keep their speed and take their time from the note before. Within a held vowel
    the position moves on slowly and wanders, as a frozen spectrum buzzes. Notes are in order.
    """
    vowels = [_vowel(speech, index) for speech, index in sources]
    edge = max(1.0, 0.015 * RATE)
    starts = np.array([note.start for note in notes]) * RATE
    ends = np.array([note.end for note in notes]) * RATE
    gaps = np.maximum(starts[1:] - ends[:-1], 0)
    room = np.append(0.3 * RATE, gaps + 0.4 * (ends - starts)[:-1])
    heads = np.minimum([on - first for first, on, *_ in vowels], room)
    following = np.append((starts - heads)[1:], np.inf)
    rest = following - ends > 0.04 * RATE
    stops = np.where(rest, ends, following)
    spans = []
    for i, (first, on, low, high, last) in enumerate(vowels):
        source = sources[i][0]
        length = max(stops[i] - starts[i], 4.0)
        attack, release = min(low - on, 0.3 * length), min(last - high, 0.4 * length)
        corners = np.array([-heads[i], 0.0, attack, length - release, length])
        corners += starts[i] + np.arange(5) * 1e-3
        begin, end = max(0, int(corners[0])), min(frames, int(corners[4] + edge) + 1)
        if end - begin < 2:
            continue
        t = np.arange(begin, end)
        positions = np.interp(t, corners, [first, on, low, high, last])
        if length > attack + release + 4 * edge:
            held = [corners[2], corners[2] + edge, corners[3] - edge, corners[3]]
            inside = np.interp(t, held, [0, 1, 1, 0]) * min(0.01 * RATE, 0.25 * (high - low))
            wander = inside * dsp.smooth_noise(rng, len(t), RATE, 3.0)
            positions = np.clip(positions + wander, first, last)
        fall = 0.05 * RATE if rest[i] else edge + 1
        weight = np.minimum((t - begin + 1) / (edge + 1), (end - t) / fall)
        loud = source.power[int(on) : int(high) + 1].max()
        log_gain = 1.5 * np.log(notes[i].velocity) - 0.5 * np.log(loud + 1e-12)
        span = Span(
            source=source,
            first=begin,
            positions=positions,
            weight=np.clip(weight, 0, 1),
            log_gain=float(log_gain),
        )
        spans.append(span)
    return spans


def _vowel(speech: Analysis, index: int) -> tuple[float, float, float, float, float]:
    """Frames of a syllable: first, vowel's onset, where it is held from, to, and the last."""
    start, nucleus, end = speech.syllables[index]
    loud = (speech.f0[start:end] > 0) & (speech.power[start:end] > 0.15 * speech.power[nucleus])
    quiet = np.flatnonzero(~loud) + start
    on = max([start, *(quiet[quiet < nucleus] + 1)])
    off = min([end - 1, *(quiet[quiet > nucleus] - 1)])
    low, high = nucleus - 0.35 * (nucleus - on), nucleus + 0.45 * (off - nucleus)
    return float(start), float(on), low, high, float(end - 1)


def onsets(speech: Analysis, indices: Sequence[int]) -> list[tuple[float, float]]:
    """Seconds at which the vowels of syllables begin, and those from there to the ends."""
    spans = [_vowel(speech, index) for index in indices]
    return [(on / RATE, (last + 1 - on) / RATE) for _, on, _, _, last in spans]


def shorten(speech: Analysis, indices: Sequence[int], notes: Sequence[Note]) -> list[Note]:
    """Notes no longer than their syllables are when spoken."""
    lengths = [length for _, length in onsets(speech, indices)]
    return [
        note._replace(end=min(note.end, note.start + 1.1 * length))
        for note, length in zip(notes, lengths, strict=True)
    ]


def recite(rng: Generator, speech: Analysis, notes: Sequence[Note]) -> list[Note]:
    """Notes for the syllables of a sentence in its own rhythm, begun with a phrase of notes.

    Said up to a third faster or slower to last as long as the phrase; what still does not fit is
    left out.
    """
    times = onsets(speech, range(len(speech.syllables)))
    begin, end = notes[0].start, notes[-1].end
    natural = times[-1][0] + times[-1][1] - times[0][0]
    pace = float(np.clip((end - begin) / natural, 0.75, 1.33) * rng.uniform(0.9, 1.05))
    loud = speech.power[[nucleus for _, nucleus, _ in speech.syllables]]
    stress = np.cbrt(loud / loud.max())
    laid: list[Note] = []
    for (on, length), velocity in zip(times, stress, strict=True):
        start = begin + (on - times[0][0]) * pace
        if not laid or start + 0.1 < end:
            stop = start + length * pace
            laid.append(notes[0]._replace(start=start, end=stop, velocity=float(velocity)))
    return [
        note._replace(end=max(note.start + 0.03, min(note.end, after)))
        for note, after in zip(laid, [n.start for n in laid[1:]] + [end + 0.2], strict=True)
    ]


def warp(x: Float[np.ndarray, "frame bin"], tract: float) -> Float[np.ndarray, "frame bin"]:
    """Moves content at f to tract * f; repeats the highest bin above it."""
    axis = np.minimum(np.arange(x.shape[1]) / tract, x.shape[1] - 1)
    lower = np.minimum(axis.astype(int), x.shape[1] - 2)
    low = x[:, lower]
    return low + (x[:, lower + 1] - low) * (axis - lower).astype(np.float32)


def rumble_cut(f0_hz: Track, hz: Float[np.ndarray, "bin"]) -> Float[np.ndarray, "frame bin"]:
    """Amplitude factor that falls below f0, where a raised voice would keep a lower one's noise."""
    ratio = 0.7 * f0_hz.astype(np.float32)[:, None] / np.maximum(hz, 1).astype(np.float32)
    return 1 / (1 + np.square(np.square(ratio)))


def loudness(spans: Sequence[Span], frames: int) -> Track:
    """Amplitude factor of each frame, 0 in rests."""
    total, log_gain = np.zeros(frames), np.zeros(frames)
    for span in spans:
        where = slice(span.first, span.first + len(span.weight))
        total[where] += span.weight
        log_gain[where] += span.weight * span.log_gain
    return np.minimum(total, 1) * np.exp(log_gain / np.maximum(total, 1e-9))


def follow(spans: Sequence[Span], melody_hz: Track, treatment: Treatment) -> Track:
    """f0 between the melody and the sources' own contours, moved to `treatment.speech_hz`.

    0 where the sources are unvoiced or nothing sounds.
    """
    total, voiced, contour = (np.zeros(len(melody_hz)) for _ in range(3))
    for span in spans:
        where = slice(span.first, span.first + len(span.weight))
        known = np.flatnonzero(span.source.f0 > 0)
        pitch = np.log(span.source.f0[known])
        total[where] += span.weight
        voiced[where] += span.weight * (span.source.f0[np.round(span.positions).astype(int)] > 0)
        own = np.interp(span.positions, known, pitch - pitch.mean())
        contour[where] += span.weight * own
    melodic = treatment.melodic
    spoken = np.log(treatment.speech_hz) + contour / np.maximum(total, 1e-9)
    f0 = np.exp(melodic * np.log(melody_hz) + (1 - melodic) * spoken)
    return np.where(voiced > 0.5 * total, f0, 0.0)


def blend(spans: Sequence[Span], feature: str, frames: int) -> Float[np.ndarray, "frame bin"]:
    """An array of the sources along the layout: interpolated, crossed where spans meet."""
    total = np.full(frames, 1e-9)
    for span in spans:
        total[span.first : span.first + len(span.weight)] += span.weight
    first = getattr(spans[0].source, feature)
    out = np.zeros((frames, first.shape[1]), first.dtype)
    for span in spans:
        values = getattr(span.source, feature)
        lower = span.positions.astype(int)
        part = values[lower]
        fraction = (span.positions - lower).astype(values.dtype)[:, None]
        part += (values[np.minimum(lower + 1, len(values) - 1)] - part) * fraction
        where = slice(span.first, span.first + len(lower))
        part *= (span.weight / total[where]).astype(values.dtype)[:, None]
        out[where] += part
    return out
