"""The two networks and their train step in eager PyTorch, to check ours against and to time beside.

Written as PyTorch is usually written: activations `[batch, channel, time]`, `nn.Conv1d` for every
convolution and every Dense outside attention, `nn.GroupNorm`, `F.scaled_dot_product_attention`, the
fused AdamW. Audio goes in and out as `[batch, time, 2]`. Modules carry the names of the JAX
parameter tree, so `load_params` needs one rule for each kind of layer.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from flax.traverse_util import flatten_dict
from jaxtyping import Float
from torch import Tensor, nn

from benchmarks.torch_layers import (
    Audio,
    BottleneckBlock,
    Downsample,
    FiLM,
    NoiseLevelEmbedding,
    ResidualBlock,
    SelfAttention,
    TransformerLayer,
    Upsample,
    fold_audio,
    unfold_audio,
)
from diffsep_jax.losses import LossWeights
from diffsep_jax.models import conditioner, generator
from diffsep_jax.models.model import SeparationModel
from diffsep_jax.training.config import TrainConfig

OUR_LAYOUT = {"kernel", "offset", "mix"}
"""Last names of the parameters that no layer of PyTorch has: they lie as ours do."""


class WithOurParams(nn.Module):
    """A module whose parameters carry the names of the JAX parameter tree."""

    def load_params(self, params: Mapping[str, Any]) -> None:
        """Copies a JAX parameter tree, or its flat form as model.safetensors holds it.

        The L_lat head may be missing, as it is from exported models. Raises ValueError if another
        parameter is missing, is unknown, or has another size.
        """
        flat = flatten_dict(params, sep="/")
        named = dict(self.named_parameters())
        theirs = {_jax_name(name): name for name in named}
        missing = {name for name in theirs.keys() - flat.keys() if "/latent_head/" not in name}
        unknown = flat.keys() - theirs.keys()
        if missing or unknown:
            raise ValueError(f"missing parameters {missing or 'none'}; unknown {unknown or 'none'}")
        with torch.no_grad():
            for name, value in flat.items():
                parameter, ours = named[theirs[name]], np.array(value, np.float32)
                if theirs[name].split(".")[-1] in OUR_LAYOUT:
                    ours = ours.reshape(parameter.shape)
                else:
                    # Flax: [in, out] or [kernel, in, out], a fold's kernel being
                    # [kernel * in, out].
                    ours = ours.reshape(tuple(reversed(parameter.shape))).transpose()
                parameter.copy_(torch.from_numpy(np.ascontiguousarray(ours)))


class TorchModel(WithOurParams):
    """`SeparationModel` in PyTorch: the same fields, the same parameters, the same outputs."""

    def __init__(self, model: SeparationModel) -> None:
        super().__init__()
        self.model = model
        assert isinstance(model.generator, generator.Generator)
        assert isinstance(model.conditioner, conditioner.Conditioner)
        self.conditioner = Conditioner(model.conditioner)
        embedding_widths = model.conditioner.widths[:-1][-model.generator.injection_levels :]
        self.generator = Generator(model.generator, embedding_widths)

    def condition(self, mixture: Audio) -> tuple[list[Tensor], Audio, Audio]:
        """Embeddings `[batch, channel, frame]`, shallowest first; direct and latent estimate."""
        return self.conditioner(mixture)

    def velocity(
        self,
        x: Audio,
        sigma: Float[Tensor, "batch"],
        mixture: Audio,
        embeddings: Sequence[Tensor],
        estimate: Audio,
    ) -> Audio:
        """v_hat of equation (3), with the preconditioning about the direct estimate if it is on."""
        estimate = estimate.detach()
        output = self.generator(x, sigma, embeddings, mixture, estimate)
        error = self.model.estimate_error
        if error is None:
            return output
        alpha, beta = alpha_beta(sigma)
        variance = alpha**2 * error**2 + beta**2
        slope = alpha * beta * (1 - error**2) / variance
        implied = slope * (x - alpha * estimate) - beta * estimate
        return implied + error * torch.rsqrt(variance) * output

    def loss(
        self,
        mixture: Audio,
        vocals: Audio,
        sigma: Float[Tensor, "batch"],
        noise: Audio,
        weights: LossWeights,
    ) -> Float[Tensor, ""]:
        """L_diff + w_lat L_lat + w_rec L_rec, mean over the batch; silence counts as 0."""
        silent = (mixture == 0).all(dim=(1, 2))
        mixture = torch.where(silent[:, None, None], noise, mixture)
        embeddings, estimate, latent_estimate = self.condition(mixture)
        alpha, beta = alpha_beta(sigma)
        v_hat = self.velocity(alpha * vocals + beta * noise, sigma, mixture, embeddings, estimate)
        total = (
            _mean_square(v_hat - (alpha * noise - beta * vocals))
            + weights.latent * _mean_square(latent_estimate - vocals)
            + weights.reconstruction * _mean_square(estimate - vocals)
        )
        return torch.where(silent, 0.0, total).mean()


class Trainer:
    """The train step: clipped AdamW and the moving average, as `diffsep_jax.training` has them.

    The learning rate is the peak of the schedule.
    """

    def __init__(self, model: Any, config: TrainConfig) -> None:
        self.model, self.config, self.steps_taken = model, config, 0
        optimizer = config.optimizer
        rates = {
            "generator": optimizer.learning_rate * optimizer.generator_learning_rate_ratio,
            "conditioner": optimizer.learning_rate,
        }
        decay = {"weight_decay": optimizer.weight_decay}
        groups = []
        for name, network in model.named_children():
            rate, parameters = rates[name], list(network.parameters())
            kernels = [p for p in parameters if p.ndim > 1]
            others = [p for p in parameters if p.ndim <= 1]
            groups += [{"params": kernels, "lr": rate} | decay, {"params": others, "lr": rate}]
        self.optimizer = torch.optim.AdamW(
            groups, betas=(optimizer.b1, optimizer.b2), weight_decay=0.0, fused=True
        )
        self.parameters: list[Tensor] = list(model.parameters())
        self.ema = [p.detach().clone() for p in self.parameters]

    def step(self, mixture: Audio, vocals: Audio) -> Float[Tensor, ""]:
        """One step with fresh noise and noise levels; the loss."""
        batch = len(vocals)
        sigma = torch.rand(batch)
        if self.config.stratified_sigma:
            sigma = (torch.randperm(batch) + sigma) / batch
        rms = self.model.model.target_rms
        return self.update(mixture * rms, vocals * rms, sigma, torch.randn_like(vocals))

    def update(
        self, mixture: Audio, vocals: Audio, sigma: Float[Tensor, "batch"], noise: Audio
    ) -> Float[Tensor, ""]:
        """One step with the noise given; the loss."""
        return self.descend(
            self.model.loss(mixture, vocals, sigma, noise, self.config.loss_weights)
        )

    def descend(self, loss: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """Backward pass, update and average; the loss."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, self.config.optimizer.clip_norm, foreach=True)
        self.optimizer.step()
        half_life = self.config.ema_half_life * (1 + self.steps_taken)
        decay = min(self.config.ema_decay, 2 ** (-1 / half_life))
        with torch.no_grad():
            torch._foreach_lerp_(self.ema, self.parameters, 1 - decay)
        self.steps_taken += 1
        return loss.detach()


