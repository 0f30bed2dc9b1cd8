"""Bands of coefficients as tokens, and the U-Net over frames and bands that both networks are.

A spectrum is cut into bands of a few widths, narrow where voices lie. Each band of each frame is a
token; what reads coefficients into tokens and tokens into coefficients has weights of its own for
each band. Activations are `[batch, frame, band, channel]`.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from diffsep_jax.errors import UserError
from diffsep_jax.models import fields
from diffsep_jax.models.compute import Compute
from diffsep_jax.models.layers import FiLM, GroupNorm, conv
from diffsep_jax.models.product import Dense, named_product
from diffsep_jax.models.spectral.transform import FRAME, Coefficients

BandGroups = tuple[tuple[int, int], ...]
"""(bands, coefficients in each) from low to high frequencies."""

Tokens = Float[Array, "batch frame band width"]
BandCoefficients = Float[Array, "batch frame _ _"]


def num_bands(groups: BandGroups) -> int:
    """How many tokens a frame has."""
    return sum(count for count, _ in groups)


def check_network(network: Any, owner: str) -> None:
    """Raises UserError, naming the field, where one that both networks have is bad."""
    fields.check_wholes(network, owner, "widths", "blocks")
    fields.check_whole(network, owner, "groups")
    if len(network.widths) != len(network.blocks):
        raise UserError(
            f"{owner}.widths has {len(network.widths)} values, {owner}.blocks"
            f" {len(network.blocks)}; as many are expected"
        )
    widths = {f"{owner}.widths[{i}]": width for i, width in enumerate(network.widths)}
    fields.check_divides(network, owner, "groups", widths)
    pairs = network.bands
    good = isinstance(pairs, tuple) and all(
        isinstance(pair, tuple) and len(pair) == 2 and all(map(fields.is_whole, pair))
        for pair in pairs
    )
    good = good and sum(count * width for count, width in pairs) == FRAME
    expected = f"pairs (bands, coefficients in each) with {FRAME} coefficients in all"
    fields.require(good, f"{owner}.bands", pairs, expected)


def split_bands(x: Coefficients, groups: BandGroups) -> list[BandCoefficients]:
    """Each group's coefficients of all channels, by band."""
    parts, start = [], 0
    for count, width in groups:
        part = x[..., start : start + count * width]
        part = part.reshape(*x.shape[:-1], count, width)
        parts.append(jnp.moveaxis(part, 2, 3).reshape(*x.shape[:2], count, -1))
        start += count * width
    return parts


def join_bands(
    parts: Sequence[BandCoefficients], groups: BandGroups, channels: int
) -> Coefficients:
    """The inverse of `split_bands`."""
    joined = []
    for part, (count, width) in zip(parts, groups, strict=True):
        by_channel = part.reshape(*part.shape[:2], count, channels, width)
        joined.append(jnp.moveaxis(by_channel, 3, 2).reshape(*part.shape[:2], channels, -1))
    return jnp.concatenate(joined, axis=-1)


def band_power(x: Coefficients, groups: BandGroups) -> Float[Array, "batch frame band"]:
    """Mean square over the coefficients and channels of each band."""
    return jnp.concatenate([jnp.square(part).mean(-1) for part in split_bands(x, groups)], axis=-1)


def spread(x: Float[Array, "batch frame band"], groups: BandGroups) -> Coefficients:
    """A value of each band at each of its coefficients; one channel."""
    widths = np.repeat([width for _, width in groups], [count for count, _ in groups])
    return jnp.repeat(x, widths, axis=-1, total_repeat_length=int(widths.sum()))[:, :, None]


class BandDense(nn.Module):
    """A dense layer with weights of its own for each band."""

    features: int
    dtype: DTypeLike = jnp.float32
    zero: bool = False
    """Whether the kernel starts at zero."""

    @nn.compact
    def __call__(self, x: Tokens) -> Float[Array, "batch frame band out"]:
        random = nn.initializers.variance_scaling(
            1.0, "fan_in", "normal", in_axis=1, out_axis=2, batch_axis=(0,)
        )
        init = nn.initializers.zeros if self.zero else random
        kernel = self.param("kernel", init, (*x.shape[2:], self.features)).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (x.shape[2], self.features))
        product = named_product(jnp.einsum("btki,kio->btko", x.astype(self.dtype), kernel))
        return product + bias.astype(self.dtype)[None, None]


