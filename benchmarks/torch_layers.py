"""Layers of the networks in PyTorch, as functions of the JAX parameter tree.

Each layer takes the part of the tree that the linen module of the same name has, converted by
`to_torch`. Activations are `[batch, channel, time]`, in the transformer `[batch, time, width]`.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from diffsep_jax.models.layers import standard_normals

Audio = Float[Tensor, "batch time 2"]
Params = dict[str, Any]
"""A tree of dictionaries with tensors as leaves."""

LAYER_NORM_EPSILON = 1e-6  # Flax's
PER_BAND = ("embed_", "mask_")


def to_torch(params: Mapping[str, Any]) -> Params:
    """A JAX parameter tree as trainable tensors, in PyTorch's layout.

    Kernels are [in, out] and [tap, in, out] in Flax, [out, in] and [out, in, tap] in PyTorch. The
    spectral networks' kernels with one matrix for each band stay as they are.
    """

    def convert(path: tuple[Any, ...], value: Any) -> Tensor:
        array = np.array(value, np.float32)
        *parents, name = (key.key for key in path)
        if name == "kernel" and not parents[-1].startswith(PER_BAND):
            array = np.ascontiguousarray(array.T)
        return torch.from_numpy(array).requires_grad_()

    return jax.tree_util.tree_map_with_path(convert, dict(params))


def dense(params: Params, x: Tensor) -> Tensor:
    """Over the last axis."""
    return F.linear(x, params["kernel"], params.get("bias"))


def pointwise(params: Params, x: Float[Tensor, "batch channel time"]) -> Tensor:
    """A dense layer over the channels: a convolution of one tap."""
    return F.conv1d(x, params["kernel"][:, :, None], params["bias"])


def conv(params: Params, x: Float[Tensor, "batch channel time"]) -> Tensor:
    """A convolution over time that keeps the length."""
    return F.conv1d(x, params["kernel"], params["bias"], padding=params["kernel"].shape[2] // 2)


def group_norm(params: Params, x: Tensor, groups: int) -> Tensor:
    """Channels second."""
    return F.group_norm(x, groups, params["scale"], params["bias"])


def downsample(params: Params, x: Float[Tensor, "batch channel time"], factor: int) -> Tensor:
    """Time folded into channels, then a convolution of one tap."""
    folded = x.unflatten(2, (-1, factor)).permute(0, 3, 1, 2).flatten(1, 2)
    return pointwise(params["dense"], folded)


def upsample(params: Params, x: Float[Tensor, "batch channel frame"], factor: int) -> Tensor:
    """A convolution of one tap, then channels unfolded to time."""
    h = pointwise(params["dense"], x).unflatten(1, (factor, -1))
    return h.permute(0, 2, 3, 1).flatten(2)


def residual_block(params: Params, x: Tensor, groups: int) -> Tensor:
    """2 x [GroupNorm, SiLU, Conv k3] + identity."""
    h = x
    for i in range(2):
        h = conv(params[f"conv_{i}"], F.silu(group_norm(params[f"norm_{i}"], h, groups)))
    return x + h


def bottleneck_block(params: Params, x: Tensor, groups: int) -> Tensor:
    """3 x [PReLU, GroupNorm, Conv] + identity."""
    h = x
    for i in range(3):
        h = F.prelu(h, params[f"prelu_{i}"]["slope"])
        h = conv(params[f"conv_{i}"], group_norm(params[f"norm_{i}"], h, groups))
    return x + h


def film(params: Params, x: Tensor, embedding: Float[Tensor, "batch width"]) -> Tensor:
    """Feature-wise scale and shift by an embedding."""
    scale, shift = dense(params["dense"], embedding)[:, :, None].chunk(2, dim=1)
    return x * (1 + scale) + shift


def noise_level_embedding(
    params: Params, sigma: Float[Tensor, "batch"], frequencies: Float[Tensor, "feature"]
) -> Float[Tensor, "batch width"]:
    """Fourier features, then a 3-layer MLP with GELU."""
    angles = 2 * math.pi * sigma[:, None] * frequencies
    h = torch.cat([angles.sin(), angles.cos()], dim=1)
    for i in range(3):
        h = F.gelu(dense(params[f"dense_{i}"], h), approximate="tanh")
    return h


def fourier_frequencies(features: int, scale: float) -> Float[Tensor, "feature"]:
    """Those of `diffsep_jax.models.layers.NoiseLevelEmbedding`."""
    return torch.from_numpy(np.float32(scale) * standard_normals(features // 2))


def self_attention(params: Params, x: Float[Tensor, "batch channel time"], heads: int) -> Tensor:
    """x + attention(LayerNorm(x))."""
    qkv = dense(params["qkv"], _layer_norm(params["norm"], x.transpose(1, 2)))
    return x + dense(params["out"], _attention(*_split_heads(qkv, heads))).transpose(1, 2)


def transformer_layer(params: Params, x: Float[Tensor, "batch time width"], heads: int) -> Tensor:
    """Attention with rotary positions, then feed-forward, both pre-norm."""
    qkv = dense(params["qkv"], _layer_norm(params["attention_norm"], x))
    query, key, value = _split_heads(qkv, heads)
    x = x + dense(params["out"], _attention(_rotary(query), _rotary(key), value))
    h = dense(params["expand"], _layer_norm(params["feed_forward_norm"], x))
    return x + dense(params["contract"], F.gelu(h, approximate="tanh"))


def fold_audio(audio: Audio, patch_size: int) -> Float[Tensor, "batch channel frame"]:
    """Patches of samples as channels; the layout of the networks."""
    return audio.reshape(len(audio), -1, 2 * patch_size).transpose(1, 2).contiguous()


def unfold_audio(x: Float[Tensor, "batch channel frame"]) -> Audio:
    """The inverse of `fold_audio`."""
    return x.transpose(1, 2).reshape(len(x), -1, 2)


def _layer_norm(params: Params, x: Float[Tensor, "batch time width"]) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], params["scale"], params["bias"], LAYER_NORM_EPSILON)


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
