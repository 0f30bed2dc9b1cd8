"""The ideal ratio mask: the best that masking can reach, as it is given the true stems."""

import numpy as np
import scipy.signal
from jaxtyping import Float

WINDOW, HOP = 4096, 1024

# Samples that are masked at once, and the overlap that the frames at their ends need.
_CHUNK, _CONTEXT = 512 * HOP, WINDOW


def ideal_ratio_mask(
    vocals: Float[np.ndarray, "_time _channel"],
    accompaniment: Float[np.ndarray, "_time _channel"],
) -> tuple[Float[np.ndarray, "_time _channel"], Float[np.ndarray, "_time _channel"]]:
    """Estimates of vocals and accompaniment: the mixture, masked by the stems' true spectrograms.

    The masks are |V| / (|V| + |A| + eps) and |A| / (|V| + |A| + eps), with eps = 2.2e-16, for each
    channel separately, on the spectrogram of vocals + accompaniment: `scipy.signal.stft` with Hann
    windows of 4096 samples, 1024 apart, at any sample rate, in float64. docs/evaluation.md
    says how this differs from the oracle of sigsep (sigsep-mus-oracle, IRM.py).

    Long tracks are masked in pieces that overlap, with the same result in bounded memory. The
    estimates have the dtype of the stems, which must have the same shape.
    """
    estimates = np.empty_like(vocals), np.empty_like(accompaniment)
    for start in range(0, len(vocals), _CHUNK):
        first = max(0, start - _CONTEXT)
        piece = slice(first, start + _CHUNK + _CONTEXT)
        masked = _mask(vocals[piece], accompaniment[piece])
        for whole, part in zip(estimates, masked, strict=True):
            target = whole[start : start + _CHUNK]
            target[:] = part[start - first :][: len(target)]
    return estimates


def _mask(vocals: np.ndarray, accompaniment: np.ndarray) -> list[np.ndarray]:
    num_samples = len(vocals)
    # scipy refuses less than a window.
    padding = ((0, max(0, WINDOW - num_samples)), (0, 0))
    stems = [np.pad(stem.astype(np.float64), padding) for stem in (vocals, accompaniment)]
    mixture = _spectrum(stems[0] + stems[1])
    weights = [np.abs(_spectrum(stem)) for stem in stems]
    total = weights[0] + weights[1] + np.finfo(np.float64).eps
    return [_waveform(weight / total * mixture)[:num_samples] for weight in weights]


def _spectrum(audio: np.ndarray) -> np.ndarray:
    """[channel, frequency, frame]"""
    return scipy.signal.stft(audio.T, nperseg=WINDOW, noverlap=WINDOW - HOP)[2]


def _waveform(spectrum: np.ndarray) -> np.ndarray:
    return scipy.signal.istft(spectrum, nperseg=WINDOW, noverlap=WINDOW - HOP)[1].T
