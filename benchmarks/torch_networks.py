"""The waveform networks and their train step in eager PyTorch, to check ours against and to time.

As PyTorch is usually run: activations `[batch, channel, time]`, convolutions for everything outside
attention, `F.scaled_dot_product_attention`, the fused AdamW. Audio is `[batch, time, 2]`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from benchmarks.torch_layers import (
    Audio,
    Params,
    bottleneck_block,
    conv,
    dense,
    downsample,
    film,
    fold_audio,
    fourier_frequencies,
    group_norm,
    noise_level_embedding,
    pointwise,
    residual_block,
    self_attention,
    to_torch,
    transformer_layer,
    unfold_audio,
    upsample,
)
from diffsep_jax.losses import LossWeights
from diffsep_jax.models.model import SeparationModel
from diffsep_jax.models.waveform.conditioner import Conditioner
from diffsep_jax.models.waveform.generator import Generator
from diffsep_jax.training.config import TrainConfig


class TorchModel:
    """`SeparationModel` in PyTorch: the same parameters, the same outputs."""

    def __init__(self, model: SeparationModel, params: Mapping[str, Any]) -> None:
        """`params` are ours; those of the L_lat head may be missing."""
        assert isinstance(model.generator, Generator)
        assert isinstance(model.conditioner, Conditioner)
        self.model, self.generator, self.conditioner = model, model.generator, model.conditioner
        self.params = to_torch(params)
        self._frequencies = fourier_frequencies(
            self.generator.fourier_features, self.generator.fourier_scale
        )

    def condition(self, mixture: Audio) -> tuple[list[Tensor], Audio, Audio | None]:
        """Embeddings `[batch, channel, frame]`, shallowest first; direct and latent estimate."""
        c, params = self.conditioner, self.params["conditioner"]
        levels = range(len(c.factors))

        def run_level(h: Tensor, level: int, side: str) -> Tensor:
            h = bottleneck_block(params[f"{side}_block_{level}"], h, c.groups)
            if level < len(levels) - c.attention_levels:
                return h
            return self_attention(params[f"{side}_attention_{level}"], h, c.attention_heads)

        h = conv(params["conv_in"], fold_audio(mixture, c.patch_size))
        encoded: list[Tensor] = []
        summaries: list[Tensor] = []
        for level, factor in enumerate(c.factors):
            h = run_level(h, level, "encoder")
            encoded.append(h)
            pooled = F.relu(group_norm(params[f"pool_norm_{level}"], h, c.groups))
            pooled = F.avg_pool1d(pooled, math.prod(c.factors[level:]))
            summaries.append(pointwise(params[f"pool_dense_{level}"], pooled))
            h = downsample(params[f"down_{level}"], h, factor)
        h = h + sum(summaries)
        if c.transformer_layers:
            inner = dense(params["transformer_in"], h.transpose(1, 2))
            for i in range(c.transformer_layers):
                inner = transformer_layer(params[f"transformer_{i}"], inner, c.transformer_heads)
            h = h + dense(params["transformer_out"], inner).transpose(1, 2)
        latent_estimate = None
        if "latent_head" in params:
            latent_estimate = unfold_audio(pointwise(params["latent_head"], h))

        embeddings: list[Tensor] = []
        for level in reversed(levels):
            h = upsample(params[f"up_{level}"], h, c.factors[level])
            if c.skips == "add":
                h = h + encoded[level]
            elif c.skips == "gate":
                h = h + torch.sigmoid(pointwise(params[f"gate_{level}"], h)) * encoded[level]
            h = run_level(h, level, "decoder")
            if level >= len(levels) - c.injection_levels:
                embeddings.insert(0, h)
        return embeddings, unfold_audio(pointwise(params["estimate_head"], h)), latent_estimate

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
        output = self._generate(x, sigma, mixture, embeddings, estimate)
        error = self.model.estimate_error
        if error is None:
            return output
        alpha, beta = alpha_beta(sigma)
        variance = alpha**2 * error**2 + beta**2
        slope = alpha * beta * (1 - error**2) / variance
        implied = slope * (x - alpha * estimate) - beta * estimate
        return implied + error * torch.rsqrt(variance) * output

    def _generate(
        self,
        x: Audio,
        sigma: Float[Tensor, "batch"],
        mixture: Audio,
        embeddings: Sequence[Tensor],
        estimate: Audio,
    ) -> Audio:
        """The generator's output, before preconditioning."""
        c, params = self.generator, self.params["generator"]
        levels = range(len(c.factors))
        first_injection = len(levels) - c.injection_levels
        noise_level = noise_level_embedding(params["noise_level"], sigma, self._frequencies)

        def run_level(h: Tensor, level: int, side: str) -> Tensor:
            if level >= first_injection:
                name = f"{side}_inject_{level}"
                embedding = embeddings[level - first_injection]
                embedding = pointwise(params[f"{name}_embedding"], embedding)
                h = pointwise(params[f"{name}_join"], torch.cat([h, embedding], dim=1))
            for i in range(c.blocks[level]):
                h = residual_block(params[f"{side}_block_{level}_{i}"], h, c.groups)
            h = film(params[f"{side}_film_{level}"], h, noise_level)
            if level < len(levels) - c.attention_levels:
                return h
            return self_attention(params[f"{side}_attention_{level}"], h, c.attention_heads)

        inputs = [x, *([mixture] if c.use_mixture else []), *([estimate] if c.use_estimate else [])]
        h = torch.cat([fold_audio(each, c.patch_size) for each in inputs], dim=1)
        h = conv(params["conv_in"], h)
        skips = []
        for level, factor in enumerate(c.factors):
            h = run_level(h, level, "encoder")
            skips.append(h)
            h = downsample(params[f"down_{level}"], h, factor)
        for level in reversed(levels):
            h = upsample(params[f"up_{level}"], h, c.factors[level])
            h = run_level(h + skips[level], level, "decoder")
        return unfold_audio(conv(params["conv_out"], h))

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
        assert latent_estimate is not None
        alpha, beta = alpha_beta(sigma)
        v_hat = self.velocity(alpha * vocals + beta * noise, sigma, mixture, embeddings, estimate)
        total = (
            _mean_square(v_hat - (alpha * noise - beta * vocals))
            + weights.latent * _mean_square(latent_estimate - vocals)
            + weights.reconstruction * _mean_square(estimate - vocals)
        )
        return torch.where(silent, 0.0, total).mean()


