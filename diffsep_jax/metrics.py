"""Scores of one separated track against the truth: utterance SDR, SI-SDR, log-spectral distance."""

import math
import sys

import numpy as np
from jaxtyping import Float, Float64

from diffsep_jax.errors import UserError

LIMIT_DB = -20 * math.log10(sys.float_info.epsilon)
"""Ratios without a term for silence stay within 313 dB, where float64 tells no error from none."""

# Added to both energies of the ratio by the Sound Demixing Challenge.
_EPSILON = 1e-7

# Of the log-spectral distance: frames for one second, hops in a frame, and the lowest level that
# counts, below the mean power of the reference's bins.
_HOPS_PER_SECOND, _HOPS_PER_WINDOW, _FLOOR_DB = 44100 / 512, 4, 60.0
_FRAMES_AT_ONCE = 1024


def sdr(
    reference: Float[np.ndarray, "_time _channel"], estimate: Float[np.ndarray, "_time _channel"]
) -> float:
    """Utterance SDR in dB, by the Sound Demixing Challenge's formula.

    10 log10((sum s^2 + 1e-7) / (sum (s - s_hat)^2 + 1e-7)), over the whole track and all channels,
    in float64. Of a silent reference (`is_silent`) it says nothing about the vocals.

    Raises:
      UserError: the shapes differ, there are no samples, or a sample is NaN or infinite.
    """
    _check(reference, estimate)
    exact_reference = np.asarray(reference, np.float64)
    error = exact_reference - np.asarray(estimate, np.float64)
    ratio = (_energy(exact_reference) + _EPSILON) / (_energy(error) + _EPSILON)
    return 10 * math.log10(ratio)


def si_sdr(
    reference: Float[np.ndarray, "_time _channel"], estimate: Float[np.ndarray, "_time _channel"]
) -> float:
    """Scale-invariant SDR in dB (Le Roux, Wisdom, Erdogan and Hershey 2019, equation 5).

    10 log10(sum (a s)^2 / sum (a s - s_hat)^2) with a = sum s s_hat / sum s^2: one scale for the
    whole track, all channels and all times together, so that a wrong balance between channels or
    passages counts as error, as does a wrong polarity not (a may be negative). Means are not
    removed. In float64, within +-`LIMIT_DB`, which stands for infinity: an estimate with nothing of
    the reference in it, silence too, gives -`LIMIT_DB`. NaN if the reference is silent
    (`is_silent`).

    Raises:
      UserError: as `sdr`.
    """
    _check(reference, estimate)
    if is_silent(reference):
        return math.nan
    exact_reference = np.asarray(reference, np.float64)
    exact_estimate = np.asarray(estimate, np.float64)
    scale = float(np.sum(exact_reference * exact_estimate)) / _energy(exact_reference)
    target = scale * exact_reference
    signal, noise = _energy(target), _energy(target - exact_estimate)
    if signal == 0:
        return -LIMIT_DB
    if noise == 0:
        return LIMIT_DB
    return min(max(10 * math.log10(signal / noise), -LIMIT_DB), LIMIT_DB)


def log_spectral_distance(
    reference: Float[np.ndarray, "_time _channel"],
    estimate: Float[np.ndarray, "_time _channel"],
    sample_rate: int,
) -> float:
    """Log-spectral distance in dB; 0 is the best. It hears what is missing at any level, no phase.

    With S and S_hat the power spectra of one frame of one channel,

        d^2 = mean over bins of (10 log10((S + floor) / (S_hat + floor)))^2

    (Gray and Markel 1976, the rms log spectral measure); the distance is the mean of d over frames
    and channels. Frames are 46 ms long (2048 samples at 44.1 kHz), a quarter of that apart, under a
    Hann window, centred on the first sample and so on; outside the track there are zeros. The floor
    lies 60 dB below the mean of S over the whole track: silent frames of the reference weigh by
    what the estimate has there above the floor, and by nothing else. For a given floor the two
    signals can be exchanged. NaN if the reference is silent (`is_silent`).

    Raises:
      UserError: as `sdr`; the sample rate, in Hz, is too low for a frame of 4 samples.
    """
    _check(reference, estimate)
    hop = round(sample_rate / _HOPS_PER_SECOND)
    if hop < 1:
        raise UserError(f"a sample rate of {sample_rate} Hz, expected at least 50")
    if is_silent(reference):
        return math.nan
    window = np.hanning(_HOPS_PER_WINDOW * hop + 1)[:-1]
    num_frames = 1 + -(-len(reference) // hop)
    chunks = [
        (first, min(first + _FRAMES_AT_ONCE, num_frames))
        for first in range(0, num_frames, _FRAMES_AT_ONCE)
    ]
    powers = [_power(reference, window, hop, *chunk).mean(axis=(1, 2)).sum() for chunk in chunks]
    floor = 10 ** (-_FLOOR_DB / 10) * sum(powers) / num_frames
    total = 0.0
    for chunk in chunks:
        ratio = np.log10(_power(reference, window, hop, *chunk) + floor)
        ratio -= np.log10(_power(estimate, window, hop, *chunk) + floor)
        total += float(np.sqrt(np.mean(np.square(10 * ratio), axis=2)).mean(axis=1).sum())
    return total / num_frames


def is_silent(reference: Float[np.ndarray, "time channel"]) -> bool:
    """Whether `reference` is too quiet to score: its energy is below the 1e-7 of the formula."""
    return _energy(np.asarray(reference, np.float64)) < _EPSILON


def _check(reference: np.ndarray, estimate: np.ndarray) -> None:
    if reference.shape != estimate.shape:
        raise UserError(
            f"the reference's shape is {reference.shape} and the estimate's {estimate.shape}; "
            "a score compares [time, channel] arrays of one shape"
        )
    if reference.size == 0:
        raise UserError(f"no samples to score: the shape is {reference.shape}")
    for name, samples in (("reference", reference), ("estimate", estimate)):
        if not np.isfinite(samples).all():
            raise UserError(f"the {name} holds NaN or infinite samples; a score needs finite ones")


def _energy(samples: np.ndarray) -> float:
    return float(np.sum(np.square(samples)))


def _power(
    audio: Float[np.ndarray, "time channel"],
    window: Float64[np.ndarray, "window"],
    hop: int,
    first: int,
    end: int,
) -> Float64[np.ndarray, "frame channel bin"]:
    """Power spectra of frames `first` to `end`; frame i is centred on sample i x hop."""
    start = first * hop - len(window) // 2
    stop = start + (end - 1 - first) * hop + len(window)
    samples = np.zeros((stop - start, audio.shape[1]))
    inside = audio[max(start, 0) : stop]
    samples[max(-start, 0) :][: len(inside)] = inside
    frames = np.lib.stride_tricks.sliding_window_view(samples, len(window), axis=0)[::hop]
    return np.square(np.abs(np.fft.rfft(frames * window)))
