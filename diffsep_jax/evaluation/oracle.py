"""The ideal ratio mask: what a mask on the mixture's spectrogram reaches, given the true stems."""

import numpy as np
import scipy.signal
from jaxtyping import Float

from diffsep_jax.errors import UserError

WINDOW, HOP = 2048, 1024

# Samples that are masked at once, and what the frames at their ends see of their neighbours.
_CHUNK, _CONTEXT = 512 * HOP, WINDOW


def ideal_ratio_mask(
    vocals: Float[np.ndarray, "_time _channel"],
    accompaniment: Float[np.ndarray, "_time _channel"],
    *,
    alpha: float | int,
) -> tuple[Float[np.ndarray, "_time _channel"], Float[np.ndarray, "_time _channel"]]:
    """Estimates of vocals and accompaniment: the mixture, masked by the stems' true spectrograms.

    The masks are |V|^alpha / (|V|^alpha + |A|^alpha + eps) and the same with |A|^alpha above, with
    eps = 2.2e-16, in every channel by itself, on the spectrogram of vocals + accompaniment. alpha 1
    is a ratio of magnitudes, 2 of powers. So it is in the sigsep oracle (sigsep-mus-oracle,
    IRM.py): `scipy.signal.stft` with Hann windows of 2048 samples, 1024 apart, at any sample rate,
    in float64. The accompaniment is masked too, as there; the mixture minus the vocals differs from
    it by rounding. There the denominator is the sum over MUSDB18's four stems, and the
    accompaniment the sum of three estimates; here two stems are known.

    Long tracks are masked in pieces that overlap, with the same result in bounded memory. The
    estimates have the type of the stems.

    Raises:
      UserError: the shapes differ, or alpha is not positive.
    """
    if vocals.shape != accompaniment.shape:
        raise UserError(
            f"the vocals' shape is {vocals.shape} and the accompaniment's {accompaniment.shape}; "
            "the mask needs two [time, channel] arrays of one shape"
        )
    if not alpha > 0:
        raise UserError(f"alpha={alpha}: expected a positive exponent, 1 or 2 as a rule")
    estimates = np.empty_like(vocals), np.empty_like(accompaniment)
    for start in range(0, len(vocals), _CHUNK):
        first = max(0, start - _CONTEXT)
        piece = slice(first, start + _CHUNK + _CONTEXT)
        masked = _mask(vocals[piece], accompaniment[piece], alpha)
        for whole, part in zip(estimates, masked, strict=True):
            target = whole[start : start + _CHUNK]
            target[:] = part[start - first :][: len(target)]
    return estimates


def _mask(vocals: np.ndarray, accompaniment: np.ndarray, alpha: float | int) -> list[np.ndarray]:
    num_samples = len(vocals)
    # scipy refuses less than a window.
    padding = ((0, max(0, WINDOW - num_samples)), (0, 0))
    stems = [np.pad(stem.astype(np.float64), padding) for stem in (vocals, accompaniment)]
    mixture = _spectrum(stems[0] + stems[1])
    weights = [np.abs(_spectrum(stem)) ** alpha for stem in stems]
    total = weights[0] + weights[1] + np.finfo(np.float64).eps
    return [_waveform(weight / total * mixture)[:num_samples] for weight in weights]


def _spectrum(audio: np.ndarray) -> np.ndarray:
    """[channel, frequency, frame]"""
    return scipy.signal.stft(audio.T, nperseg=WINDOW, noverlap=WINDOW - HOP)[2]


def _waveform(spectrum: np.ndarray) -> np.ndarray:
    return scipy.signal.istft(spectrum, nperseg=WINDOW, noverlap=WINDOW - HOP)[1].T
