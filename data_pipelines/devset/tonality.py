"""What a melody has to fit: an excerpt's tuning, key, beat and the pitch classes of each beat.

Pitches are the peaks of a spectrogram, folded into one octave.
"""

from typing import NamedTuple

import numpy as np
import scipy.signal
from jaxtyping import Float

from data_pipelines.dsp import Mono
from data_pipelines.embedded.composition import SCALES

_WINDOW, _HOP = 8_192, 1_024
_LOWEST_HZ, _HIGHEST_HZ, _FLOOR_DB = 80.0, 2_000.0, -45.0
_BEAT_SECONDS, _LIKELY_BEAT_SECONDS = (0.4, 0.85), 0.55

# How well each pitch class, from the tonic up, fits (Krumhansl and Kessler 1982).
_PROFILES = {
    "major": (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88),
    "minor": (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17),
}


class Tonality(NamedTuple):
    """Tonality of an excerpt.

    Attributes:
        tuning_cents: its A4 against 440 Hz, -50 to 50.
        tonic: pitch class, 0 is C.
        mode: "major" or "minor", of `SCALES`.
        beat_seconds: from one beat to the next.
        first_beat: seconds.
        chroma: share of each pitch class (from C) around each beat, sums to 1.
    """

    tuning_cents: float
    tonic: int
    mode: str
    beat_seconds: float
    first_beat: float
    chroma: Float[np.ndarray, "beat 12"]

    def pitch_classes(self) -> set[int]:
        """Pitch classes of the key."""
        return {(self.tonic + step) % 12 for step in SCALES[self.mode]}


def find_tonality(x: Mono, sample_rate: int) -> Tonality:
    """Analyses some seconds of music."""
    magnitudes = np.abs(
        scipy.signal.stft(x, sample_rate, nperseg=_WINDOW, noverlap=_WINDOW - _HOP)[2]
    ).T
    frames, pitches, weights = _peaks(magnitudes, sample_rate / _WINDOW)
    circle = np.sum(weights * np.exp(2j * np.pi * pitches))
    tuning = float(np.angle(circle) / (2 * np.pi))
    chroma = np.zeros((len(magnitudes), 12))
    np.add.at(chroma, (frames, np.round(pitches - tuning).astype(int) % 12), weights)
    tonic, mode = _key(chroma.sum(axis=0))
    frame_seconds = _HOP / sample_rate
    beat_seconds, first_beat = _beat(magnitudes, frame_seconds)
    beats = np.arange(first_beat, len(x) / sample_rate, beat_seconds)
    starts = np.round(beats / frame_seconds).astype(int)
    ends = np.round((beats + beat_seconds) / frame_seconds).astype(int)
    around = np.array([chroma[a:b].sum(axis=0) for a, b in zip(starts, ends, strict=True)])
    around += 0.05 * chroma.mean(axis=0) * (ends - starts)[:, None] + 1e-9
    return Tonality(
        tuning_cents=100 * tuning,
        tonic=tonic,
        mode=mode,
        beat_seconds=beat_seconds,
        first_beat=first_beat,
        chroma=around / around.sum(axis=1, keepdims=True),
    )


def _peaks(
    magnitudes: Float[np.ndarray, "frame bin"], bin_hz: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Spectral peaks, between the bins by a parabola: frame, MIDI pitch, weight (root of it)."""
    low, high = int(_LOWEST_HZ / bin_hz), int(_HIGHEST_HZ / bin_hz)
    levels = np.log(magnitudes[:, low : high + 2] + 1e-9)
    before, here, after = levels[:, :-2], levels[:, 1:-1], levels[:, 2:]
    floor = np.log(magnitudes.max() + 1e-9) + _FLOOR_DB / 20 * np.log(10)
    is_peak = (here > before) & (here >= after) & (here > floor)
    frames, bins = np.nonzero(is_peak)
    left, top, right = before[is_peak], here[is_peak], after[is_peak]
    offset = 0.5 * (left - right) / (left - 2 * top + right)
    hz = (bins + low + 1 + offset) * bin_hz
    return frames, 69 + 12 * np.log2(hz / 440), np.exp(0.5 * top)


def _key(chroma: Float[np.ndarray, "12"]) -> tuple[int, str]:
    """The tonic and mode whose profile correlates best."""
    fits = {
        (tonic, mode): float(np.corrcoef(chroma, np.roll(profile, tonic))[0, 1])
        for mode, profile in _PROFILES.items()
        for tonic in range(12)
    }
    return max(fits, key=lambda key: fits[key])


def _beat(magnitudes: Float[np.ndarray, "frame bin"], frame_seconds: float) -> tuple[float, float]:
    """Length of a beat and time of the first one in seconds, from rises of the spectrum."""
    rises = np.maximum(np.diff(np.log1p(100 * magnitudes / magnitudes.max()), axis=0), 0)
    onsets = np.concatenate([[0.0], rises.sum(axis=1)])
    onsets -= scipy.signal.medfilt(onsets, 1 + 2 * int(0.5 / frame_seconds))
    onsets = np.maximum(onsets, 0)
    shortest, longest = (int(seconds / frame_seconds) for seconds in _BEAT_SECONDS)
    lags = np.arange(shortest, longest + 1)
    n = len(onsets)
    # A beat comes again after one, two and four of its length.
    strength = np.array(
        [
            sum(np.dot(onsets[k * lag :], onsets[: n - k * lag]) / (n - k * lag) for k in (1, 2, 4))
            for lag in lags
        ]
    )
    strength *= np.exp(-0.5 * (np.log2(lags * frame_seconds / _LIKELY_BEAT_SECONDS) / 0.7) ** 2)
    lag = int(lags[np.argmax(strength)])
    # Measured over several beats, the resolution of a frame is fine enough.
    beats = max(1, min(8, n // 2 // lag))
    near = np.arange(beats * lag - 4, beats * lag + 5)
    again = [np.dot(onsets[d:], onsets[: n - d]) / (n - d) for d in near]
    length = float(near[int(np.argmax(again))]) / beats
    phases = np.arange(0, length, 1.0)
    sums = [onsets[np.round(np.arange(p, n - 1, length)).astype(int)].sum() for p in phases]
    return length * frame_seconds, float(phases[int(np.argmax(sums))]) * frame_seconds
