"""The spectral conditioner and its stage of training in eager PyTorch, to time ours beside.

Tokens are `[batch, channel, frame, band]` with the channels last in memory, which PyTorch's
convolutions and norms are fastest with. What has weights of its own for each band is one batched
product over `[band, batch * frame, channel]`. Modules carry the names of the JAX parameter tree.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from benchmarks.torch_layers import Audio
from benchmarks.torch_networks import Trainer, WithOurParams
from diffsep_jax.losses import LossWeights
from diffsep_jax.models.spectral import conditioner
from diffsep_jax.models.spectral.bands import BandGroups, num_bands
from diffsep_jax.models.spectral.conditioner import INITIAL_MASK, LOG_SCALE_RANGE
from diffsep_jax.models.spectral.transform import FRAME

GROUP_NORM_EPSILON = 1e-5
Tokens = Float[Tensor, "batch channel frame band"]
Coefficients = Float[Tensor, "batch frame channel coefficient"]


class TorchSpectralModel(WithOurParams):
    """What stage 1 trains of a `SeparationModel`: the conditioner, under its name."""

    def __init__(self, config: conditioner.SpectralConditioner) -> None:
        super().__init__()
        self.conditioner = SpectralConditioner(config)

    def loss(self, mixture: Audio, vocals: Audio, weights: LossWeights) -> Float[Tensor, ""]:
        """w_rec L_rec + w_scale L_scale, mean over the batch; silence counts as 0."""
        silent = (mixture == 0).all(dim=(1, 2))
        if silent.any():
            mixture = torch.where(silent[:, None, None], torch.randn_like(mixture), mixture)
        estimate, log_scale = self.conditioner(mixture)
        error = vocals - estimate
        reconstruction = error.square().mean(dim=(1, 2))
        if weights.log_floor is not None:
            reconstruction = torch.log(reconstruction + weights.log_floor)
        bands = self.conditioner.config.bands
        with torch.no_grad():
            error_power = band_power(mdct(error), bands)
        share = torch.cat([torch.full((count,), width / FRAME) for count, width in bands])
        scale = log_scale + 0.5 * error_power * torch.exp(-2 * log_scale)
        total = weights.reconstruction * reconstruction + weights.scale * (scale @ share).mean(1)
        return torch.where(silent, 0.0, total).mean()


class StageOneTrainer(Trainer):
    """`Trainer` for `TorchSpectralModel`, whose loss takes neither noise nor its level."""

    def step(self, mixture: Audio, vocals: Audio) -> Float[Tensor, ""]:
        """One step; the loss."""
        return self.descend(self.model.loss(mixture, vocals, self.config.loss_weights))


class SpectralConditioner(nn.ModuleDict):
    """From the mixture to the direct estimate and the log scale of its error in each band."""

    def __init__(self, config: conditioner.SpectralConditioner) -> None:
        super().__init__()
        self.config = config
        width, finer = config.widths[0], config.window // (2 * FRAME)
        self.bands = tuple((count, finer * size) for count, size in config.bands)
        for group, (count, size) in enumerate(self.bands):
            self[f"embed_{group}"] = BandLinear(count, 8 * size + 1, width)
            self[f"mask_hidden_{group}"] = BandLinear(count, width, 2 * width)
            self[f"mask_{group}"] = BandLinear(count, 2 * width, 4 * size)
        self["unet"] = BandUNet(config)
        self["scale_hidden"] = nn.Linear(width + 2, 64)
        self["scale"] = nn.Linear(64, 1)
        self["scale_levels"] = nn.Linear(2, 1)

    def forward(self, mixture: Audio) -> tuple[Audio, Float[Tensor, "batch frame band"]]:
        """Estimate and log scale."""
        batch, window = len(mixture), self.config.window
        bins = torch.view_as_real(stft(mixture, window)[..., :-1])
        parts = [part.unbind(-1) for part in split_bands(bins, self.bands)]
        embedded = [self[f"embed_{i}"](self._features(x, y)) for i, (x, y) in enumerate(parts)]
        h = torch.cat(embedded).unflatten(1, (batch, -1)).permute(1, 3, 2, 0)
        h = self["unet"](h.contiguous(memory_format=torch.channels_last))

        masked = []
        by_band = h.permute(3, 0, 2, 1).flatten(1, 2)
        counts = [count for count, _ in self.bands]
        for i, (tokens, (x, y)) in enumerate(zip(by_band.split(counts), parts, strict=True)):
            masks = self[f"mask_{i}"](F.silu(self[f"mask_hidden_{i}"](tokens)))
            a, b = masks.unflatten(1, (batch, -1)).chunk(2, dim=-1)
            a = a + INITIAL_MASK
            masked.append(torch.stack([a * x - b * y, a * y + b * x], dim=-1))
        spectrum = torch.view_as_complex(join_bands(masked))
        estimate = inverse_stft(F.pad(spectrum, (0, 1)), window)

        with torch.no_grad():
            powers = [band_power(mdct(x), self.config.bands) for x in (estimate, mixture)]
            levels = 0.5 * torch.log(torch.stack(powers, dim=-1) + 1e-8)
            seen = torch.cat([h.permute(0, 2, 3, 1), levels], dim=-1)
        output = self["scale"](F.silu(self["scale_hidden"](seen))) + self["scale_levels"](levels)
        return estimate, (output[..., 0] - 1.5).clamp(*LOG_SCALE_RANGE)

    def _features(self, x: Tensor, y: Tensor) -> Tensor:
        """`[band, batch, frame, channel]` twice to the embedding's input."""
        power = x.square() + y.square()
        mean = power.mean(-1, keepdim=True)
        normal = torch.rsqrt(mean.mean(2, keepdim=True) + 1e-6)
        gain = (torch.sqrt(power + 1e-12) + 1e-3) ** -0.6
        level = 0.3 * torch.log(mean + 1e-5)
        return torch.cat([x * normal, y * normal, x * gain, y * gain, level], -1).flatten(1, 2)


