"""Bands of coefficients as tokens, and the U-Net over frames and bands that both networks use.

A spectrum is cut into bands of a few widths, narrow where voices lie. Each band of each frame is a
token; the layers from coefficients to tokens and back have separate weights for each band.
Activations are `[batch, frame, band, channel]`.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from diffsep_jax.models import fields
from diffsep_jax.models.compute import Compute
from diffsep_jax.models.layers import (
    Dense,
    FiLM,
    GroupNorm,
    KnownParams,
    conv,
    exact_products,
    named_product,
)
from diffsep_jax.models.spectral.transform import FRAME, Coefficients

BandGroups = tuple[tuple[int, int], ...]
"""(bands, coefficients in each) from low to high frequencies."""

Tokens = Float[Array, "batch frame band width"]
BandCoefficients = Float[Array, "batch frame _ _"]


def check_network(network: Any, owner: str) -> None:
    """Raises UserError, naming the field, where one that both networks have is bad."""
    fields.check_positive(network, owner, "widths", "blocks", "groups")
    fields.check_lengths(network, owner, "blocks", "widths")
    fields.check_groups(network, owner, network.widths)
    total = sum(count * width for count, width in network.bands)
    expected = f"pairs (bands, coefficients in each) with {FRAME} coefficients in all"
    good = total == FRAME and all(min(pair) > 0 for pair in network.bands)
    fields.require(good, f"{owner}.bands", network.bands, expected)


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


def repeat_over_bands(x: Float[Array, "batch frame band"], groups: BandGroups) -> Coefficients:
    """Repeats a band's value at each of its coefficients; one channel."""
    widths = np.repeat([width for _, width in groups], [count for count, _ in groups])
    return jnp.repeat(x, widths, axis=-1, total_repeat_length=int(widths.sum()))[:, :, None]


class BandDense(KnownParams, nn.Module):
    """A dense layer with separate weights for each band.

    Attributes:
        features: output channels.
        dtype: to compute in.
        zero: whether the kernel starts at zero.
    """

    features: int
    dtype: DTypeLike = jnp.float32
    zero: bool = False

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


def embed_bands(features: Sequence[BandCoefficients], width: int, dtype: DTypeLike) -> Tokens:
    """Tokens from each group's features; layers `embed_GROUP` of the calling module."""
    embedded = [
        BandDense(width, dtype, name=f"embed_{group}")(each) for group, each in enumerate(features)
    ]
    return jnp.concatenate(embedded, axis=2)


def read_bands(
    h: Tokens, groups: BandGroups, dtype: DTypeLike, hidden: str, out: str
) -> list[BandCoefficients]:
    """Two float32 values per token and coefficient of each group, zero at the start.

    The layers are `{hidden}_GROUP` and `{out}_GROUP` of the calling module.
    """
    outputs, start = [], 0
    for group, (count, width) in enumerate(groups):
        tokens = h[:, :, start : start + count]
        start += count
        inner = BandDense(2 * h.shape[-1], dtype, name=f"{hidden}_{group}")(tokens)
        head = BandDense(2 * width, jnp.float32, zero=True, name=f"{out}_{group}")
        with exact_products():
            outputs.append(head(nn.silu(inner)))
    return outputs


class BandBlock(KnownParams, nn.Module):
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
    """A U-Net over tokens whose levels halve the frames; takes any number of frames.

    Attributes:
        widths: channels of each level.
        blocks: blocks of each level; the last level is the bottleneck.
        groups: groups of every GroupNorm.
        compute: precision and rematerialisation.
    """

    widths: tuple[int, ...]
    blocks: tuple[int, ...]
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
        """Concatenates pairs of frames, then a dense layer."""
        batch, frames, bands, width = h.shape
        pairs = jnp.swapaxes(h.reshape(batch, frames // 2, 2, bands, width), 2, 3)
        dense = Dense(self.widths[level + 1], dtype=self.compute.dtype, name=f"halve_{level}")
        return dense(pairs.reshape(batch, frames // 2, bands, 2 * width))

    def _double(self, h: Tokens, level: int) -> Array:
        """The reverse: a dense layer to two frames each."""
        batch, frames, bands, _ = h.shape
        width = self.widths[level]
        dense = Dense(2 * width, dtype=self.compute.dtype, name=f"double_{level}")
        pairs = jnp.swapaxes(dense(h).reshape(batch, frames, bands, 2, width), 2, 3)
        return pairs.reshape(batch, 2 * frames, bands, width)
