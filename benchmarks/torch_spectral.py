"""The spectral conditioner and its stage of training in eager PyTorch, to time against ours.

Tokens are `[batch, channel, frame, band]` with the channels last in memory, which PyTorch's
convolutions and norms are fastest with. A layer with separate weights for each band is one batched
product over `[band, batch * frame, channel]`.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from benchmarks.torch_layers import Audio, Params, dense, group_norm, to_torch
from diffsep_jax.losses import LossWeights
from diffsep_jax.models.spectral.bands import BandGroups
from diffsep_jax.models.spectral.conditioner import (
    INITIAL_MASK,
    LOG_SCALE_RANGE,
    SpectralConditioner,
)
from diffsep_jax.models.spectral.transform import FRAME
from diffsep_jax.models.spectral.wiener import LOADING, TINY

Tokens = Float[Tensor, "batch channel frame band"]
Coefficients = Float[Tensor, "batch frame channel coefficient"]


class TorchSpectralModel:
    """What stage 1 trains of a `SeparationModel`: the conditioner."""

    def __init__(self, conditioner: SpectralConditioner, params: Mapping[str, Any]) -> None:
        """`params` are ours, of the whole model."""
        self.conditioner = conditioner
        self.params = to_torch({"conditioner": params["conditioner"]})
        finer = conditioner.window // (2 * FRAME)
        self._bands = tuple((count, finer * size) for count, size in conditioner.bands)

    def loss(self, mixture: Audio, vocals: Audio, weights: LossWeights) -> Float[Tensor, ""]:
        """w_rec L_rec + w_scale L_scale, mean over the batch; silence counts as 0."""
        silent = (mixture == 0).all(dim=(1, 2))
        if silent.any():
            mixture = torch.where(silent[:, None, None], torch.randn_like(mixture), mixture)
        estimate, log_scale = self.condition(mixture)
        error = vocals - estimate
        reconstruction = error.square().mean(dim=(1, 2))
        if weights.log_floor is not None:
            reconstruction = torch.log(reconstruction + weights.log_floor)
        with torch.no_grad():
            sizes = mdct(error).abs()
        scale = (log_scale + math.sqrt(2) * sizes * torch.exp(-log_scale)).mean(dim=(1, 2, 3))
        total = weights.reconstruction * reconstruction + weights.scale * scale
        return torch.where(silent, 0.0, total).mean()

    def condition(self, mixture: Audio) -> tuple[Audio, Coefficients]:
        """The direct estimate, and the log scale of its error."""
        params, batch = self.params["conditioner"], len(mixture)
        window = self.conditioner.window
        spectra = stft(mixture, window)
        bins = torch.view_as_real(spectra[..., :-1])
        parts = [part.unbind(-1) for part in split_bands(bins, self._bands)]
        embedded = [
            band_dense(params[f"embed_{i}"], _features(x, y)) for i, (x, y) in enumerate(parts)
        ]
        h = torch.cat(embedded).unflatten(1, (batch, -1)).permute(1, 3, 2, 0)
        h = band_unet(
            params["unet"], h.contiguous(memory_format=torch.channels_last), self.conditioner
        )

        masked = []
        by_band = h.permute(3, 0, 2, 1).flatten(1, 2)
        counts = [count for count, _ in self._bands]
        for i, (tokens, (x, y)) in enumerate(zip(by_band.split(counts), parts, strict=True)):
            hidden = F.silu(band_dense(params[f"mask_hidden_{i}"], tokens))
            a, b = band_dense(params[f"mask_{i}"], hidden).unflatten(1, (batch, -1)).chunk(2, -1)
            a = a + INITIAL_MASK
            masked.append(torch.stack([a * x - b * y, a * y + b * x], dim=-1))
        spectrum = F.pad(torch.view_as_complex(join_bands(masked)), (0, 1))
        if share := self.conditioner.wiener:
            spectrum = torch.lerp(spectrum, wiener_filter(spectra, spectrum), share)
        estimate = inverse_stft(spectrum, window)

        with torch.no_grad():
            powers = [band_power(mdct(x), self.conditioner.bands) for x in (estimate, mixture)]
            levels = 0.5 * torch.log(torch.stack(powers, dim=-1) + 1e-8)
            seen = torch.cat([h.permute(0, 2, 3, 1), levels], dim=-1)
        output = dense(params["scale"], F.silu(dense(params["scale_hidden"], seen)))
        output = output + dense(params["scale_levels"], levels)
        by_band = (output[..., 0] - 1.5).clamp(*LOG_SCALE_RANGE)
        log_scale = repeat_over_bands(by_band, self.conditioner.bands) + self._log_shares(mixture)
        return estimate, log_scale.clamp(min=LOG_SCALE_RANGE[0])

    @torch.no_grad()
    def _log_shares(self, mixture: Audio) -> Coefficients:
        """Log of the coefficients' shares in their band's error."""
        power = mdct(mixture).square() + mdct(mixture.flip(1)).flip(1).square()  # and the MDST's
        padded = torch.cat([power[..., :1], power, power[..., -1:]], dim=-1)
        smooth = 0.25 * padded[..., :-2] + 0.5 * power + 0.25 * padded[..., 2:]
        shares = 0.5 * self.conditioner.scale_exponent * torch.log(smooth + 1e-9)
        mean = torch.log(band_power(shares.exp(), self.conditioner.bands))
        return shares - 0.5 * repeat_over_bands(mean, self.conditioner.bands)


def _features(x: Tensor, y: Tensor) -> Tensor:
    """Real and imaginary parts `[band, batch, frame, channel]` to the embedding's input."""
    power = x.square() + y.square()
    mean = power.mean(-1, keepdim=True)
    normal = torch.rsqrt(mean.mean(2, keepdim=True) + 1e-6)
    gain = (torch.sqrt(power + 1e-12) + 1e-3) ** -0.6
    level = 0.3 * torch.log(mean + 1e-5)
    return torch.cat([x * normal, y * normal, x * gain, y * gain, level], -1).flatten(1, 2)


