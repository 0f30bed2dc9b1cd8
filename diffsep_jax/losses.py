"""Losses of training, one value per example."""

import dataclasses
import math

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from diffsep_jax.errors import UserError
from diffsep_jax.typing import Waveform

PerExample = Float[Array, "batch"]
Coefficients = Float[Array, "batch frame channel coefficient"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weights of the auxiliary losses; the diffusion loss has weight 1.

    `latent` is of the waveform family alone, `scale` and `normalised` are of the spectral one.
    """

    latent: float = 1.0
    """of L_lat, the vocals read off the conditioner's bottleneck"""
    reconstruction: float = 1.0
    """of L_rec, the vocals read off the conditioner's output"""
    log_floor: float | None = None
    """L_rec of an example is the logarithm of its mean square error plus this (ours: a decibel
    counts the same in an easy example and in a hard one); None, as in the paper: no logarithm"""
    scale: float = 0.1
    """of L_scale, the likelihood of the direct estimate's error"""
    normalised: float = 0.5
    """share of L_diff that is in units of the generator's output, see `normalised_loss`"""

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise UserError(f"loss weight {name} is {value}; it must be finite and at least 0")
        if self.normalised > 1:
            raise UserError(
                f"loss weight normalised is {self.normalised}; a share up to 1 is expected"
            )
        if self.log_floor == 0:
            raise UserError(
                "loss weight log_floor is 0; more, or None, is expected: an error can be 0"
            )


def diffusion_loss(v_hat: Waveform, v: Waveform) -> PerExample:
    """L_diff, the square of equation (3) per example: mean over time and channel."""
    return _mean_square_error(v_hat, v)


def reconstruction_loss(estimate: Waveform, vocals: Waveform) -> PerExample:
    """L_lat or L_rec, by the head that `estimate` comes from: mean square over time and channel."""
    return _mean_square_error(estimate, vocals)


def logarithmic(error: PerExample, floor: float | None) -> PerExample:
    """log(error + floor), or the error itself without a `floor`; see `LossWeights.log_floor`."""
    return error if floor is None else jnp.log(error + floor)


def scale_loss(
    error: Coefficients, log_scale: Float[Array, "batch frame 1 coefficient"]
) -> PerExample:
    """L_scale: -log of a Gaussian's likelihood of the error, but for a constant, by coefficient."""
    return (log_scale + 0.5 * jnp.square(error * jnp.exp(-log_scale))).mean((1, 2, 3))


def normalised_loss(error: Coefficients, target: Coefficients) -> PerExample:
    """The error of the generator's output, of which large targets count less: by 1 + t^2 / 9."""
    return (jnp.square(error) / (1 + jnp.square(target) / 9)).mean((1, 2, 3))


def _mean_square_error(estimate: Waveform, target: Waveform) -> PerExample:
    # In float32 before the difference: bfloat16 has 8 bits, and the sum runs over 10^5 samples.
    error = estimate.astype(jnp.float32) - target.astype(jnp.float32)
    return jnp.mean(jnp.square(error), axis=(1, 2))
