"""Metrics of one separated track against the truth.

Utterance SDR and SI-SDR; the multi-resolution STFT distance; level by band; leakage where nobody
sings; the calibration of several samples. docs/evaluation.md explains what each measures. All
that compare two signals raise UserError as `check_pair` does.
"""

import math
import sys
from collections.abc import Iterator, Sequence

import numpy as np
import scipy.fft
import scipy.signal
from jaxtyping import Float, Float64

from diffsep_jax.errors import UserError

LIMIT_DB = -20 * math.log10(sys.float_info.epsilon)
"""Ratios without a term for silence stay within 313 dB, the precision of float64."""

# The Sound Demixing Challenge adds it to both energies of the ratio.
_EPSILON = 1e-7

BANDS = {
    "0.1_1khz": (100.0, 1_000.0),
    "1_5khz": (1_000.0, 5_000.0),
    "5_10khz": (5_000.0, 10_000.0),
    "10_16khz": (10_000.0, 16_000.0),
}
"""Bands of level and calibration: lowest and highest frequency in Hz."""

MR_STFT_SIZES, MR_STFT_CLAMP = (256, 512, 1024, 2048, 4096), 1e-8
"""Windows of the multi-resolution distance in samples, and the smallest power in it."""

# Spectra: the window of bands; the number of samples in the windows that are transformed at once.
_BAND_SIZE, _HOPS_PER_WINDOW = 4096, 4
_SAMPLES_AT_ONCE = 2**16

# Leakage: samples in a block, and the level of the vocals, relative to that of the whole mixture,
# below which nobody sings in the block.
_BLOCK, _UNSUNG_DB = 2048, -60.0