class BandBlock(nn.Module):
    """Residual: a convolution over frames, one over bands, then a mix of all bands."""

    groups: int
    compute: Compute

    @nn.compact
    def __call__(self, h: Tokens) -> Tokens:
        batch, frames, bands, width = h.shape
        dtype = self.compute.dtype

        def activated(h: Tokens, name: str) -> Tokens:
            norm = GroupNorm(self.groups, dtype, name=name)
            return nn.silu(norm(h.reshape(batch, -1, width))).reshape(h.shape)

        def convolve(x: Array, name: str) -> Array:
            return conv(width, 3, self.compute.convolution, dtype, name)(x)

        x = jnp.swapaxes(activated(h, "norm_frames"), 1, 2).reshape(batch * bands, frames, width)
        x = convolve(x, "over_frames").reshape(batch, bands, frames, width)
        h = h + jnp.swapaxes(x, 1, 2)
        x = activated(h, "norm_bands").reshape(batch * frames, bands, width)
        h = h + convolve(x, "over_bands").reshape(h.shape)
        start = nn.initializers.normal(0.5 / float(np.sqrt(bands)))
        mix = self.param("mix", start, (bands, bands)).astype(dtype)
        x = named_product(jnp.einsum("btkc,kl->btlc", activated(h, "norm_mix"), mix))
        return h + Dense(
            width, dtype=dtype, kernel_init=nn.initializers.normal(0.02), name="mixed"
        )(x)


class BandUNet(nn.Module):
    """A U-Net over tokens whose levels halve the frames; any number of frames goes in and out."""

    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    """Blocks of each level; the last level is the bottleneck."""
    groups: int
    compute: Compute

    @nn.compact
    def __call__(
        self, h: Tokens, embedding: Float[Array, "batch embedding"] | None = None
    ) -> Tokens:
        """`embedding` of the noise level scales and shifts each level's input (FiLM)."""
        frames, deepest = h.shape[1], len(self.widths) - 1
        h = jnp.pad(h, ((0, 0), (0, -frames % 2**deepest), (0, 0), (0, 0)))

        def run_level(h: Array, level: int, side: str) -> Array:
            if embedding is not None:
                film = FiLM(self.compute.dtype, name=f"{side}_film_{level}")
                h = film(h.reshape(h.shape[0], -1, h.shape[-1]), embedding).reshape(h.shape)
            for block in range(self.blocks[level]):
                module = self.compute.block(BandBlock)
                h = module(self.groups, self.compute, name=f"{side}_block_{level}_{block}")(h)
            return h

        skips = []
        for level in range(deepest):
            h = run_level(h, level, "encoder")
            skips.append(h)
            h = self._halve(h, level)
        h = run_level(h, deepest, "encoder")
        for level in reversed(range(deepest)):
            h = run_level(self._double(h, level) + skips[level], level, "decoder")
        h = h[:, :frames]
        norm = GroupNorm(self.groups, self.compute.dtype, name="norm_out")
        return nn.silu(norm(h.reshape(h.shape[0], -1, h.shape[-1]))).reshape(h.shape)

    def _halve(self, h: Tokens, level: int) -> Array:
        """Each two frames side by side, then a dense layer."""
        batch, frames, bands, width = h.shape
        pairs = jnp.swapaxes(h.reshape(batch, frames // 2, 2, bands, width), 2, 3)
        dense = Dense(self.widths[level + 1], dtype=self.compute.dtype, name=f"halve_{level}")
        return dense(pairs.reshape(batch, frames // 2, bands, 2 * width))

    def _double(self, h: Tokens, level: int) -> Array:
        """The inverse: a dense layer to two frames side by side."""
        batch, frames, bands, _ = h.shape
        width = self.widths[level]
        dense = Dense(2 * width, dtype=self.compute.dtype, name=f"double_{level}")
        pairs = jnp.swapaxes(dense(h).reshape(batch, frames, bands, 2, width), 2, 3)
        return pairs.reshape(batch, 2 * frames, bands, width)
