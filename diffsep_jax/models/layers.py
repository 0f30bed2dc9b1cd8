"""Building blocks that the generator and the conditioner share.

Activations are `[batch, time, channel]`. Parameters are float32; every block computes in `dtype`.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from diffsep_jax.models.convolution import Convolution, convolution_fn
from diffsep_jax.models.product import Dense, product, with_known_params

_Conv = with_known_params(nn.Conv)


def conv(
    features: int,
    kernel_size: int,
    convolution: Convolution,
    dtype: DTypeLike,
    name: str,
    **options: Any,
) -> nn.Conv:
    """A 1-D convolution that keeps the number of frames."""
    return _Conv(
        features,
        (kernel_size,),
        padding="SAME",
        dtype=dtype,
        name=name,
        conv_general_dilated=convolution_fn(convolution),
        **options,
    )


class GroupNorm(nn.Module):
    """Group normalisation (Wu and He 2018) over time and the channels of a group.

    The statistics are float32 sums over time first, then over a group's channels: one pass over the
    activations, which then take one multiply and one add.
    """

    groups: int
    dtype: DTypeLike = jnp.float32
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Float[Array, "batch time channel"]) -> Float[Array, "batch time channel"]:
        batch, time, channels = x.shape
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))

        def group_mean(per_channel: Array) -> Array:
            grouped = per_channel.reshape(batch, self.groups, channels // self.groups)
            mean = grouped.mean(-1, keepdims=True) / time
            return jnp.broadcast_to(mean, grouped.shape).reshape(batch, channels)

        x32 = x.astype(jnp.float32)
        mean = group_mean(x32.sum(1))
        variance = jnp.maximum(group_mean(jnp.square(x32).sum(1)) - jnp.square(mean), 0.0)
        gain = jax.lax.rsqrt(variance + self.epsilon) * scale[None]
        offset = bias[None] - mean * gain
        return (x32 * gain[:, None] + offset[:, None]).astype(self.dtype)


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


class Join(nn.Module):
    """A Dense of h and what it is told, side by side.

    On the CPU as two products and no concatenation: where only h changes from call to call, as in
    a sampler's loop, the compiler takes the other out of the loop.
    """

    features: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, h: Float[Array, "batch time channel"], told: Float[Array, "batch time width"]
    ) -> Float[Array, "batch time out"]:
        channels = h.shape[-1]
        inputs = channels + told.shape[-1]
        kernel = self.param("kernel", nn.linear.default_kernel_init, (inputs, self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        kernel, bias = kernel.astype(self.dtype), bias.astype(self.dtype)[None, None]
        if jax.default_backend() == "cpu":
            return product(h, kernel[:channels]) + (product(told, kernel[channels:]) + bias)
        return product(jnp.concatenate([h, told], -1), kernel) + bias


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


class FiLM(nn.Module):
    """Feature-wise scale and shift by an embedding (Perez et al. 2018); starts as the identity."""

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch time channel"], embedding: Float[Array, "batch width"]
    ) -> Float[Array, "batch time channel"]:
        init = nn.initializers.zeros
        film = Dense(2 * x.shape[-1], dtype=self.dtype, kernel_init=init, name="dense")(embedding)
        scale, shift = jnp.split(film[:, None], 2, axis=-1)
        return x * (1 + scale) + shift


class NoiseLevelEmbedding(nn.Module):
    """Embeds sigma: random Fourier features, then a 3-layer MLP with GELU.

    `features` counts sines and cosines together. The frequencies are fixed: they are computed from
    a constant key, not trained and not stored. `scale` is their standard deviation (ours; the paper
    does not give it).
    """

    features: int
    width: int
    scale: float
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, sigma: Float[Array, "batch"]) -> Float[Array, "batch width"]:
        frequencies = self.scale * jax.random.normal(
            jax.random.key(0, impl="threefry2x32"), (self.features // 2,)
        )
        angles = 2 * jnp.pi * sigma[:, None] * frequencies[None]
        h = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)
        for i in range(3):
            h = nn.gelu(Dense(self.width, dtype=self.dtype, name=f"dense_{i}")(h))
        return h


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
