"""Losses of training, one value per example."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
import scipy.signal
from jax import Array
from jaxtyping import Float

from diffsep_jax.errors import UserError
from diffsep_jax.metrics import MR_STFT_CLAMP, MR_STFT_SIZES
from diffsep_jax.typing import Waveform

PerExample = Float[Array, "batch"]
Coefficients = Float[Array, "batch frame channel coefficient"]

MUSIC_RMS = 0.1
"""RMS of music at full scale 1, roughly: metrics that depend on the level are computed at it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weights of the losses; those of one network family have no effect in the other.

    Attributes:
        latent: weight of L_lat, the vocals read off the conditioner's bottleneck (waveform family).
        reconstruction: weight of L_rec, the vocals read off the conditioner's output.
        log_floor: L_rec, also that of a sample, is the logarithm of the mean square error plus this
            floor (ours: a decibel counts the same in an easy example and in a hard one). None, as
            in the paper: no logarithm.
        log_blocks: blocks of equal length, into which an example is cut for L_rec; the logarithms
            of their errors are averaged, so that a decibel counts the same in a pause and in song
            (ours). It divides the segment.
        scale: weight of L_scale, the likelihood of the direct estimate's error (spectral family).
        normalised: share of L_diff that is taken in units of the generator's output, by
            `normalised_loss`, rather than in units of the audio (spectral family).
        sample: weight of L_rec of a sample, where the generator is trained through the sampler
            (`TrainConfig.unrolled_steps`).
        spectra: weight of that sample's `log_spectral_distance`.
    """

    latent: float = 1.0
    reconstruction: float = 1.0
    log_floor: float | None = None
    log_blocks: int = 1
    scale: float = 0.1
    normalised: float = 0.5
    sample: float = 1.0
    spectra: float = 0.2

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise UserError(f"loss weight {name} is {value}; expected a finite number >= 0")
        if self.normalised > 1:
            raise UserError(f"loss weight normalised is {self.normalised}; expected at most 1")
        if self.log_blocks < 1 or (self.log_blocks > 1 and self.log_floor is None):
            expected = "at least 1" if self.log_blocks < 1 else "1, or a log_floor"
            raise UserError(f"loss weight log_blocks is {self.log_blocks}; expected {expected}")
        if self.log_floor == 0:
            raise UserError(
                "loss weight log_floor is 0; expected more, because an error can be 0, or None"
            )


def mean_square_error(estimate: Waveform, target: Waveform) -> PerExample:
    """Mean square error of each example, over time and channel.

    Of velocities it is L_diff, the square of equation (3); of vocals L_lat or L_rec.
    """
    # In float32 before the difference: bfloat16 has 8 bits, and the sum runs over 10^5 samples.
    error = estimate.astype(jnp.float32) - target.astype(jnp.float32)
    return jnp.mean(jnp.square(error), axis=(1, 2))


def reconstruction_term(estimate: Waveform, vocals: Waveform, weights: LossWeights) -> PerExample:
    """L_rec, or its logarithm with a `log_floor`; see `LossWeights`."""
    if weights.log_floor is None:
        return mean_square_error(estimate, vocals)
    num_blocks = weights.log_blocks
    blocks = [x.reshape(-1, x.shape[1] // num_blocks, x.shape[2]) for x in (estimate, vocals)]
    error = mean_square_error(*blocks)
    return jnp.log(error + weights.log_floor).reshape(-1, num_blocks).mean(1)


def scale_loss(error: Coefficients, log_scale: Coefficients) -> PerExample:
    """L_scale: the error's -log likelihood per coefficient, up to a constant.

    The distribution is Laplace's: errors have long tails, and a Gaussian's deviation would follow
    the rare large ones.
    """
    return (log_scale + math.sqrt(2) * jnp.abs(error) * jnp.exp(-log_scale)).mean((1, 2, 3))


def normalised_loss(error: Coefficients, target: Coefficients) -> PerExample:
    """Mean square error of the generator's output, where a target t weighs 1 / (1 + t^2 / 9)."""
    return (jnp.square(error) / (1 + jnp.square(target) / 9)).mean((1, 2, 3))


def log_spectral_distance(estimate: Waveform, vocals: Waveform) -> PerExample:
    """The logarithmic half of `metrics.mr_stft`, which says what that measures."""
    distances = [
        jnp.abs(_log_magnitudes(estimate, size) - _log_magnitudes(vocals, size)).mean((1, 2, 3))
        for size in MR_STFT_SIZES
    ]
    return jnp.stack(distances).mean(0)


def _log_magnitudes(audio: Waveform, size: int) -> Float[Array, "batch frame channel bin"]:
    hop = size // 4
    frames = 1 + -(-audio.shape[1] // hop)
    end = (frames - 1) * hop + size // 2 - audio.shape[1]
    hops = jnp.pad(audio, ((0, 0), (size // 2, end), (0, 0))).swapaxes(1, 2)
    hops = hops.reshape(*hops.shape[:2], -1, hop)
    framed = jnp.concatenate([hops[:, :, part : part + frames] for part in range(4)], axis=-1)
    window = scipy.signal.get_window("hann", size).astype(np.float32)
    spectrum = jnp.fft.rfft(framed * window[None, None, None])
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    return 0.5 * jnp.log(jnp.maximum(power, MR_STFT_CLAMP)).swapaxes(1, 2)