def band_dense(params: Params, x: Float[Tensor, "band position channel"]) -> Tensor:
    """A dense layer with separate weights for each band."""
    return torch.baddbmm(params["bias"][:, None], x, params["kernel"])


def band_block(params: Params, h: Tokens, groups: int) -> Tokens:
    """Residual: a convolution over frames, one over bands, then a mix of all bands."""

    def activated(h: Tokens, name: str) -> Tokens:
        return F.silu(group_norm(params[f"norm_{name}"], h, groups))

    frames, bands = params["over_frames"], params["over_bands"]
    over_frames, over_bands = frames["kernel"][:, :, :, None], bands["kernel"][:, :, None]
    h = h + F.conv2d(activated(h, "frames"), over_frames, frames["bias"], padding=(1, 0))
    h = h + F.conv2d(activated(h, "bands"), over_bands, bands["bias"], padding=(0, 1))
    x = activated(h, "mix").permute(0, 2, 3, 1)
    return h + dense(params["mixed"], params["mix"].T @ x).permute(0, 3, 1, 2)


def band_unet(params: Params, h: Tokens, config: SpectralConditioner) -> Tokens:
    """The U-Net whose levels halve the frames."""
    frames, deepest = h.shape[2], len(config.widths) - 1

    def run_level(h: Tokens, level: int, side: str) -> Tokens:
        for block in range(config.blocks[level]):
            h = band_block(params[f"{side}_block_{level}_{block}"], h, config.groups)
        return h

    h = F.pad(h, (0, 0, 0, -frames % 2**deepest))
    skips = []
    for level in range(deepest):
        h = run_level(h, level, "encoder")
        skips.append(h)
        pairs = h.permute(0, 2, 3, 1).unflatten(1, (-1, 2)).transpose(2, 3).flatten(3)
        h = dense(params[f"halve_{level}"], pairs).permute(0, 3, 1, 2)
    h = run_level(h, deepest, "encoder")
    for level in reversed(range(deepest)):
        pairs = dense(params[f"double_{level}"], h.permute(0, 2, 3, 1)).unflatten(3, (2, -1))
        h = pairs.transpose(2, 3).flatten(1, 2).permute(0, 3, 1, 2) + skips[level]
        h = run_level(h, level, "decoder")
    return F.silu(group_norm(params["norm_out"], h[:, :, :frames], config.groups))


def split_bands(x: Tensor, groups: BandGroups) -> list[Tensor]:
    """`[batch, frame, channel, coefficient, 2]` to each group's `[band, batch, frame, -1, 2]`."""
    parts = x.split([count * width for count, width in groups], dim=3)
    return [
        part.unflatten(3, (count, -1)).permute(3, 0, 1, 2, 4, 5).flatten(3, 4)
        for part, (count, _) in zip(parts, groups, strict=True)
    ]


def join_bands(parts: list[Tensor]) -> Tensor:
    """The inverse of `split_bands`."""
    split = [part.unflatten(3, (2, -1)).permute(1, 2, 3, 0, 4, 5).flatten(3, 4) for part in parts]
    return torch.cat(split, dim=3)


def band_power(x: Coefficients, groups: BandGroups) -> Float[Tensor, "batch frame band"]:
    """Mean square over the coefficients and channels of each band."""
    parts = x.square().mean(2).split([count * width for count, width in groups], dim=-1)
    pairs = zip(parts, groups, strict=True)
    return torch.cat([part.unflatten(-1, (count, -1)).mean(-1) for part, (count, _) in pairs], -1)


