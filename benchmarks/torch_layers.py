"""Building blocks of the networks in `torch_networks`: ours of `diffsep_jax.models`, in PyTorch.

Activations are `[batch, channel, time]` but in the transformer, which has `[batch, time, width]`.
"""

import math

import jax
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

LAYER_NORM_EPSILON = 1e-6  # Flax's

Audio = Float[Tensor, "batch time 2"]


class Downsample(nn.Module):
    """A convolution with kernel = stride = factor."""

    def __init__(self, channels: int, out_channels: int, factor: int) -> None:
        super().__init__()
        self.dense = nn.Conv1d(channels, out_channels, factor, stride=factor)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, channel, time]` to `[batch, out channel, time / factor]`."""
        return self.dense(x)


class Upsample(nn.Module):
    """A 1x1 convolution, then channels unfolded to time; unlike a transposed one's, its bias
    differs between the frames of an input frame."""

    def __init__(self, channels: int, out_channels: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.dense = nn.Conv1d(channels, factor * out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, channel, frame]` to `[batch, out channel, frame * factor]`."""
        h = self.dense(x).unflatten(1, (self.factor, -1))
        return h.permute(0, 2, 3, 1).flatten(2)


class ResidualBlock(nn.ModuleDict):
    """2 x [GroupNorm, SiLU, Conv k3] + identity."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        for i in range(2):
            self[f"norm_{i}"] = nn.GroupNorm(groups, channels)
            self[f"conv_{i}"] = nn.Conv1d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape in and out."""
        h = x
        for i in range(2):
            h = self[f"conv_{i}"](F.silu(self[f"norm_{i}"](h)))
        return x + h


class BottleneckBlock(nn.ModuleDict):
    """3 x [PReLU, GroupNorm, Conv] (3, 5, 3) of half width + identity."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        half = channels // 2
        for i, (inputs, outputs, kernel) in enumerate(
            ((channels, half, 3), (half, half, 5), (half, channels, 3))
        ):
            self[f"prelu_{i}"] = nn.PReLU()
            self[f"norm_{i}"] = nn.GroupNorm(groups, inputs)
            self[f"conv_{i}"] = nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape in and out."""
        h = x
        for i in range(3):
            h = self[f"conv_{i}"](self[f"norm_{i}"](self[f"prelu_{i}"](h)))
        return x + h


class FiLM(nn.Module):
    """Feature-wise scale and shift by an embedding."""

    def __init__(self, embedding_width: int, channels: int) -> None:
        super().__init__()
        self.dense = nn.Linear(embedding_width, 2 * channels)

    def forward(self, x: Tensor, embedding: Float[Tensor, "batch width"]) -> Tensor:
        """Same shape as x."""
        scale, shift = self.dense(embedding)[:, :, None].chunk(2, dim=1)
        return x * (1 + scale) + shift


class NoiseLevelEmbedding(nn.Module):
    """Fourier features with the frequencies of the JAX model, then a 3-layer MLP with GELU."""

    frequencies: Tensor

    def __init__(self, features: int, width: int, scale: float) -> None:
        super().__init__()
        key = jax.random.key(0, impl="threefry2x32")
        frequencies = np.array(scale * jax.random.normal(key, (features // 2,)))
        self.register_buffer("frequencies", torch.from_numpy(frequencies), persistent=False)
        self.dense_0 = nn.Linear(features, width)
        self.dense_1 = nn.Linear(width, width)
        self.dense_2 = nn.Linear(width, width)

    def forward(self, sigma: Float[Tensor, "batch"]) -> Float[Tensor, "batch width"]:
        """The embedding of each noise level."""
        angles = 2 * math.pi * sigma[:, None] * self.frequencies
        h = torch.cat([angles.sin(), angles.cos()], dim=1)
        for dense in (self.dense_0, self.dense_1, self.dense_2):
            h = F.gelu(dense(h), approximate="tanh")
        return h


class SelfAttention(nn.Module):
    """x + attention(LayerNorm(x)) over `[batch, channel, time]`."""

    def __init__(self, channels: int, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels, eps=LAYER_NORM_EPSILON)
        self.qkv = nn.Linear(channels, 3 * width, bias=False)
        self.out = nn.Linear(width, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape in and out."""
        qkv = self.qkv(self.norm(x.transpose(1, 2)))
        return x + self.out(_attention(*_split_heads(qkv, self.heads))).transpose(1, 2)


class TransformerLayer(nn.Module):
    """Attention with rotary positions, then feed-forward, both pre-norm: `[batch, time, width]`."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPSILON)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.feed_forward_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPSILON)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape in and out."""
        query, key, value = _split_heads(self.qkv(self.attention_norm(x)), self.heads)
        x = x + self.out(_attention(_rotary(query), _rotary(key), value))
        h = F.gelu(self.expand(self.feed_forward_norm(x)), approximate="tanh")
        return x + self.contract(h)


def fold_audio(audio: Audio, patch_size: int) -> Float[Tensor, "batch channel frame"]:
    """Patches of samples as channels; the layout of the networks."""
    return audio.reshape(len(audio), -1, 2 * patch_size).transpose(1, 2).contiguous()


def unfold_audio(x: Float[Tensor, "batch channel frame"]) -> Audio:
    """The inverse of `fold_audio`."""
    return x.transpose(1, 2).reshape(len(x), -1, 2)


def _split_heads(qkv: Tensor, heads: int) -> tuple[Tensor, ...]:
    """`[batch, time, 3 * width]` to three of `[batch, head, time, dim]`."""
    return qkv.unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


def _attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """`[batch, time, width]`, the heads joined."""
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


def _rotary(x: Float[Tensor, "batch head time dim"]) -> Tensor:
    time, dim = x.shape[2:]
    frequencies = 10_000.0 ** (-torch.arange(0, dim, 2) / dim)
    angles = torch.arange(time)[:, None] * frequencies
    first, second = x.chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)