def sdr(
    reference: Float[np.ndarray, "_time _channel"], estimate: Float[np.ndarray, "_time _channel"]
) -> float:
    """Utterance SDR in dB, by the Sound Demixing Challenge's formula.

    10 log10((sum s^2 + 1e-7) / (sum (s - s_hat)^2 + 1e-7)), over the whole track and all channels,
    in float64. For a silent reference (`is_silent`) it says nothing about the vocals.
    """
    check_pair(reference, estimate)
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
    passages counts as error; a wrong polarity does not, as a may be negative. Means are not
    removed. In float64, within +-`LIMIT_DB`, which stands for infinity: an estimate that contains
    nothing of the reference, such as silence, gives -`LIMIT_DB`. NaN if the reference is silent
    (`is_silent`).
    """
    check_pair(reference, estimate)
    if is_silent(reference):
        return math.nan
    exact_reference = np.asarray(reference, np.float64)
    exact_estimate = np.asarray(estimate, np.float64)
    scale = float(np.vdot(exact_reference, exact_estimate)) / _energy(exact_reference)
    target = scale * exact_reference
    if (signal := _energy(target)) == 0:
        return -LIMIT_DB
    return -_ratio_db(_energy(target - exact_estimate), signal)


def best_gain(
    vocals: Float[np.ndarray, "_time _channel"], mixture: Float[np.ndarray, "_time _channel"]
) -> float:
    """The constant c that makes c x mixture the best estimate of the vocals: <m, v> / <m, m>.

    0 for a silent mixture.
    """
    exact = np.asarray(mixture, np.float64)
    return float(np.vdot(exact, vocals)) / (_energy(exact) or 1.0)


def mr_stft(
    reference: Float[np.ndarray, "_time _channel"], estimate: Float[np.ndarray, "_time _channel"]
) -> float:
    """Multi-resolution STFT distance (Yamamoto, Song and Kim 2020); 0 is the best.

    With R and E the magnitudes sqrt(max(re^2 + im^2, 1e-8)) of one channel's short-time spectra,

        |R - E| / |R| + mean |log R - log E|

    averaged over windows of 256, 512, 1024, 2048 and 4096 samples and over channels. The norms and
    the mean are over all frames and bins. Windows are periodic Hann windows, a quarter of a window
    apart; frame i is centred on sample i x hop, and the track is padded with zeros. The clamp of
    1e-8 assumes samples at full scale 1. Spectra in the samples' type, sums in float64, in bounded
    memory.
    """
    check_pair(reference, estimate)
    num_channels = reference.shape[1]
    distances = []
    for size in MR_STFT_SIZES:
        difference, norm, logs = np.zeros((3, num_channels))
        count = 0
        for both in zip(_powers(reference, size), _powers(estimate, size), strict=True):
            ours, theirs = (np.sqrt(np.maximum(power, MR_STFT_CLAMP)) for power in both)
            difference += np.square(ours - theirs).sum(axis=(1, 2), dtype=np.float64)
            norm += np.square(ours).sum(axis=(1, 2), dtype=np.float64)
            logs += np.abs(np.log(ours / theirs)).sum(axis=(1, 2), dtype=np.float64)
            count += ours[0].size
        distances.append(np.sqrt(difference / norm) + logs / count)
    return float(np.mean(distances))


def level_error_db(
    reference: Float[np.ndarray, "_time _channel"],
    estimate: Float[np.ndarray, "_time _channel"],
    sample_rate: int,
) -> dict[str, float]:
    """Level of the estimate over the reference's in each of `BANDS`, in dB; 0 is the best.

    10 log10 of the estimate's over the reference's energy, summed over time and channels. Bands
    that do not end below half the sample rate (in Hz) are left out. Within +-`LIMIT_DB`; NaN where
    the reference has nothing in a band. Energies are those of Hann windows of 4096 samples, a
    quarter apart, so that a band's edge is 20 Hz wide.
    """
    check_pair(reference, estimate)
    ours, theirs = (_band_energies(audio, sample_rate) for audio in (reference, estimate))
    return {band: _ratio_db(theirs[band], ours[band]) for band in ours}


def leakage_db(
    vocals: Float[np.ndarray, "_time _channel"],
    mixture: Float[np.ndarray, "_time _channel"],
    estimate: Float[np.ndarray, "_time _channel"],
) -> float:
    """How much of the mixture is left where nobody sings, in dB; lower is better.

    10 log10 of the estimate's over the mixture's energy, both summed over the blocks of 2,048
    samples in which the RMS of the true vocals is more than 60 dB below that of the whole mixture;
    samples after the last whole block are left out. The mixture as the estimate gives 0 dB, silence
    -`LIMIT_DB`. NaN if there is no such block, or the mixture is silent in all of them.
    """
    check_pair(vocals, estimate)
    check_pair(vocals, mixture)
    sung, mixed, estimated = map(_block_energies, (vocals, mixture, estimate))
    threshold = 10 ** (_UNSUNG_DB / 10) * _BLOCK * np.mean(np.square(mixture, dtype=np.float64))
    unsung = sung < threshold * mixture.shape[1]
    return _ratio_db(float(estimated[unsung].sum()), float(mixed[unsung].sum()))


def calibration(
    reference: Float[np.ndarray, "_time _channel"],
    samples: Sequence[Float[np.ndarray, "_time _channel"]],
    sample_rate: int,
) -> dict[str, float]:
    """Whether samples of the vocals spread as far as they err, in each of `BANDS`; 1 is ideal.

    If the truth v and the n samples are drawn from the same posterior of variance s^2, the mean of
    the samples has a squared error of E (v - mean)^2 = s^2 (1 + 1/n), while their variance (with
    n - 1 in the denominator) is s^2 on average. The calibration is therefore

        (n + 1) / n  x  variance / (v - mean)^2

    with both energies summed over the band as in `level_error_db`. Below 1 the samples are too
    certain, above 1 they vary more than they need to. NaN where the mean has no error.

    Raises:
      UserError: there are fewer than two samples.
    """
    count = len(samples)
    if count < 2:
        raise UserError(f"the number of samples is {count}; expected at least 2")
    for sample in samples:
        check_pair(reference, sample)
    mean = sum(samples, np.zeros(reference.shape)) / count
    error = _band_energies(reference - mean, sample_rate)
    spreads = [_band_energies(sample - mean, sample_rate) for sample in samples]
    return {
        band: (count + 1) / count * sum(spread[band] for spread in spreads) / (count - 1) / energy
        if energy
        else math.nan
        for band, energy in error.items()
    }


def is_silent(reference: Float[np.ndarray, "time channel"]) -> bool:
    """Whether `reference` is too quiet to score: its energy is below the 1e-7 of the formula."""
    return _energy(np.asarray(reference, np.float64)) < _EPSILON


def check_pair(reference: np.ndarray, estimate: np.ndarray) -> None:
    """Raises UserError unless both have one shape, at least one sample, and only finite ones."""
    if reference.shape != estimate.shape:
        raise UserError(
            f"the estimate's shape is {estimate.shape}; expected {reference.shape}, the reference's"
        )
    if reference.size == 0:
        raise UserError(f"the shape is {reference.shape}; expected at least one sample")
    for name, samples in (("reference", reference), ("estimate", estimate)):
        if not np.isfinite(samples).all():
            raise UserError(f"the {name} has NaN or infinite samples; expected finite ones")


def _energy(samples: np.ndarray) -> float:
    return float(np.vdot(samples, samples))


def _ratio_db(numerator: float, denominator: float) -> float:
    """In dB within +-`LIMIT_DB`; NaN if the denominator is 0."""
    if denominator == 0:
        return math.nan
    if numerator == 0:
        return -LIMIT_DB
    return min(max(10 * math.log10(numerator / denominator), -LIMIT_DB), LIMIT_DB)


def _block_energies(audio: np.ndarray) -> Float64[np.ndarray, "block"]:
    whole = audio[: len(audio) // _BLOCK * _BLOCK]
    return np.square(whole, dtype=np.float64).reshape(-1, _BLOCK * audio.shape[1]).sum(axis=1)


def _band_energies(audio: np.ndarray, sample_rate: int) -> dict[str, float]:
    frequencies = np.arange(_BAND_SIZE // 2 + 1) * sample_rate / _BAND_SIZE
    bins = np.zeros_like(frequencies)
    for power in _powers(audio, _BAND_SIZE):
        bins += power.sum(axis=(0, 1), dtype=np.float64)
    return {
        name: float(np.sum(bins[(low <= frequencies) & (frequencies < high)]))
        for name, (low, high) in BANDS.items()
        if high <= sample_rate / 2
    }


def _powers(
    audio: Float[np.ndarray, "time channel"], size: int
) -> Iterator[Float[np.ndarray, "channel frame bin"]]:
    """Power spectra with Hann windows of `size` samples, some frames at a time, in audio's type.

    Frame i is centred on sample i x size / 4; the track is padded with zeros.
    """
    hop = size // _HOPS_PER_WINDOW
    window = scipy.signal.get_window("hann", size).astype(audio.dtype)
    num_frames = 1 + -(-len(audio) // hop)
    for first in range(0, num_frames, frames := max(1, _SAMPLES_AT_ONCE // size)):
        count = min(frames, num_frames - first)
        start = first * hop - size // 2
        samples = np.zeros((audio.shape[1], (count - 1) * hop + size), audio.dtype)
        inside = audio[max(start, 0) : start + samples.shape[1]]
        samples[:, max(-start, 0) :][:, : len(inside)] = inside.T
        framed = np.lib.stride_tricks.sliding_window_view(samples, size, axis=1)[:, ::hop]
        spectrum = scipy.fft.rfft(framed * window)
        yield np.square(spectrum.real) + np.square(spectrum.imag)
