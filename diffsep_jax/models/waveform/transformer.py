"""Attention layers: `SelfAttention` of both networks, `TransformerLayer` of the conditioner."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from diffsep_jax.models.attention import Backend, attention
from diffsep_jax.models.layers import Dense


class SelfAttention(nn.Module):
    """x + attention(LayerNorm(x)): pre-norm, inner width `width`, no biases in the projections."""

    width: int
    heads: int
    backend: Backend = "auto"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch time channel"]) -> Float[Array, "batch time channel"]:
        h = _layer_norm(x, self.dtype, "norm")
        qkv = Dense(3 * self.width, use_bias=False, dtype=self.dtype, name="qkv")(h)
        query, key, value = _split_heads(qkv, self.heads)
        h = attention(query, key, value, self.backend).reshape(*x.shape[:2], self.width)
        return x + Dense(x.shape[-1], use_bias=False, dtype=self.dtype, name="out")(h)


class TransformerLayer(nn.Module):
    """Pre-norm self-attention with rotary positions, then a feed-forward of 4 x width with GELU."""

    heads: int
    backend: Backend = "auto"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch time width"]) -> Float[Array, "batch time width"]:
        width = x.shape[-1]
        h = _layer_norm(x, self.dtype, "attention_norm")
        h = Dense(3 * width, dtype=self.dtype, name="qkv")(h)
        query, key, value = _split_heads(h, self.heads)
        h = attention(rotary(query), rotary(key), value, self.backend).reshape(x.shape)
        x = x + Dense(width, dtype=self.dtype, name="out")(h)
        h = _layer_norm(x, self.dtype, "feed_forward_norm")
        h = nn.gelu(Dense(4 * width, dtype=self.dtype, name="expand")(h))
        return x + Dense(width, dtype=self.dtype, name="contract")(h)


def rotary(x: Float[Array, "batch time head dim"]) -> Float[Array, "batch time head dim"]:
    """Rotates pairs of channels by angles that grow with position (RoPE, Su et al. 2021)."""
    _, time, _, dim = x.shape
    frequencies = 10_000.0 ** (-jnp.arange(0, dim, 2, dtype=jnp.float32) / dim)
    angles = jnp.arange(time, dtype=jnp.float32)[:, None] * frequencies[None]
    cos, sin = jnp.cos(angles)[None, :, None], jnp.sin(angles)[None, :, None]
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate([first * cos - second * sin, first * sin + second * cos], -1)
    return rotated.astype(x.dtype)


def _layer_norm(x: Array, dtype: DTypeLike, name: str) -> Array:
    """LayerNorm with float32 statistics, returned in the compute type."""
    return nn.LayerNorm(name=name)(x.astype(jnp.float32)).astype(dtype)


def _split_heads(qkv: Array, heads: int) -> list[Array]:
    batch, time, width = qkv.shape
    return jnp.split(qkv.reshape(batch, time, 3 * heads, width // 3 // heads), 3, axis=2)
