"""The generator: a U-Net over the noisy vocals, told the noise level and the conditioner's view."""

import math

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffsep_jax.errors import UserError
from diffsep_jax.models import fields, layers
from diffsep_jax.models.compute import DEFAULT, Compute
from diffsep_jax.models.product import Dense
from diffsep_jax.models.transformer import SelfAttention
from diffsep_jax.models.waveform.conditioner import Conditioning


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
        use_mixture: take the mixture as a further input beside x (ours; off in the paper).
        use_estimate: take the direct estimate as a further input beside x (ours; off in the paper).
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
        fields.check_common(self, owner)
        fields.check_wholes(self, owner, "blocks")
        if len(self.blocks) != len(self.factors):
            raise UserError(
                f"{owner}.blocks has {len(self.blocks)} values; one for each of the"
                f" {len(self.factors)} levels is expected"
            )
        features = self.fourier_features
        fields.require(
            fields.is_whole(features) and features % 2 == 0,
            f"{owner}.fourier_features",
            features,
            "a positive even number",
        )
        fields.require(
            fields.is_positive(self.fourier_scale),
            f"{owner}.fourier_scale",
            self.fourier_scale,
            "a positive number",
        )
        fields.check_whole(self, owner, "embedding_width")
        for field in ("use_mixture", "use_estimate"):
            fields.check_choice(self, owner, field, (True, False))

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
        estimate are read only if `use_mixture` and `use_estimate` say so. The output is float32.
        """
        levels = range(len(self.factors))
        first_injection = len(levels) - self.injection_levels
        embedding = layers.NoiseLevelEmbedding(
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
        folded = [layers.fold_time(each.astype(compute.dtype), self.patch_size) for each in inputs]
        h = layers.conv(self.widths[0], 3, compute.convolution, compute.dtype, name="conv_in")(
            jnp.concatenate(folded, -1)
        )

        def run_level(h: Array, level: int, side: str) -> Array:
            if level >= first_injection:
                embedded = conditioning.embeddings[level - first_injection]
                h = self._inject(h, embedded, compute, f"{side}_inject_{level}")
            for i in range(self.blocks[level]):
                block = compute.block(layers.ResidualBlock)
                h = block(
                    self.groups,
                    compute.convolution,
                    compute.dtype,
                    name=f"{side}_block_{level}_{i}",
                )(h)
            h = layers.FiLM(compute.dtype, name=f"{side}_film_{level}")(h, embedding)
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
            h = layers.Downsample(
                self.widths[level + 1], self.factors[level], compute.dtype, name=f"down_{level}"
            )(h)
        for level in reversed(levels):
            h = layers.Upsample(
                self.widths[level], self.factors[level], compute.dtype, name=f"up_{level}"
            )(h)
            h = run_level(h + skips[level], level, "decoder")

        # Zero at the start: the first prediction is the preconditioner's, or zero.
        output = layers.conv(
            2 * self.patch_size,
            3,
            compute.convolution,
            jnp.float32,
            "conv_out",
            kernel_init=nn.initializers.zeros,
        )(h.astype(jnp.float32))
        return layers.unfold_time(output, self.patch_size)

    def _inject(self, h: Array, embedding: Array, compute: Compute, name: str) -> Array:
        """1x1 conv of the embedding to h's width, concatenate, 1x1 conv back."""
        width = h.shape[-1]
        told = Dense(width, dtype=compute.dtype, name=f"{name}_embedding")(embedding)
        return layers.Join(width, compute.dtype, name=f"{name}_join")(h, told)
