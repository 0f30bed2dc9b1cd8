"""Layers of both families of networks.

Activations are `[batch, time, channel]`. Parameters are float32; every layer computes in `dtype`.
"""

import contextlib
import functools
import statistics
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32

from diffsep_jax.models.convolution import Convolution, convolve

PRODUCT = "product"
"""Name of the outputs of matrix products and convolutions, for rematerialisation policies."""


@contextlib.contextmanager
def exact_products() -> Iterator[None]:
    """Keeps 24 bits in float32 products inside, for audio that no network processes afterwards.

    By default TPUs round the factors to 8 bits, an error of -48 dB, and GPUs to 11.
    """
    with jax.default_matmul_precision("highest"):
        yield


def named_product(x: Array) -> Array:
    """`x`, known to rematerialisation policies as `PRODUCT`."""
    return checkpoint_name(x, PRODUCT)


class KnownParams:
    """Mixin for linen modules: returns existing parameters without checking their shapes.

    To check them, Flax traces each initialiser again, a quarter of the time to trace a sampler. The
    shapes of a file's parameters are checked when it is loaded.
    """

    @nn.nowrap
    def param(self: Any, name: str, *args: Any, **kwargs: Any) -> Any:
        if self.has_variable("params", name):
            return self.get_variable("params", name)
        return super().param(name, *args, **kwargs)  # type: ignore[misc]


def _with_known_params(module: type[nn.Module]) -> Any:
    return type(module.__name__, (KnownParams, module), {"__module__": __name__})


_Conv = _with_known_params(nn.Conv)


def _named_dot_general(*args: Any, **kwargs: Any) -> Array:
    return named_product(lax.dot_general(*args, **kwargs))


Dense = functools.partial(_with_known_params(nn.Dense), dot_general=_named_dot_general)
"""`flax.linen.Dense` whose product is named."""


def conv(
    features: int,
    kernel_size: int,
    convolution: Convolution,
    dtype: DTypeLike,
    name: str,
    **options: Any,
) -> nn.Conv:
    """A 1-D convolution that keeps the number of frames."""

    def convolve_named(inputs: Array, kernel: Array, *_: Any, **__: Any) -> Array:
        """The further arguments have one value each in these networks: stride 1, `SAME`."""
        return named_product(convolve(inputs, kernel, convolution))

    return _Conv(
        features,
        (kernel_size,),
        padding="SAME",
        dtype=dtype,
        name=name,
        conv_general_dilated=convolve_named,
        **options,
    )


class GroupNorm(KnownParams, nn.Module):
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


def standard_normals(count: int) -> Float32[np.ndarray, "count"]:
    """The first numbers of one fixed sequence, regardless of JAX's version and flags.

    Up to rounding they are `jax.random.normal(jax.random.key(0), (count,))` of JAX 0.10: bits by
    Threefry-2x32 (Salmon et al. 2011) of the numbers 0, 1, ... with a key of zeros, as numbers from
    -1 to 1, through the inverse of the normal distribution.
    """
    high, low = np.zeros(count, np.uint32), np.arange(count, dtype=np.uint32)
    keys = np.array([0, 0, 0x1BD11BDA], np.uint32)
    for turn in range(5):
        for bits in ((13, 15, 26, 6), (17, 29, 16, 24))[turn % 2]:
            high = high + low
            low = high ^ (low << np.uint32(bits) | low >> np.uint32(32 - bits))
        high = high + keys[(turn + 1) % 3]
        low = low + keys[(turn + 2) % 3] + np.uint32(turn + 1)
    ones = np.uint32(0x3F800000)  # the exponent of the numbers from 1 to 2
    uniform = ((high ^ low) >> np.uint32(9) | ones).view(np.float32) - np.float32(1)
    least = np.nextafter(np.float32(-1), np.float32(0))
    uniform = np.maximum(least, uniform * (np.float32(1) - least) + least)
    normal = statistics.NormalDist()
    return np.array([normal.inv_cdf((1 + x) / 2) for x in uniform.tolist()], np.float32)


class NoiseLevelEmbedding(nn.Module):
    """Embeds sigma: random Fourier features, then a 3-layer MLP with GELU.

    `features` counts sines and cosines together. The frequencies are not trained and not stored:
    they are `scale` times the same `standard_normals` in every model (ours; the paper does not give
    their standard deviation).
    """

    features: int
    width: int
    scale: float
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, sigma: Float[Array, "batch"]) -> Float[Array, "batch width"]:
        frequencies = np.float32(self.scale) * standard_normals(self.features // 2)
        angles = 2 * jnp.pi * sigma[:, None] * frequencies[None]
        h = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)
        for i in range(3):
            h = nn.gelu(Dense(self.width, dtype=self.dtype, name=f"dense_{i}")(h))
        return h
