"""Losses of training, one value per example."""

import dataclasses
import math

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from diffsep_jax.errors import UserError
from diffsep_jax.typing import Waveform

PerExample = Float[Array, "batch"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weights of the two auxiliary losses; the diffusion loss has weight 1."""

    latent: float = 1.0
    """of L_lat, the vocals read off the conditioner's bottleneck"""
    reconstruction: float = 1.0
    """of L_rec, the vocals read off the conditioner's output"""

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if not (math.isfinite(value) and value >= 0):
                raise UserError(f"loss weight {name} is {value}; it must be finite and at least 0")


def diffusion_loss(v_hat: Waveform, v: Waveform) -> PerExample:
    """L_diff, the square of equation (3) per example: mean over time and channel."""
    return _mean_square_error(v_hat, v)


def reconstruction_loss(estimate: Waveform, vocals: Waveform) -> PerExample:
    """L_lat or L_rec, by the head that `estimate` comes from: mean square over time and channel."""
    return _mean_square_error(estimate, vocals)


def total_loss(
    *,
    v_hat: Waveform,
    v: Waveform,
    latent_estimate: Waveform,
    direct_estimate: Waveform,
    vocals: Waveform,
    weights: LossWeights,
) -> tuple[PerExample, dict[str, PerExample]]:
    """L_diff + w_lat L_lat + w_rec L_rec per example, and its three terms before weighting.

    `latent_estimate` and `direct_estimate` are the outputs of the heads at the conditioner's
    bottleneck and at its output.
    """
    terms = {
        "diffusion": diffusion_loss(v_hat, v),
        "latent": reconstruction_loss(latent_estimate, vocals),
        "reconstruction": reconstruction_loss(direct_estimate, vocals),
    }
    total = (
        terms["diffusion"]
        + weights.latent * terms["latent"]
        + weights.reconstruction * terms["reconstruction"]
    )
    return total, terms


def _mean_square_error(estimate: Waveform, target: Waveform) -> PerExample:
    # In float32 before the difference: bfloat16 has 8 bits, and the sum runs over 10^5 samples.
    error = estimate.astype(jnp.float32) - target.astype(jnp.float32)
    return jnp.mean(jnp.square(error), axis=(1, 2))
