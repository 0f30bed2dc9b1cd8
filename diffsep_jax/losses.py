"""Losses of training, one value per example."""

import dataclasses
import math

import jax
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
    level_floor: float | None = None
    """L_rec of an example is divided by the root of its vocals' mean square plus this (ours: quiet
    vocals count too); None, as in the paper, divides by nothing"""
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
        if self.level_floor == 0:
            raise UserError(
                "loss weight level_floor is 0; more, or None, is expected: vocals can be silent"
            )


def diffusion_loss(v_hat: Waveform, v: Waveform) -> PerExample:
    """L_diff, the square of equation (3) per example: mean over time and channel."""
    return _mean_square_error(v_hat, v)


def reconstruction_loss(estimate: Waveform, vocals: Waveform) -> PerExample:
    """L_lat or L_rec, by the head that `estimate` comes from: mean square over time and channel."""
    return _mean_square_error(estimate, vocals)


def level_weight(vocals: Waveform, floor: float | None) -> PerExample:
    """What L_rec of each example is multiplied by; `floor` as in `LossWeights.level_floor`."""
    power = jnp.square(vocals).mean((1, 2))
    return jnp.ones_like(power) if floor is None else jax.lax.rsqrt(power + floor)


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