class Optimizer:
    """Clipped AdamW and the moving average, as `diffsep_jax.training` has them.

    The learning rate is the peak of the schedule.
    """

    def __init__(self, params: Params, config: TrainConfig) -> None:
        self.params, self.config, self.steps_taken = params, config, 0
        optimizer = config.optimizer
        self.parameters: list[Tensor] = jax.tree.leaves(params)
        groups = [
            {
                "params": [p for p in self.parameters if (p.ndim > 1) == is_kernel],
                "weight_decay": optimizer.weight_decay if is_kernel else 0.0,
            }
            for is_kernel in (True, False)
        ]
        betas = (optimizer.b1, optimizer.b2)
        self.adamw = torch.optim.AdamW(groups, optimizer.learning_rate, betas, fused=True)
        self.ema = [p.detach().clone() for p in self.parameters]

    def descend(self, loss: Float[Tensor, ""]) -> None:
        """Backward pass, update and average."""
        self.adamw.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, self.config.optimizer.clip_norm, foreach=True)
        self.adamw.step()
        half_life = self.config.ema_half_life * (1 + self.steps_taken)
        decay = min(self.config.ema_decay, 2 ** (-1 / half_life))
        with torch.no_grad():
            torch._foreach_lerp_(self.ema, self.parameters, 1 - decay)
        self.steps_taken += 1


def alpha_beta(sigma: Float[Tensor, "batch"]) -> tuple[Tensor, Tensor]:
    """Weights of signal and noise, `[batch, 1, 1]`."""
    turn = sigma[:, None, None]
    return torch.sin(math.pi / 2 * (1 - turn)), torch.sin(math.pi / 2 * turn)


def _mean_square(error: Audio) -> Float[Tensor, "batch"]:
    return error.square().mean(dim=(1, 2))