def repeat_over_bands(x: Float[Tensor, "batch frame band"], groups: BandGroups) -> Coefficients:
    """A band's value at each of its coefficients; one channel."""
    parts = x.split([count for count, _ in groups], dim=-1)
    repeated = [part.repeat_interleave(w, -1) for part, (_, w) in zip(parts, groups, strict=True)]
    return torch.cat(repeated, dim=-1)[:, :, None]


def stft(audio: Audio, window: int) -> Float[Tensor, "batch frame channel bin"]:
    """The complex spectra of `diffsep_jax.models.spectral.transform.stft`."""
    margin = (window - FRAME) // 2
    frames = F.pad(audio.transpose(1, 2), (margin, margin)).unfold(2, window, FRAME)
    return torch.fft.rfft(frames * (_root_hann(window) * math.sqrt(2 / window))).transpose(1, 2)


def inverse_stft(bins: Tensor, window: int) -> Audio:
    """The audio with the nearest `stft`."""
    frames, count, margin = bins.shape[1], window // FRAME, (window - FRAME) // 2
    hann = _root_hann(window)
    blocks = torch.fft.irfft(bins, n=window) * (hann * math.sqrt(window / 2))
    audio = _overlap(blocks.unflatten(3, (count, FRAME)), frames)
    weight = _overlap(
        hann.square().view(1, 1, 1, count, FRAME).expand(1, frames, -1, -1, -1), frames
    )
    return (audio / weight)[..., margin : margin + frames * FRAME].transpose(1, 2)


def wiener_filter(
    mixture: Float[Tensor, "batch frame channel bin"],
    vocals: Float[Tensor, "batch frame channel bin"],
) -> Float[Tensor, "batch frame channel bin"]:
    """The same filter as `diffsep_jax.models.spectral.wiener.wiener_filter`."""
    covariances = []
    for x, y in ((each[:, :, 0], each[:, :, 1]) for each in (vocals, mixture - vocals)):
        left, right = (torch.view_as_real(z).square().sum(-1) for z in (x, y))
        power = 0.5 * (left + right)
        gain = power / (power.sum(1, keepdim=True) + TINY)
        covariances.append([z.sum(1, keepdim=True) * gain for z in (left, right, x * y.conj())])
    left, right, cross = (a + b for a, b in zip(*covariances, strict=True))
    total = left + right + TINY
    left, right, cross = left / total + LOADING, right / total + LOADING, cross / total
    inverse = 1 / (total * (left * right - torch.view_as_real(cross).square().sum(-1)))
    x, y = mixture[:, :, 0], mixture[:, :, 1]
    u, w = (right * x - cross * y) * inverse, (left * y - cross.conj() * x) * inverse
    left, right, cross = covariances[0]
    return torch.stack([left * u + cross * w, cross.conj() * u + right * w], dim=2)


def mdct(audio: Audio) -> Coefficients:
    """The coefficients of `diffsep_jax.models.spectral.transform.mdct`, by FFTs of half a frame."""
    blocks = audio.unflatten(1, (-1, FRAME)).transpose(2, 3)
    half = FRAME // 2
    angles = math.pi / (2 * FRAME) * (half + torch.arange(half) + 0.5)
    rise, fall = angles.sin(), angles.cos()
    left, right = blocks[:, :-1, :, half:].flip(-1), blocks[:, 1:, :, :half]
    firsts = torch.cat([blocks[:, :1, :, :half], rise * right + fall * left], dim=1)
    lasts = torch.cat([(rise * left - fall * right).flip(-1), blocks[:, -1:, :, half:]], dim=1)
    lapped = torch.cat([firsts, lasts], dim=-1)
    turn = torch.polar(torch.ones(half), -math.pi / FRAME * (torch.arange(half) + 0.125))
    pairs = torch.complex(lapped[..., ::2], lapped.flip(-1)[..., ::2])
    spectrum = torch.fft.fft(pairs * turn) * (turn * math.sqrt(2 / FRAME))
    return torch.stack([spectrum.real, -spectrum.imag.flip(-1)], dim=-1).flatten(-2)


def _overlap(blocks: Tensor, frames: int) -> Tensor:
    """`[batch, frame, channel, part, FRAME]`, a frame `FRAME` after the one before, added up."""
    count = blocks.shape[3]
    parts = [F.pad(blocks[:, :, :, i], (0, 0, 0, 0, i, count - 1 - i)) for i in range(count)]
    return sum(parts[1:], parts[0]).transpose(1, 2).flatten(2)


def _root_hann(window: int) -> Float[Tensor, "window"]:
    return torch.sin(math.pi / window * (torch.arange(window) + 0.5))
