"""The generator: a U-Net over the noisy vocals, given the noise level and the conditioning."""

import math

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffsep_jax.models import fields
from diffsep_jax.models.compute import DEFAULT, Compute
from diffsep_jax.models.conditioning import Conditioning
from diffsep_jax.models.layers import Dense, FiLM, NoiseLevelEmbedding, conv, exact_products
from diffsep_jax.models.waveform.blocks import (
    Downsample,
    ResidualBlock,
    Upsample,
    check_network,
    fold_time,
    unfold_time,
)
from diffsep_jax.models.waveform.transformer import SelfAttention


class Generator(nn.Module):
    """The generator network; the defaults are the paper's, fitted to its parameter count.

    Attributes:
        widths: channels of each level and of the bottleneck (one more than `factors`).
        factors: resampling factor after each level.
        blocks: residual blocks of each level.
        patch_size: samples folded into channels before the first level (1 in the paper).
        groups: groups of every GroupNorm.
        attention_levels: how many of the deepest levels have self-attention (0 = none).
        attention_width: inner width of the self-attention.
        attention_heads: heads it is split into, at no change of parameters.
        injection_levels: how many of the deepest levels take the conditioner's embeddings.
        fourier_features: random Fourier features of sigma, sines and cosines together.
        fourier_scale: standard deviation of their frequencies (ours).
        embedding_width: width of the noise-level MLP.
        use_mixture: concatenate the mixture to x (ours; off in the paper).
        use_estimate: concatenate the direct estimate to x (ours; off in the paper).
    """

    widths: tuple[int, ...] = (32, 32, 64, 128, 128, 256, 256, 512)
    factors: tuple[int, ...] = (1, 2, 4, 1, 4, 1, 4)
    blocks: tuple[int, ...] = (1, 1, 1, 2, 2, 2, 2)
    patch_size: int = 1
    groups: int = 8
    attention_levels: int = 4
    attention_width: int = 256
    attention_heads: int = 2
    injection_levels: int = 4
    fourier_features: int = 1024
    fourier_scale: float = 1.0
    embedding_width: int = 1024
    use_mixture: bool = False
    use_estimate: bool = False

    @property
    def stride(self) -> int:
        """Samples in a frame of the bottleneck; a segment is a multiple of it."""
        return self.patch_size * math.prod(self.factors)

    @nn.nowrap
    def check(self) -> None:
        """Raises UserError, naming the field, where a field is bad or does not fit another."""
        owner = "generator"
        check_network(self, owner)
        fields.check_positive(
            self, owner, "blocks", "fourier_features", "fourier_scale", "embedding_width"
        )
        fields.check_lengths(self, owner, "blocks", "factors")
        features = self.fourier_features
        fields.require(features % 2 == 0, f"{owner}.fourier_features", features, "an even number")

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch time 2"],
        sigma: Float[Array, "batch"],
        mixture: Float[Array, "batch time 2"],
        conditioning: Conditioning,
        *,
        compute: Compute = DEFAULT,
    ) -> Float[Array, "batch time 2"]:
        """The network's output for noisy vocals x at noise level sigma.

        The conditioning has an embedding for each injection level; the mixture and the direct
        estimate are used only with `use_mixture` and `use_estimate`. The output is float32.
        """
        levels = range(len(self.factors))
        first_injection = len(levels) - self.injection_levels
        embedding = NoiseLevelEmbedding(
            self.fourier_features,
            self.embedding_width,
            self.fourier_scale,
            compute.dtype,
            name="noise_level",
        )(sigma)

        inputs = [
            x,
            *([mixture] if self.use_mixture else []),
            *([conditioning.estimate] if self.use_estimate else []),
        ]
        folded = [fold_time(each.astype(compute.dtype), self.patch_size) for each in inputs]
        h = conv(self.widths[0], 3, compute.convolution, compute.dtype, name="conv_in")(
            jnp.concatenate(folded, -1)
        )

        def run_level(h: Array, level: int, side: str) -> Array:
            if level >= first_injection:
                embedded = conditioning.embeddings[level - first_injection]
                h = self._inject(h, embedded, compute, f"{side}_inject_{level}")
            for i in range(self.blocks[level]):
                block = compute.block(ResidualBlock)
                h = block(
                    self.groups,
                    compute.convolution,
                    compute.dtype,
                    name=f"{side}_block_{level}_{i}",
                )(h)
            h = FiLM(compute.dtype, name=f"{side}_film_{level}")(h, embedding)
            if level < len(levels) - self.attention_levels:
                return h
            return compute.block(SelfAttention)(
                self.attention_width,
                self.attention_heads,
                compute.attention,
                compute.dtype,
                name=f"{side}_attention_{level}",
            )(h)

        skips = []
        for level in levels:
            h = run_level(h, level, "encoder")
            skips.append(h)
            h = Downsample(
                self.widths[level + 1], self.factors[level], compute.dtype, name=f"down_{level}"
            )(h)
        for level in reversed(levels):
            h = Upsample(
                self.widths[level], self.factors[level], compute.dtype, name=f"up_{level}"
            )(h)
            h = run_level(h + skips[level], level, "decoder")

        # Zero at the start: the first prediction is the preconditioner's, or zero.
        zeros = nn.initializers.zeros
        convolution = compute.convolution, jnp.float32
        conv_out = conv(2 * self.patch_size, 3, *convolution, "conv_out", kernel_init=zeros)
        with exact_products():
            output = conv_out(h.astype(jnp.float32))
        return unfold_time(output, self.patch_size)

    def _inject(self, h: Array, embedding: Array, compute: Compute, name: str) -> Array:
        """1x1 conv of the embedding to h's width, concatenate, 1x1 conv back."""
        width = h.shape[-1]
        embedding = Dense(width, dtype=compute.dtype, name=f"{name}_embedding")(embedding)
        both = jnp.concatenate([h, embedding], axis=-1)
        return Dense(width, dtype=compute.dtype, name=f"{name}_join")(both)