class Conditioner(nn.ModuleDict):
    """From the mixture to the embeddings and the two estimates of the vocals."""

    def __init__(self, config: conditioner.Conditioner) -> None:
        super().__init__()
        self.config = config
        c, widths, groups = config, config.widths, config.groups
        self["conv_in"] = nn.Conv1d(2 * c.patch_size, widths[0], 3, padding=1)
        for level, factor in enumerate(c.factors):
            here, below = widths[level], widths[level + 1]
            for side in ("encoder", "decoder"):
                self[f"{side}_block_{level}"] = BottleneckBlock(here, groups)
                if level >= len(c.factors) - c.attention_levels:
                    self[f"{side}_attention_{level}"] = SelfAttention(
                        here, c.attention_width, c.attention_heads
                    )
            self[f"pool_norm_{level}"] = nn.GroupNorm(groups, here)
            self[f"pool_dense_{level}"] = nn.Conv1d(here, widths[-1], 1)
            self[f"down_{level}"] = Downsample(here, below, factor)
            self[f"up_{level}"] = Upsample(below, here, factor)
            if c.skips == "gate":
                self[f"gate_{level}"] = nn.Conv1d(here, here, 1)
        if c.transformer_layers:
            self["transformer_in"] = nn.Linear(widths[-1], c.transformer_width)
            self["transformer_out"] = nn.Linear(c.transformer_width, widths[-1])
        for i in range(c.transformer_layers):
            self[f"transformer_{i}"] = TransformerLayer(c.transformer_width, c.transformer_heads)
        self["latent_head"] = nn.Conv1d(widths[-1], 2 * c.stride, 1)
        self["estimate_head"] = nn.Conv1d(widths[0], 2 * c.patch_size, 1)

    def forward(self, mixture: Audio) -> tuple[list[Tensor], Audio, Audio]:
        """See `TorchModel.condition`."""
        c = self.config
        levels = range(len(c.factors))
        h = self["conv_in"](fold_audio(mixture, c.patch_size))
        encoded: list[Tensor] = []
        summaries: list[Tensor] = []
        for level in levels:
            h = self._level(h, level, "encoder")
            encoded.append(h)
            pooled = F.relu(self[f"pool_norm_{level}"](h))
            pooled = F.avg_pool1d(pooled, math.prod(c.factors[level:]))
            summaries.append(self[f"pool_dense_{level}"](pooled))
            h = self[f"down_{level}"](h)
        h = h + sum(summaries)
        if c.transformer_layers:
            inner = self["transformer_in"](h.transpose(1, 2))
            for i in range(c.transformer_layers):
                inner = self[f"transformer_{i}"](inner)
            h = h + self["transformer_out"](inner).transpose(1, 2)
        latent_estimate = unfold_audio(self["latent_head"](h))

        embeddings: list[Tensor] = []
        for level in reversed(levels):
            h = self[f"up_{level}"](h)
            if c.skips == "add":
                h = h + encoded[level]
            elif c.skips == "gate":
                h = h + torch.sigmoid(self[f"gate_{level}"](h)) * encoded[level]
            h = self._level(h, level, "decoder")
            if level >= len(levels) - c.injection_levels:
                embeddings.insert(0, h)
        return embeddings, unfold_audio(self["estimate_head"](h)), latent_estimate

    def _level(self, h: Tensor, level: int, side: str) -> Tensor:
        h = self[f"{side}_block_{level}"](h)
        name = f"{side}_attention_{level}"
        return self[name](h) if name in self else h


