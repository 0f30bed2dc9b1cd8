"""The conditioner: from the mixture to the generator's embeddings and a direct estimate.

A 1-D autoencoder over the mixture. It never sees the noisy vocals, so it runs once per chunk, not
once per sampling step.
"""

import math
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffsep_jax.models import fields
from diffsep_jax.models.compute import DEFAULT, Compute
from diffsep_jax.models.conditioning import Conditioning
from diffsep_jax.models.layers import Dense, GroupNorm, conv, exact_products
from diffsep_jax.models.waveform.blocks import (
    BottleneckBlock,
    Downsample,
    Upsample,
    average_pool,
    check_network,
    fold_time,
    unfold_time,
)
from diffsep_jax.models.waveform.transformer import SelfAttention, TransformerLayer

Skips = Literal["none", "add", "gate"]


class Conditioner(nn.Module):
    """The conditioner network; the defaults are the paper's, fitted to its parameter count.

    Attributes:
        widths: channels of each level and of the bottleneck (one more than `factors`).
        factors: resampling factor after each level.
        patch_size: samples folded into channels before the first level (1 in the paper).
        groups: groups of every GroupNorm.
        attention_levels: how many of the deepest levels have self-attention (0 = none).
        attention_width: inner width of the self-attention.
        attention_heads: heads it is split into, at no change of parameters.
        injection_levels: how many of the deepest levels' decoder outputs go to the generator.
        transformer_layers: layers of the bottleneck transformer (0 = none).
        transformer_width: width of the transformer.
        transformer_heads: attention heads of the transformer.
        skips: how each level's encoder output joins its decoder input (ours): `none`, as in the
            paper; `add`, as in a U-Net; `gate`, added times a mask in (0, 1) from the decoder.
    """

    widths: tuple[int, ...] = (128, 128, 256, 512, 512, 1024, 1024, 2048)
    factors: tuple[int, ...] = (1, 2, 4, 1, 4, 1, 4)
    patch_size: int = 1
    groups: int = 8
    attention_levels: int = 4
    attention_width: int = 256
    attention_heads: int = 2
    injection_levels: int = 4
    transformer_layers: int = 6
    transformer_width: int = 512
    transformer_heads: int = 8
    skips: Skips = "none"

    @property
    def stride(self) -> int:
        """Samples in a frame of the bottleneck; a segment is a multiple of it."""
        return self.patch_size * math.prod(self.factors)

    @nn.nowrap
    def check(self) -> None:
        """Raises UserError, naming the field, where a field is bad or does not fit another."""
        owner = "conditioner"
        check_network(self, owner)
        halves = {f"half of {owner}.widths[{i}]": w // 2 for i, w in enumerate(self.widths[:-1])}
        fields.check_divides(self, owner, "groups", halves)
        fields.check_positive(self, owner, "transformer_width", "transformer_heads")
        layers = self.transformer_layers
        fields.require(layers >= 0, f"{owner}.transformer_layers", layers, "0 or more")
        # Rotary positions turn pairs of a head's channels.
        fields.require(
            self.transformer_width % (2 * self.transformer_heads) == 0,
            f"{owner}.transformer_heads",
            self.transformer_heads,
            f"a number that cuts {owner}.transformer_width, {self.transformer_width}, into heads"
            " of even width",
        )

    @nn.compact
    def __call__(
        self,
        mixture: Float[Array, "batch time 2"],
        *,
        with_latent: bool = False,
        compute: Compute = DEFAULT,
    ) -> Conditioning:
        levels = range(len(self.factors))
        h = fold_time(mixture.astype(compute.dtype), self.patch_size)
        h = conv(self.widths[0], 3, compute.convolution, compute.dtype, name="conv_in")(h)

        encoded = []
        summary = jnp.zeros((), compute.dtype)
        for level in levels:
            h = self._level(h, level, compute, "encoder")
            encoded.append(h)
            to_bottleneck = math.prod(self.factors[level:])
            pooled = nn.relu(GroupNorm(self.groups, compute.dtype, name=f"pool_norm_{level}")(h))
            pooled = average_pool(pooled, to_bottleneck)
            pooled = Dense(self.widths[-1], dtype=compute.dtype, name=f"pool_dense_{level}")(pooled)
            summary = pooled if level == 0 else summary + pooled
            h = Downsample(
                self.widths[level + 1], self.factors[level], compute.dtype, name=f"down_{level}"
            )(h)

        h = h + summary
        if self.transformer_layers:
            h = h + self._transformer(h, compute)
        latent_estimate = self._head(h, self.stride, "latent_head") if with_latent else None

        embeddings = []
        for level in reversed(levels):
            h = Upsample(
                self.widths[level], self.factors[level], compute.dtype, name=f"up_{level}"
            )(h)
            if self.skips == "add":
                h = h + encoded[level]
            elif self.skips == "gate":
                gate = Dense(h.shape[-1], dtype=compute.dtype, name=f"gate_{level}")(h)
                h = h + nn.sigmoid(gate) * encoded[level]
            h = self._level(h, level, compute, "decoder")
            if level >= len(levels) - self.injection_levels:
                embeddings.append(h)
        estimate = self._head(h, self.patch_size, "estimate_head")  # the direct estimate
        return Conditioning(tuple(reversed(embeddings)), estimate, latent_estimate)

    def _level(self, h: Array, level: int, compute: Compute, side: str) -> Array:
        block = compute.block(BottleneckBlock)
        h = block(self.groups, compute.convolution, compute.dtype, name=f"{side}_block_{level}")(h)
        if level < len(self.factors) - self.attention_levels:
            return h
        return compute.block(SelfAttention)(
            self.attention_width,
            self.attention_heads,
            compute.attention,
            compute.dtype,
            name=f"{side}_attention_{level}",
        )(h)

    def _transformer(self, h: Array, compute: Compute) -> Array:
        width = h.shape[-1]
        h = Dense(self.transformer_width, dtype=compute.dtype, name="transformer_in")(h)
        for i in range(self.transformer_layers):
            layer = compute.block(TransformerLayer)
            h = layer(
                self.transformer_heads, compute.attention, compute.dtype, name=f"transformer_{i}"
            )(h)
        return Dense(width, dtype=compute.dtype, name="transformer_out")(h)

    @exact_products()
    def _head(self, h: Array, samples_per_frame: int, name: str) -> Array:
        """A 1x1 conv to `samples_per_frame` stereo samples a frame, in float32; starts at zero."""
        zeros = nn.initializers.zeros
        stereo = Dense(2 * samples_per_frame, kernel_init=zeros, name=name)(h.astype(jnp.float32))
        return unfold_time(stereo, samples_per_frame)
