"""A small band-split U-Net that estimates vocals by complex masks: the yardstick of `data_recipe`.

It learns quickly on a CPU, so that what songs teach shows after minutes. The transform is the MCLT
(Malvar 1999) with frames of 1,024 samples: its cosine part is the MDCT, which inverts it, and its
sine part lets a mask turn phases. Coefficients are grouped into 41 bands, each a token of every
frame; blocks convolve over time and over bands and mix all bands.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffsep_jax.models.layers import GroupNorm, conv

FRAME = 1024

BAND_GROUPS = ((16, 8), (12, 16), (8, 32), (4, 64), (1, 192))
"""(bands, coefficients in each), from low to high."""

INITIAL_MASK = 0.3
"""What an untrained network multiplies the mixture by."""

Coefficients = Float[Array, "batch frame channel coefficient"]
Tokens = Float[Array, "batch frame band width"]


def _bases() -> tuple[np.ndarray, np.ndarray]:
    """The windowed cosines and sines, [sample, coefficient], orthonormal as MDCT and MDST."""
    sample, coefficient = np.arange(2 * FRAME)[:, None] + 0.5, np.arange(FRAME)[None] + 0.5
    window = np.sqrt(2 / FRAME) * np.sin(np.pi / (2 * FRAME) * sample)
    phase = np.pi / FRAME * (sample + FRAME / 2) * coefficient
    return (
        (window * np.cos(phase)).astype(np.float32),
        (window * np.sin(phase)).astype(np.float32),
    )


_COSINES, _SINES = _bases()


def analyse(audio: Float[Array, "batch time channel"]) -> tuple[Coefficients, Coefficients]:
    """Cosine and sine coefficients; the time must be a multiple of `FRAME`."""
    batch, _, channels = audio.shape
    blocks = jnp.pad(audio, ((0, 0), (FRAME, FRAME), (0, 0))).reshape(batch, -1, FRAME, channels)
    frames = jnp.swapaxes(jnp.concatenate([blocks[:, :-1], blocks[:, 1:]], axis=2), 2, 3)
    return frames @ _COSINES, frames @ _SINES


def synthesise(cosine: Coefficients) -> Float[Array, "batch time channel"]:
    """The audio of cosine coefficients: the inverse of `analyse`."""
    frames = jnp.swapaxes(cosine @ _COSINES.T, 2, 3)
    audio = frames[:, 1:, :FRAME] + frames[:, :-1, FRAME:]
    return audio.reshape(audio.shape[0], -1, audio.shape[-1])


def _split(x: Coefficients) -> list[Float[Array, "batch frame band coefficient channel"]]:
    """The coefficients of each group of `BAND_GROUPS`."""
    parts, start = [], 0
    for count, width in BAND_GROUPS:
        part = x[..., start : start + count * width]
        parts.append(jnp.moveaxis(part.reshape(*x.shape[:-1], count, width), 2, -1))
        start += count * width
    return parts


class _BandDense(nn.Module):
    """A dense layer with weights of its own for each band."""

    features: int
    zero: bool = False
    """Whether the kernel starts at zero."""

    @nn.compact
    def __call__(self, x: Tokens) -> Tokens:
        random = nn.initializers.variance_scaling(
            1.0, "fan_in", "normal", in_axis=1, out_axis=2, batch_axis=(0,)
        )
        init = nn.initializers.zeros if self.zero else random
        kernel = self.param("kernel", init, (x.shape[2], x.shape[3], self.features))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[2], self.features))
        return jnp.einsum("btki,kio->btko", x, kernel) + bias


class _Block(nn.Module):
    """Residual convolutions over time and over bands, then a mix of all bands."""

    @nn.compact
    def __call__(self, h: Tokens) -> Tokens:
        batch, frames, bands, width = h.shape

        def activated(h: Tokens, name: str) -> Tokens:
            return nn.silu(GroupNorm(8, name=name)(h.reshape(batch, -1, width))).reshape(h.shape)

        def convolve(x: Array, name: str) -> Array:
            return conv(width, 3, "auto", jnp.float32, name)(x)

        x = jnp.swapaxes(activated(h, "norm_time"), 1, 2).reshape(batch * bands, frames, width)
        x = convolve(x, "over_time").reshape(batch, bands, frames, width)
        h = h + jnp.swapaxes(x, 1, 2)
        x = activated(h, "norm_bands").reshape(batch * frames, bands, width)
        h = h + convolve(x, "over_bands").reshape(h.shape)
        mix = self.param("mix", nn.initializers.normal(0.5 / np.sqrt(bands)), (bands, bands))
        x = jnp.einsum("btkc,kl->btlc", activated(h, "norm_mix"), mix)
        return h + nn.Dense(width, kernel_init=nn.initializers.normal(0.02), name="mixed")(x)


def _halve(h: Tokens, width: int, name: str) -> Tokens:
    batch, frames, bands, old = h.shape
    pairs = jnp.swapaxes(h.reshape(batch, frames // 2, 2, bands, old), 2, 3)
    return nn.Dense(width, name=name)(pairs.reshape(batch, frames // 2, bands, 2 * old))


def _double(h: Tokens, width: int, name: str) -> Tokens:
    batch, frames, bands, _ = h.shape
    pairs = nn.Dense(2 * width, name=name)(h).reshape(batch, frames, bands, 2, width)
    return jnp.swapaxes(pairs, 2, 3).reshape(batch, 2 * frames, bands, width)


class BandUNet(nn.Module):
    """The vocals of stereo mixtures of about unit RMS."""

    widths: Sequence[int] = (64, 96, 128)
    blocks: Sequence[int] = (1, 1, 2)

    @nn.compact
    def __call__(self, mixture: Float[Array, "batch time 2"]) -> Float[Array, "batch time 2"]:
        cosines, sines = (_split(part) for part in analyse(mixture))
        tokens = []
        for group, (cosine, sine) in enumerate(zip(cosines, sines, strict=True)):
            power = jnp.mean(cosine**2 + sine**2, axis=(-1, -2))
            level = jnp.sqrt(power.mean(1, keepdims=True) + 1e-6)[..., None, None]
            x = jnp.concatenate([cosine / level, sine / level], -1)
            x = x.reshape(*x.shape[:3], -1)
            x = jnp.concatenate([x, 0.3 * jnp.log(power + 1e-5)[..., None]], -1)
            tokens.append(_BandDense(self.widths[0], name=f"embed_{group}")(x))
        h = jnp.concatenate(tokens, axis=2)
        frames = h.shape[1]
        h = jnp.pad(h, ((0, 0), (0, -frames % 2 ** (len(self.widths) - 1)), (0, 0), (0, 0)))

        skips = []
        for depth, count in enumerate(self.blocks):
            for block in range(count):
                h = _Block(name=f"down_{depth}_{block}")(h)
            if depth + 1 < len(self.widths):
                skips.append(h)
                h = _halve(h, self.widths[depth + 1], f"halve_{depth}")
        for depth in reversed(range(len(self.widths) - 1)):
            h = _double(h, self.widths[depth], f"double_{depth}") + skips[depth]
            for block in range(self.blocks[depth]):
                h = _Block(name=f"up_{depth}_{block}")(h)

        h = h[:, :frames]
        normed = GroupNorm(8, name="norm")(h.reshape(h.shape[0], -1, h.shape[-1]))
        h = nn.silu(normed).reshape(h.shape)
        estimates, start = [], 0
        for group, (cosine, sine) in enumerate(zip(cosines, sines, strict=True)):
            count, width = BAND_GROUPS[group]
            x = h[:, :, start : start + count]
            start += count
            x = nn.silu(_BandDense(2 * h.shape[-1], name=f"mask_hidden_{group}")(x))
            mask = _BandDense(4 * width, zero=True, name=f"mask_{group}")(x)
            real, imaginary = jnp.split(mask.reshape(*mask.shape[:3], 2 * width, 2), 2, axis=3)
            estimate = (INITIAL_MASK + real) * cosine + imaginary * sine
            estimates.append(jnp.moveaxis(estimate, -1, 2).reshape(*estimate.shape[:2], 2, -1))
        return synthesise(jnp.concatenate(estimates, axis=-1))