class Generator(nn.ModuleDict):
    """From the noisy vocals, the noise level and the embeddings to the network's output."""

    def __init__(self, config: generator.Generator, embedding_widths: Sequence[int]) -> None:
        super().__init__()
        self.config = config
        c, widths = config, config.widths
        self.first_injection = len(c.factors) - c.injection_levels
        inputs = 1 + c.use_mixture + c.use_estimate
        self["noise_level"] = NoiseLevelEmbedding(
            c.fourier_features, c.embedding_width, c.fourier_scale
        )
        self["conv_in"] = nn.Conv1d(2 * inputs * c.patch_size, widths[0], 3, padding=1)
        for level, factor in enumerate(c.factors):
            here, below = widths[level], widths[level + 1]
            for side in ("encoder", "decoder"):
                if level >= self.first_injection:
                    told = embedding_widths[level - self.first_injection]
                    self[f"{side}_inject_{level}_embedding"] = nn.Conv1d(told, here, 1)
                    self[f"{side}_inject_{level}_join"] = nn.Conv1d(2 * here, here, 1)
                for i in range(c.blocks[level]):
                    self[f"{side}_block_{level}_{i}"] = ResidualBlock(here, c.groups)
                self[f"{side}_film_{level}"] = FiLM(c.embedding_width, here)
                if level >= len(c.factors) - c.attention_levels:
                    self[f"{side}_attention_{level}"] = SelfAttention(
                        here, c.attention_width, c.attention_heads
                    )
            self[f"down_{level}"] = Downsample(here, below, factor)
            self[f"up_{level}"] = Upsample(below, here, factor)
        self["conv_out"] = nn.Conv1d(widths[0], 2 * c.patch_size, 3, padding=1)

    def forward(
        self,
        x: Audio,
        sigma: Float[Tensor, "batch"],
        embeddings: Sequence[Tensor],
        mixture: Audio,
        estimate: Audio,
    ) -> Audio:
        """The network's output, before preconditioning."""
        c = self.config
        levels = range(len(c.factors))
        told = self["noise_level"](sigma)

        def run_level(h: Tensor, level: int, side: str) -> Tensor:
            if level >= self.first_injection:
                name = f"{side}_inject_{level}"
                embedding = self[f"{name}_embedding"](embeddings[level - self.first_injection])
                h = self[f"{name}_join"](torch.cat([h, embedding], dim=1))
            for i in range(c.blocks[level]):
                h = self[f"{side}_block_{level}_{i}"](h)
            h = self[f"{side}_film_{level}"](h, told)
            name = f"{side}_attention_{level}"
            return self[name](h) if name in self else h

        inputs = [x, *([mixture] if c.use_mixture else []), *([estimate] if c.use_estimate else [])]
        h = torch.cat([fold_audio(each, c.patch_size) for each in inputs], dim=1)
        h = self["conv_in"](h)
        skips = []
        for level in levels:
            h = run_level(h, level, "encoder")
            skips.append(h)
            h = self[f"down_{level}"](h)
        for level in reversed(levels):
            h = run_level(self[f"up_{level}"](h) + skips[level], level, "decoder")
        return unfold_audio(self["conv_out"](h))


def alpha_beta(sigma: Float[Tensor, "batch"]) -> tuple[Tensor, Tensor]:
    """Weights of signal and noise, `[batch, 1, 1]`."""
    turn = sigma[:, None, None]
    return torch.sin(math.pi / 2 * (1 - turn)), torch.sin(math.pi / 2 * turn)


def _mean_square(error: Audio) -> Float[Tensor, "batch"]:
    return error.square().mean(dim=(1, 2))


def _jax_name(name: str) -> str:
    """generator.conv_in.weight -> generator/conv_in/kernel."""
    *path, leaf = name.split(".")
    if leaf == "weight":
        leaf = "scale" if "norm" in path[-1] else "slope" if "prelu" in path[-1] else "kernel"
    return "/".join([*path, "bias" if leaf == "offset" else leaf])
