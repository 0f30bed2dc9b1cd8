"""Utterance SDR, the score of a separated track."""

import math

import numpy as np
from jaxtyping import Float

from diffsep_jax.errors import UserError

# Added to both energies of the ratio by the Sound Demixing Challenge.
_EPSILON = 1e-7


def sdr(
    reference: Float[np.ndarray, "_time _channel"], estimate: Float[np.ndarray, "_time _channel"]
) -> float:
    """Utterance SDR in dB, by the Sound Demixing Challenge's formula.

    10 log10((sum s^2 + 1e-7) / (sum (s - s_hat)^2 + 1e-7)), over the whole track and all channels,
    in float64. Of a silent reference (`is_silent`) it says nothing about the vocals.

    Raises:
      UserError: the shapes differ, there are no samples, or a sample is NaN or infinite.
    """
    if reference.shape != estimate.shape:
        raise UserError(
            f"the reference's shape is {reference.shape} and the estimate's {estimate.shape}; "
            "SDR compares [time, channel] arrays of one shape"
        )
    if reference.size == 0:
        raise UserError(f"no samples to score: the shape is {reference.shape}")
    for name, samples in (("reference", reference), ("estimate", estimate)):
        if not np.isfinite(samples).all():
            raise UserError(f"the {name} holds NaN or infinite samples; SDR needs finite ones")
    exact_reference = np.asarray(reference, np.float64)
    error = exact_reference - np.asarray(estimate, np.float64)
    ratio = (_energy(exact_reference) + _EPSILON) / (_energy(error) + _EPSILON)
    return 10 * math.log10(ratio)


def is_silent(reference: Float[np.ndarray, "time channel"]) -> bool:
    """Whether `reference` is too quiet to score: its energy is below the 1e-7 of the formula."""
    return _energy(np.asarray(reference, np.float64)) < _EPSILON


def _energy(samples: np.ndarray) -> float:
    return float(np.sum(np.square(samples)))
