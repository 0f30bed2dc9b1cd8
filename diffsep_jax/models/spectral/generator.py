"""The spectral generator: a velocity, preconditioned about the direct estimate by its error.

If the vocals' MDCT V were Gaussian about the estimate's, M, with the deviation s that the
conditioner predicts for each coefficient, then, with X that of x_sigma, D = X - alpha M and
t = (alpha s)^2 + beta^2,

    E[v | X]   = -beta M + alpha beta (1 - s^2) / t D
    Std[v | X] = s / sqrt(t)

The velocity is that mean less that deviation times the network's output F: with F = 0 the samplers
draw exactly from the Gaussian, so the network only adds structure. Nothing divides by beta.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffsep_jax.diffusion import alpha_beta
from diffsep_jax.models import fields
from diffsep_jax.models.compute import DEFAULT, Compute
from diffsep_jax.models.conditioning import Conditioning
from diffsep_jax.models.layers import Dense, NoiseLevelEmbedding
from diffsep_jax.models.spectral.bands import (
    BandGroups,
    BandUNet,
    band_power,
    check_network,
    embed_bands,
    join_bands,
    read_bands,
    split_bands,
)
from diffsep_jax.models.spectral.transform import FRAME, Coefficients, inverse_mdct, mdct, mdst


class GaussianVelocity(NamedTuple):
    """The velocity's MDCT, were the vocals Gaussian about the direct estimate.

    Attributes:
        mean: E[v | X].
        deviation: Std[v | X].
        normalised: D / sqrt(t), of about unit variance.
        estimate: M.
    """

    mean: Coefficients
    deviation: Coefficients
    normalised: Coefficients
    estimate: Coefficients


def gaussian_velocity(
    x: Float[Array, "batch time 2"],
    sigma: Float[Array, "batch"],
    conditioning: Conditioning,
) -> GaussianVelocity:
    """See the top of this module."""
    assert conditioning.log_scale is not None
    alpha, beta = (weight[:, None, None, None] for weight in alpha_beta(sigma))
    estimate = mdct(conditioning.estimate)
    scale = jnp.exp(conditioning.log_scale)
    variance = jnp.square(alpha * scale) + jnp.square(beta)
    distance = mdct(x) - alpha * estimate
    slope = alpha * beta * (1 - jnp.square(scale)) / variance
    return GaussianVelocity(
        mean=slope * distance - beta * estimate,
        deviation=scale * jax.lax.rsqrt(variance),
        normalised=distance * jax.lax.rsqrt(variance),
        estimate=estimate,
    )


class SpectralGenerator(nn.Module):
    """Corrects the velocity that the direct estimate and its error imply.

    Attributes:
        bands: the same as the conditioner's.
        widths: channels of each level of the U-Net.
        blocks: blocks of each level; the last level is the bottleneck.
        groups: groups of every GroupNorm.
        fourier_features: sines and cosines of the noise level.
        embedding_width: width of the noise level's embedding.
        fourier_scale: deviation of the frequencies of those.
    """

    bands: BandGroups = ((16, 8), (12, 16), (8, 32), (4, 64), (1, 192))
    widths: tuple[int, ...] = (48, 64, 96)
    blocks: tuple[int, ...] = (1, 1, 1)
    groups: int = 8
    fourier_features: int = 32
    embedding_width: int = 96
    fourier_scale: float = 2.0

    @property
    def stride(self) -> int:
        """Samples that a segment is a multiple of."""
        return FRAME

    @nn.nowrap
    def check(self) -> None:
        """Raises UserError, naming the field, where a field is bad or does not fit another."""
        check_network(self, "generator")
        fields.check_positive(
            self, "generator", "fourier_features", "embedding_width", "fourier_scale"
        )

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
        """The velocity, in float32; nothing of the conditioning gets a gradient."""
        conditioning = jax.lax.stop_gradient(conditioning)
        gaussian = gaussian_velocity(x, sigma, conditioning)
        output = self._network(gaussian, sigma, mixture, conditioning, compute)
        return inverse_mdct(gaussian.mean - gaussian.deviation * output)

    def _network(
        self,
        gaussian: GaussianVelocity,
        sigma: Float[Array, "batch"],
        mixture: Array,
        conditioning: Conditioning,
        compute: Compute,
    ) -> Coefficients:
        dtype = compute.dtype
        fixed = (gaussian.estimate, mdct(mixture), mdst(mixture))
        seen = (gaussian.normalised, *(_compress(each) for each in fixed))
        groups = zip(*(split_bands(each, self.bands) for each in seen), strict=True)
        features = [jnp.concatenate(parts, axis=-1) for parts in groups]
        h = embed_bands(features, self.widths[0], dtype)
        assert conditioning.log_scale is not None
        tokens = jnp.concatenate(
            [
                conditioning.embeddings[0].astype(jnp.float32),
                self._snr(sigma, conditioning.log_scale),
            ],
            axis=-1,
        )
        h = h + Dense(self.widths[0], dtype=dtype, name="tokens")(tokens.astype(dtype))
        embedding = NoiseLevelEmbedding(
            self.fourier_features, self.embedding_width, self.fourier_scale, dtype, name="noise"
        )(sigma)
        h = BandUNet(self.widths, self.blocks, self.groups, compute, name="unet")(h, embedding)

        outputs = read_bands(h, self.bands, dtype, "hidden", "out")
        return join_bands(outputs, self.bands, 2)

    def _snr(self, sigma: Array, log_scale: Array) -> Float[Array, "batch frame band 1"]:
        """Log of the estimate's error over the noise, on a scale of about one."""
        alpha, beta = (jnp.log(jnp.maximum(weight, 1e-4)) for weight in alpha_beta(sigma))
        level = 0.5 * jnp.log(band_power(jnp.exp(log_scale), self.bands))
        ratio = level + (alpha - beta)[:, None, None]
        return jnp.clip(ratio / 4, -3.0, 3.0)[..., None]


def _compress(x: Coefficients) -> Coefficients:
    """Compresses loud and quiet coefficients to similar magnitudes: about |x|^0.4."""
    return x * (jnp.abs(x) + 1e-3) ** -0.6
