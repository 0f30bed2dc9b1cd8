"""Self-attention that never holds a score matrix of more than `QUERY_BLOCK` queries.

One function, `attention`, and the two modules that call it: the networks' own `SelfAttention` and
the conditioner's rotary `TransformerLayer`.

Backends: `plain` forms the whole score matrix, for short sequences on accelerators; `blockwise`
goes head by head and block of queries by block of queries and recomputes the scores in the backward
pass, so memory is linear in time in both directions. On the CPU `blockwise` also is the faster.
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

Backend = Literal["auto", "plain", "blockwise"]

MAX_PLAIN_POSITIONS = 2048
QUERY_BLOCK = 1024


def attention(
    query: Float[Array, "batch time head dim"],
    key: Float[Array, "batch time head dim"],
    value: Float[Array, "batch time head dim"],
    backend: Backend = "auto",
) -> Float[Array, "batch time head dim"]:
    """softmax(q k^T / sqrt(dim)) v, over all positions, softmax in float32.

    Raises ValueError if `plain` is asked for more than 2,048 positions.
    """
    time = query.shape[1]
    if backend == "auto":
        on_cpu = jax.default_backend() == "cpu"
        backend = "blockwise" if on_cpu or time > MAX_PLAIN_POSITIONS else "plain"
    if backend == "blockwise":
        return _blockwise(query, key, value)
    if time > MAX_PLAIN_POSITIONS:
        raise ValueError(
            f"plain attention over {time} positions would hold a score matrix of that size squared;"
            f" use blockwise over {MAX_PLAIN_POSITIONS}"
        )
    heads_first = (x.transpose(0, 2, 1, 3) for x in (query, key, value))
    return _attend(*heads_first).transpose(0, 2, 1, 3)


def _attend(query: Array, key: Array, value: Array) -> Array:
    """Attention of `[..., query, dim]` over `[..., time, dim]`."""
    scores = jnp.einsum("...qd,...kd->...qk", query, key, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(scores * query.shape[-1] ** -0.5, axis=-1)
    return jnp.einsum("...qk,...kd->...qd", weights.astype(value.dtype), value)


def _blockwise(query: Array, key: Array, value: Array) -> Array:
    batch, time, heads, dim = query.shape
    block = min(time, QUERY_BLOCK)
    padding = -time % block
    blocks = jnp.pad(query, ((0, 0), (0, padding), (0, 0), (0, 0)))
    blocks = blocks.reshape(batch, -1, block, heads, dim).transpose(3, 1, 0, 2, 4)

    def one_head(head: tuple[Array, Array, Array]) -> Array:
        head_blocks, head_key, head_value = head
        attend = jax.checkpoint(lambda q: _attend(q, head_key, head_value))
        return jax.lax.map(attend, head_blocks)

    heads_first = (x.transpose(2, 0, 1, 3) for x in (key, value))
    out = jax.lax.map(one_head, (blocks, *heads_first))  # [head, block, batch, query, dim]
    out = out.transpose(2, 1, 3, 0, 4).reshape(batch, time + padding, heads, dim)
    return out[:, :time]


class SelfAttention(nn.Module):
    """x + attention(LayerNorm(x)): pre-norm, inner width `width`, no biases in the projections."""

    width: int
    heads: int
    backend: Backend = "auto"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch time channel"]) -> Float[Array, "batch time channel"]:
        h = _layer_norm(x, self.dtype, "norm")
        qkv = nn.Dense(3 * self.width, use_bias=False, dtype=self.dtype, name="qkv")(h)
        query, key, value = _split_heads(qkv, self.heads)
        h = attention(query, key, value, self.backend).reshape(*x.shape[:2], self.width)
        return x + nn.Dense(x.shape[-1], use_bias=False, dtype=self.dtype, name="out")(h)


class TransformerLayer(nn.Module):
    """Pre-norm self-attention with rotary positions, then a feed-forward of 4 x width with GELU."""

    heads: int
    backend: Backend = "auto"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch time width"]) -> Float[Array, "batch time width"]:
        width = x.shape[-1]
        h = _layer_norm(x, self.dtype, "attention_norm")
        h = nn.Dense(3 * width, dtype=self.dtype, name="qkv")(h)
        query, key, value = _split_heads(h, self.heads)
        h = attention(rotary(query), rotary(key), value, self.backend).reshape(x.shape)
        x = x + nn.Dense(width, dtype=self.dtype, name="out")(h)
        h = _layer_norm(x, self.dtype, "feed_forward_norm")
        h = nn.gelu(nn.Dense(4 * width, dtype=self.dtype, name="expand")(h))
        return x + nn.Dense(width, dtype=self.dtype, name="contract")(h)


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
    """LayerNorm with float32 statistics, handed on in the compute type."""
    return nn.LayerNorm(name=name)(x.astype(jnp.float32)).astype(dtype)


def _split_heads(qkv: Array, heads: int) -> list[Array]:
    batch, time, width = qkv.shape
    return jnp.split(qkv.reshape(batch, time, 3 * heads, width // 3 // heads), 3, axis=2)
