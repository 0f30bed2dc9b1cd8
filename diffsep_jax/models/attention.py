"""Self-attention that never holds a score matrix of more than `QUERY_BLOCK` queries.

Backends: `plain` forms the whole score matrix, for short sequences on accelerators; `blockwise`
goes head by head and block of queries by block of queries and recomputes the scores in the backward
pass, so memory is linear in time in both directions. On the CPU `blockwise` also is the faster.
"""

from typing import Literal

import jax
import jax.numpy as jnp
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
