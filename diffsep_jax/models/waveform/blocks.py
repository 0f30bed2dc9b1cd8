"""Blocks of the waveform networks, and the checks of the fields that both networks have.

Activations are `[batch, time, channel]`. Parameters are float32; every block computes in `dtype`.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from diffsep_jax.models import fields
from diffsep_jax.models.convolution import Convolution
from diffsep_jax.models.layers import Dense, GroupNorm, conv


def check_network(network: Any, owner: str) -> None:
    """Raises UserError, naming the field, where one that both networks have is bad."""
    fields.check_positive(network, owner, "widths", "factors", "patch_size", "groups")
    fields.check_positive(network, owner, "attention_width", "attention_heads")
    fields.check_lengths(network, owner, "widths", "factors", more=1)
    levels = len(network.factors)
    for field in ("attention_levels", "injection_levels"):
        value = getattr(network, field)
        fields.require(0 <= value <= levels, f"{owner}.{field}", value, f"0 to the {levels} levels")
    fields.check_divides(
        network, owner, "attention_heads", {f"{owner}.attention_width": network.attention_width}
    )
    fields.check_groups(network, owner, network.widths[:-1])  # the bottleneck is not normalised


class PReLU(nn.Module):
    """max(x, 0) + a min(x, 0) with one learned slope a (He et al. 2015)."""

    @nn.compact
    def __call__(self, x: Float[Array, "batch time channel"]) -> Float[Array, "batch time channel"]:
        slope = self.param("slope", nn.initializers.constant(0.25), ()).astype(x.dtype)
        return jnp.where(x >= 0, x, slope * x)


class Downsample(nn.Module):
    """A convolution with kernel = stride = `factor`: frames folded into channels, then a Dense."""

    features: int
    factor: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch time channel"]) -> Float[Array, "batch frame out"]:
        return Dense(self.features, dtype=self.dtype, name="dense")(fold_time(x, self.factor))


class Upsample(nn.Module):
    """A transposed convolution with kernel = stride = `factor`: a Dense, then channels unfolded."""

    features: int
    factor: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch frame channel"]) -> Float[Array, "batch time out"]:
        x = Dense(self.features * self.factor, dtype=self.dtype, name="dense")(x)
        return unfold_time(x, self.factor)


class ResidualBlock(nn.Module):
    """The generator's block: 2 x [GroupNorm, SiLU, Conv k3] + identity."""

    groups: int
    convolution: Convolution = "auto"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch time channel"]) -> Float[Array, "batch time channel"]:
        h = x
        for i in range(2):
            h = nn.silu(GroupNorm(self.groups, self.dtype, name=f"norm_{i}")(h))
            h = conv(x.shape[-1], 3, self.convolution, self.dtype, name=f"conv_{i}")(h)
        return x + h


class BottleneckBlock(nn.Module):
    """The conditioner's block: 3 x [PReLU, GroupNorm, Conv] (3, 5, 3) of half width + identity."""

    groups: int
    convolution: Convolution = "auto"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch time channel"]) -> Float[Array, "batch time channel"]:
        channels = x.shape[-1]
        h = x
        sizes = ((channels // 2, 3), (channels // 2, 5), (channels, 3))
        for i, (features, kernel_size) in enumerate(sizes):
            h = GroupNorm(self.groups, self.dtype, name=f"norm_{i}")(PReLU(name=f"prelu_{i}")(h))
            h = conv(features, kernel_size, self.convolution, self.dtype, name=f"conv_{i}")(h)
        return x + h


def fold_time(
    x: Float[Array, "batch time channel"], factor: int
) -> Float[Array, "batch frame out"]:
    """Folds `factor` consecutive frames into the channels."""
    batch, time, channels = x.shape
    return x.reshape(batch, time // factor, factor * channels)


def unfold_time(
    x: Float[Array, "batch frame channel"], factor: int
) -> Float[Array, "batch time out"]:
    """The inverse of `fold_time`."""
    batch, frames, channels = x.shape
    return x.reshape(batch, frames * factor, channels // factor)


def average_pool(
    x: Float[Array, "batch time channel"], factor: int
) -> Float[Array, "batch frame channel"]:
    """Means of `factor` consecutive frames."""
    batch, time, channels = x.shape
    return x.reshape(batch, time // factor, factor, channels).mean(2)