class BandLinear(nn.Module):
    """A linear layer with weights of its own for each band: `[band, position, channel]`."""

    def __init__(self, bands: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.empty(bands, inputs, outputs))
        self.offset = nn.Parameter(torch.empty(bands, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """`[band, position, out channel]`."""
        return torch.baddbmm(self.offset[:, None], x, self.kernel)


class BandBlock(nn.ModuleDict):
    """Residual: a convolution over frames, one over bands, then a mix of all bands."""

    def __init__(self, width: int, bands: int, groups: int) -> None:
        super().__init__()
        for name in ("frames", "bands", "mix"):
            self[f"norm_{name}"] = nn.GroupNorm(groups, width, eps=GROUP_NORM_EPSILON)
        self["over_frames"] = nn.Conv2d(width, width, (3, 1), padding=(1, 0))
        self["over_bands"] = nn.Conv2d(width, width, (1, 3), padding=(0, 1))
        self["mixed"] = nn.Linear(width, width)
        self.mix = nn.Parameter(torch.empty(bands, bands))

    def forward(self, h: Tokens) -> Tokens:
        """Same shape in and out."""
        h = h + self["over_frames"](F.silu(self["norm_frames"](h)))
        h = h + self["over_bands"](F.silu(self["norm_bands"](h)))
        x = F.silu(self["norm_mix"](h)).permute(0, 2, 3, 1)
        return h + self["mixed"](self.mix.T @ x).permute(0, 3, 1, 2)


class BandUNet(nn.ModuleDict):
    """The U-Net whose levels halve the frames."""

    def __init__(self, config: conditioner.SpectralConditioner) -> None:
        super().__init__()
        bands, widths, groups = num_bands(config.bands), config.widths, config.groups
        self.config, self.deepest = config, len(widths) - 1
        for level, width in enumerate(widths):
            for side in ("encoder", "decoder") if level < self.deepest else ("encoder",):
                for block in range(config.blocks[level]):
                    self[f"{side}_block_{level}_{block}"] = BandBlock(width, bands, groups)
            if level < self.deepest:
                self[f"halve_{level}"] = nn.Conv2d(width, widths[level + 1], (2, 1), stride=(2, 1))
                self[f"double_{level}"] = nn.Linear(widths[level + 1], 2 * width)
        self["norm_out"] = nn.GroupNorm(groups, widths[0], eps=GROUP_NORM_EPSILON)

    def forward(self, h: Tokens) -> Tokens:
        """Same shape in and out."""
        frames = h.shape[2]
        h = F.pad(h, (0, 0, 0, -frames % 2**self.deepest))
        skips = []
        for level in range(self.deepest):
            h = self._level(h, level, "encoder")
            skips.append(h)
            h = self[f"halve_{level}"](h)
        h = self._level(h, self.deepest, "encoder")
        for level in reversed(range(self.deepest)):
            pairs = self[f"double_{level}"](h.permute(0, 2, 3, 1)).unflatten(3, (2, -1))
            h = pairs.transpose(2, 3).flatten(1, 2).permute(0, 3, 1, 2) + skips[level]
            h = self._level(h, level, "decoder")
        return F.silu(self["norm_out"](h[:, :, :frames]))

    def _level(self, h: Tokens, level: int, side: str) -> Tokens:
        for block in range(self.config.blocks[level]):
            h = self[f"{side}_block_{level}_{block}"](h)
        return h


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
