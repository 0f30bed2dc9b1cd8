"""The spectral conditioner: a direct estimate by masks and a stereo filter, and its error."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffsep_jax.models import fields
from diffsep_jax.models.compute import DEFAULT, Compute
from diffsep_jax.models.conditioning import Conditioning
from diffsep_jax.models.layers import Dense, exact_products
from diffsep_jax.models.spectral.bands import (
    BandCoefficients,
    BandGroups,
    BandUNet,
    Tokens,
    band_power,
    check_network,
    embed_bands,
    join_bands,
    read_bands,
    repeat_over_bands,
    split_bands,
)
from diffsep_jax.models.spectral.transform import (
    FRAME,
    Coefficients,
    inverse_stft,
    mdct,
    mdst,
    stft,
)
from diffsep_jax.models.spectral.wiener import wiener_filter

INITIAL_MASK = 0.3
"""The mask of an untrained network."""

LOG_SCALE_RANGE = (-8.517, 2.0)
"""log 2e-4, about the rounding of 16 bits, to more than any error of a mixture of unit RMS."""


class SpectralConditioner(nn.Module):
    """Masks the mixture's STFT, and filters it by the stereo image; mixtures of about unit RMS.

    Attributes:
        window: window of the STFT in samples, an even multiple of the frame.
        bands: (bands, coefficients in each) of the MDCT from low to high; the STFT's are as wide.
        widths: channels of each level of the U-Net.
        blocks: blocks of each level; the last level is the bottleneck.
        groups: groups of every GroupNorm.
        scale_exponent: the error that is predicted for a band is shared out among its coefficients
            in proportion to this power of the mixture's magnitudes; 0: equally.
        wiener: share of the multichannel Wiener filter's output in the estimate, the masks' own
            making up the rest; 0: the masks alone.
    """

    window: int = 2048
    bands: BandGroups = ((16, 8), (12, 16), (8, 32), (4, 64), (1, 192))
    widths: tuple[int, ...] = (64, 96, 128)
    blocks: tuple[int, ...] = (1, 1, 2)
    groups: int = 8
    scale_exponent: float = 0.0
    wiener: float = 0.0

    @property
    def stride(self) -> int:
        """Samples that a segment is a multiple of."""
        return FRAME

    @nn.nowrap
    def check(self) -> None:
        """Raises UserError, naming the field, where a field is bad or does not fit another."""
        owner = "conditioner"
        check_network(self, owner)
        good = self.window > 0 and self.window % (2 * FRAME) == 0
        fields.require(good, f"{owner}.window", self.window, f"a multiple of {2 * FRAME} samples")
        for name in ("scale_exponent", "wiener"):
            share = getattr(self, name)
            fields.require(0 <= share <= 1, f"{owner}.{name}", share, "0 to 1")

    @nn.compact
    def __call__(
        self,
        mixture: Float[Array, "batch time 2"],
        *,
        with_latent: bool = False,
        compute: Compute = DEFAULT,
    ) -> Conditioning:
        """This family has no bottleneck estimate: `with_latent` changes nothing."""
        del with_latent
        mixture = mixture.astype(jnp.float32)
        bins = stft(mixture, self.window)
        finer = self.window // (2 * FRAME)
        groups = tuple((count, finer * width) for count, width in self.bands)
        nyquist = bins.shape[-1] - 1
        real, imaginary = bins.real[..., :nyquist], bins.imag[..., :nyquist]
        parts = list(zip(split_bands(real, groups), split_bands(imaginary, groups), strict=True))

        h = embed_bands([_features(x, y) for x, y in parts], self.widths[0], compute.dtype)
        h = BandUNet(self.widths, self.blocks, self.groups, compute, name="unet")(h)

        masked = []
        both = tuple((count, 2 * width) for count, width in groups)  # real and imaginary parts
        masks = read_bands(h, both, compute.dtype, "mask_hidden", "mask")
        for (x, y), mask in zip(parts, masks, strict=True):
            a, b = jnp.split(mask, 2, axis=-1)
            a = a + INITIAL_MASK
            masked.append((a * x - b * y, a * y + b * x))
        estimated = [join_bands(part, groups, 2) for part in zip(*masked, strict=True)]
        spectrum = jnp.pad(jax.lax.complex(*estimated), ((0, 0), (0, 0), (0, 0), (0, 1)))
        if self.wiener:
            spectrum += self.wiener * (wiener_filter(bins, spectrum) - spectrum)
        estimate = inverse_stft(spectrum, self.window)  # the direct estimate
        log_scale = repeat_over_bands(self._log_scale(h, estimate, mixture), self.bands)
        log_scale = log_scale + log_shares(mixture, self.bands, self.scale_exponent)
        log_scale = jnp.maximum(log_scale, LOG_SCALE_RANGE[0])
        return Conditioning((h,), estimate, log_scale=log_scale)

    @exact_products()
    def _log_scale(self, h: Tokens, estimate: Array, mixture: Array) -> Array:
        """Predicts the log of the estimate's error; no gradient reaches the layers before it."""
        levels = jnp.stack(
            [0.5 * jnp.log(band_power(mdct(x), self.bands) + 1e-8) for x in (estimate, mixture)],
            axis=-1,
        )
        seen = jax.lax.stop_gradient(jnp.concatenate([h.astype(jnp.float32), levels], axis=-1))
        hidden = nn.silu(Dense(64, name="scale_hidden")(seen))
        start = nn.initializers.normal(0.01)
        output = Dense(1, kernel_init=start, name="scale")(hidden)
        linear = Dense(1, kernel_init=nn.initializers.zeros, name="scale_levels")(
            jax.lax.stop_gradient(levels)
        )
        return jnp.clip((output + linear)[..., 0] - 1.5, *LOG_SCALE_RANGE)


def log_shares(mixture: Array, bands: BandGroups, exponent: float) -> Coefficients:
    """Log of the coefficients' shares in their band's error, of mean square one in each band.

    A share is proportional to the mixture's magnitude, smoothed over neighbours, to `exponent`.
    """
    power = jnp.square(mdct(mixture)) + jnp.square(mdst(mixture))
    padded = jnp.pad(power, [(0, 0)] * 3 + [(1, 1)], mode="edge")
    smooth = 0.25 * padded[..., :-2] + 0.5 * power + 0.25 * padded[..., 2:]
    shares = 0.5 * exponent * jnp.log(smooth + 1e-9)
    mean = jnp.log(band_power(jnp.exp(shares), bands))
    return shares - 0.5 * repeat_over_bands(mean, bands)


def _features(x: BandCoefficients, y: BandCoefficients) -> BandCoefficients:
    """Real and imaginary parts, normalised and compressed, and the band's level."""
    power = jnp.square(x) + jnp.square(y)
    mean = power.mean(-1, keepdims=True)
    normal = jax.lax.rsqrt(mean.mean(1, keepdims=True) + 1e-6)  # by the level over the chunk
    gain = (jnp.sqrt(power + 1e-12) + 1e-3) ** -0.6
    level = 0.3 * jnp.log(mean + 1e-5)
    return jnp.concatenate([x * normal, y * normal, x * gain, y * gain, level], axis=-1)
