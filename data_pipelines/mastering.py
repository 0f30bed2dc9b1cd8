"""Processing of a finished track: varispeed, tilt, saturation, limiter, low-pass, fade.

Filters multiply the FFT of the whole array, so that its ends wrap around: they are faded, and the
caller cuts off the first and the last `MARGIN` samples. The two channels are the real and the
imaginary part of one complex signal, as a real, even response treats both alike.
"""

import functools

import numpy as np
import scipy.fft
from jaxtyping import Float

from data_pipelines import dsp
from data_pipelines.dsp import Mono, Stereo

MARGIN = 512
"""Samples at both ends of an array that filters spoil: more than their responses last. Half of the
margin is faded, which at half the speed becomes all of it."""

TILT_CENTRE_HZ = 1000.0

_HOP = 32
"""Samples between two values of the limiter's gain."""
_ATTACK_DB_PER_SECOND = 1600.0
_RELEASE_DB_PER_SECOND = 60.0


def resample(
    audio: Float[np.ndarray, "before 2"],
    length: int,
    response: Float[np.ndarray, "frequency"] | None = None,
) -> Float[np.ndarray, "after 2"]:
    """The same stretch in `length` samples, filtered by a zero-phase response; overwrites `audio`.

    All frequencies change by the factor before / length; those beyond half the rate are removed.
    Lengths of `scipy.fft.next_fast_len` are the fastest. `response`: gains at the frequencies of
    `numpy.fft.fftfreq(length)`, as `tilt` and `low_pass` give them.
    """
    audio = np.ascontiguousarray(audio)
    ends = dsp.fade(min(MARGIN, len(audio)) // 2)
    audio[: len(ends)] *= ends[::-1, None]
    audio[len(audio) - len(ends) :] *= ends[:, None]
    before = scipy.fft.fft(audio.view(np.complex64)[:, 0], norm="forward", overwrite_x=True)
    if length == len(audio):
        after = before
    else:
        after = np.zeros(length, np.complex64)
        kept = (min(length, len(audio)) + 1) // 2
        after[:kept] = before[:kept]
        after[length - kept + 1 :] = before[len(audio) - kept + 1 :]
    if response is not None:
        after *= response
    return scipy.fft.ifft(after, norm="forward", overwrite_x=True)[:, None].view(np.float32)


def tilt(length: int, sample_rate: int, tilt_db: float) -> Float[np.ndarray, "frequency"]:
    """Response that falls or rises smoothly: -tilt_db at 0 Hz, 0 dB at 1 kHz, to +tilt_db.

    The gain in decibels is tilt_db (f - 1 kHz) / (f + 1 kHz): at 100 Hz and 10 kHz 82% of it.
    """
    return np.exp(_tilt_of_one_db(length, sample_rate) * np.float32(tilt_db))


@functools.lru_cache(maxsize=4)
def _tilt_of_one_db(length: int, sample_rate: int) -> Float[np.ndarray, "frequency"]:
    """Logarithm of the response for a tilt of 1 dB."""
    hz = _frequencies(length, sample_rate)
    return (hz - TILT_CENTRE_HZ) / (hz + TILT_CENTRE_HZ) * np.float32(np.log(10.0) / 20.0)


def low_pass(length: int, sample_rate: int, cutoff_hz: float) -> Float[np.ndarray, "frequency"]:
    """Response of a low-pass: 1 up to 90% of `cutoff_hz`, half a raised cosine, 0 from it on."""
    above = (_frequencies(length, sample_rate) / np.float32(cutoff_hz) - 0.9) / 0.1
    return 0.5 + 0.5 * np.cos(np.float32(np.pi) * np.clip(above, 0.0, 1.0))


@functools.lru_cache(maxsize=4)
def _frequencies(length: int, sample_rate: int) -> Float[np.ndarray, "frequency"]:
    """Absolute frequencies of an FFT's bins, in Hz."""
    return np.abs(scipy.fft.fftfreq(length, 1.0 / sample_rate)).astype(np.float32)


def saturate(audio: Stereo, drive_db: float) -> Stereo:
    """Saturates by tanh, with the peak `drive_db` above 1; the RMS stays. In place."""
    level = dsp.rms(audio)
    peak = float(np.abs(audio).max(initial=0.0))
    if level == 0.0:
        return audio
    audio *= np.float32(dsp.db_to_gain(drive_db) / peak)
    np.tanh(audio, out=audio)
    audio *= np.float32(level / dsp.rms(audio))
    return audio


def limiter_gain(mixture: Stereo, sample_rate: int, drive_db: float) -> Mono:
    """Gain of a look-ahead limiter that takes the mixture's highest peak down by `drive_db`.

    At most 1, and the mixture times the gain stays within its peak less `drive_db`. It falls 1.6 dB
    a millisecond ahead of a peak and recovers by 60 dB a second.
    """
    starts = np.arange(0, 2 * len(mixture), 2 * _HOP)
    peaks = np.maximum.reduceat(np.abs(mixture).ravel(), starts).astype(np.float64)
    ceiling = peaks.max() * dsp.db_to_gain(-drive_db)
    over = 20.0 * np.log10(np.maximum(peaks / (ceiling or 1.0), 1.0))
    # Each border takes the larger reduction of its two blocks, so lines between borders suffice.
    needed = np.maximum(np.append(over, 0.0), np.append(0.0, over))
    seconds = np.arange(len(needed)) * (_HOP / sample_rate)
    needed = _falling(needed, _RELEASE_DB_PER_SECOND * seconds)
    needed = _falling(needed[::-1], _ATTACK_DB_PER_SECOND * seconds)[::-1]
    return dsp.upsample((10.0 ** (-needed / 20.0)).astype(np.float32), _HOP, len(mixture))


def _falling(
    db: Float[np.ndarray, "block"], slope: Float[np.ndarray, "block"]
) -> Float[np.ndarray, "block"]:
    """The lowest curve above `db` that nowhere falls faster than `slope` rises."""
    return np.maximum.accumulate(db + slope) - slope


def fade(length: int, first_db: float, last_db: float) -> Mono:
    """Gain from one level to another, linear in decibels."""
    ramp = np.linspace(first_db, last_db, length, dtype=np.float32)
    return np.exp(ramp * np.float32(np.log(10.0) / 20.0))
