"""Self-attention over all positions, with one backend for each kind of processor.

| backend | what | where `auto` uses it |
|---|---|---|
| `plain` | the whole score matrix at once | TPU and GPU, up to 512 positions |
| `blockwise` | one tile of scores at a time, small enough for a cache | CPU |
| `rows` | the scores of some queries at a time | GPU without `cudnn` |
| `splash` | JAX's Pallas kernel for TPU, see `diffsep_jax.models.splash` | TPU |
| `cudnn` | cuDNN's fused kernel | NVIDIA GPU from Ampere on, in bfloat16 or float16 |
| `portable` | chosen when the program is lowered for a platform | never: for `jax.export` |

All but `plain` need memory linear in time, forward and backward: they keep the output and, except
`rows`, one number for each query, named `ATTENTION` for rematerialisation policies (`cudnn` has no
names), and recompute the scores. The softmax is always float32. `plain`, `blockwise` and `rows` are
ordinary JAX, which the compiler partitions over the batch without communication.
"""

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32

from diffsep_jax.models.splash import ATTENTION, splash_attention

Backend = Literal["auto", "plain", "blockwise", "rows", "splash", "cudnn", "portable"]

CUDNN_TYPES = (jnp.bfloat16, jnp.float16)

CUDNN_CAPABILITY = 8.0
"""Least compute capability of a GPU for cuDNN's kernel: V100 has 7.0, T4 7.5, A100 8.0."""

PLAIN_POSITIONS = 512
"""Up to this length `auto` is `plain` on accelerators: the compiler fuses small products with their
neighbours, while a kernel runs alone and pads to its block."""

# Sides of a tile of scores: large enough for matrix products at full speed, small enough for the
# caches of a CPU. Sequences are cut into blocks of equal length, at most these.
TILE_QUERIES = 512  # of all examples of the batch together
MIN_QUERY_BLOCK = 128
KEY_BLOCK = 2048

ROWS_BYTES = 2**30
"""Memory of the scores that `rows` computes at a time."""


def attention(
    query: Float[Array, "batch time head dim"],
    key: Float[Array, "batch time head dim"],
    value: Float[Array, "batch time head dim"],
    backend: Backend = "auto",
) -> Float[Array, "batch time head dim"]:
    """softmax(q k^T / sqrt(dim)) v, over all positions, softmax in float32.

    `auto` is `choose_backend` for the default platform, even where the program is compiled for
    another one: name the backend there, or use `portable`.

    Raises:
      ValueError: `cudnn` with inputs that are not bfloat16 or float16.
    """
    if backend == "portable":
        return _portable(query, key, value)
    if backend == "auto":
        backend = choose_backend(
            jax.default_backend(), query.shape[1], query.dtype, has_cudnn=_has_cudnn()
        )
    if backend == "splash":
        return splash_attention(query, key, value)
    if backend == "cudnn":
        if query.dtype not in CUDNN_TYPES:
            raise ValueError(
                f"the inputs of cudnn attention are {query.dtype}; expected bfloat16 or float16"
            )
        return jax.nn.dot_product_attention(query, key, value, implementation="cudnn")
    if backend == "blockwise":
        heads_first = (x.transpose(2, 0, 1, 3) for x in (query, key, value))
        return _blockwise(*heads_first).transpose(1, 2, 0, 3)
    if backend == "rows":
        return _rows(query, key, value)
    return _plain(query, key, value)


def _portable(query: Array, key: Array, value: Array) -> Array:
    """`auto` for whichever platform the program is lowered for.

    `jax.export` guarantees no compatibility for cuDNN's kernel, so `rows` replaces it.
    """

    def on(platform: str) -> Callable[[Array, Array, Array], Array]:
        backend = choose_backend(platform, query.shape[1], query.dtype, has_cudnn=False)
        return partial(attention, backend=backend)

    gpu = on("gpu")
    return jax.lax.platform_dependent(
        query, key, value, tpu=on("tpu"), cuda=gpu, rocm=gpu, default=on("cpu")
    )


def choose_backend(platform: str, time: int, dtype: DTypeLike, *, has_cudnn: bool) -> Backend:
    """The backend for `jax.default_backend()`, a number of positions and the inputs' type.

    `has_cudnn`: whether the GPU can run cuDNN's kernel.
    """
    if platform == "cpu":
        return "blockwise"
    if time <= PLAIN_POSITIONS:
        return "plain"
    if platform == "tpu":
        return "splash"
    return "cudnn" if has_cudnn and jnp.dtype(dtype) in CUDNN_TYPES else "rows"


def _has_cudnn() -> bool:
    """Whether the default device is a GPU that cuDNN's kernel supports."""
    capability = getattr(jax.devices()[0], "compute_capability", "")
    with contextlib.suppress(ValueError):  # "gfx90a": AMD's
        return float(capability) >= CUDNN_CAPABILITY
    return False


def _rows(query: Array, key: Array, value: Array) -> Array:
    """`_plain` for as many queries at a time as `ROWS_BYTES` allow, recomputed backward."""
    batch, time, heads, dim = query.shape
    rows = TILE_QUERIES
    if isinstance(batch, int):  # in an exported program it may be symbolic
        rows = max(1, ROWS_BYTES // (4 * batch * heads * time))
    blocks = -(-time // rows)
    padded = jnp.pad(query, ((0, 0), (0, -time % blocks), (0, 0), (0, 0)))
    parts = jnp.moveaxis(padded.reshape(batch, blocks, -1, heads, dim), 1, 0)
    attend = jax.checkpoint(lambda part: _plain(part, key, value))
    out = jnp.moveaxis(jax.lax.map(attend, parts), 0, 1)
    return checkpoint_name(out.reshape(batch, -1, heads, dim)[:, :time], ATTENTION)


def _plain(query: Array, key: Array, value: Array) -> Array:
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(scores * query.shape[-1] ** -0.5, axis=-1)
    out = jnp.einsum("bhqk,bkhd->bqhd", weights.astype(value.dtype), value)
    return checkpoint_name(out, ATTENTION)


@jax.custom_vjp
def _blockwise(
    query: Float[Array, "head batch time dim"],
    key: Float[Array, "head batch time dim"],
    value: Float[Array, "head batch time dim"],
) -> Float[Array, "head batch time dim"]:
    """Attention, a tile of scores at a time (Dao et al. 2022, FlashAttention)."""
    return _blockwise_forward(query, key, value)[0]


_Residuals = tuple[Array, Array, Array, Array, Array]


def _blockwise_forward(query: Array, key: Array, value: Array) -> tuple[Array, _Residuals]:
    """The output, and the residuals: the inputs, the output and log(sum(exp(scores)))."""
    out, log_sum = _over_heads(_head_forward, query, key, value)
    out, log_sum = (checkpoint_name(x, ATTENTION) for x in (out, log_sum))
    return out, (query, key, value, out, log_sum)


def _blockwise_backward(residuals: _Residuals, grad: Array) -> tuple[Array, Array, Array]:
    return _over_heads(_head_backward, *residuals, grad)


_blockwise.defvjp(_blockwise_forward, _blockwise_backward)


def _over_heads(function: Callable, *arrays: Array) -> Any:
    """A loop over heads whose operations are over the batch, so that it stays partitionable."""
    batch = arrays[0].shape[1]
    query_block = MIN_QUERY_BLOCK
    if isinstance(batch, int):  # in an exported program it may be symbolic
        query_block = max(query_block, TILE_QUERIES // batch)
    one_head = partial(function, query_block=query_block)
    return jax.lax.map(lambda head: jax.vmap(one_head)(*head), arrays)


def _head_forward(
    query: Float[Array, "time dim"],
    key: Float[Array, "time dim"],
    value: Float[Array, "time dim"],
    query_block: int,
) -> tuple[Float[Array, "time dim"], Float32[Array, "block query"]]:
    """One head's output and the logarithm of the sum of its exponentiated scores."""
    time, dim = query.shape
    scale = dim**-0.5
    queries = _blocks(query, query_block)
    keys, values = (_blocks(x, KEY_BLOCK) for x in (key, value))
    bias = _padding_bias(time, keys.shape[:2])

    def attend(query: Array) -> tuple[Array, Array]:
        def add_keys(carry: tuple[Array, Array, Array], block: tuple) -> tuple[tuple, None]:
            out, total, peak = carry
            key, value, bias = block
            products = _matmul(query, key.T)
            if bias is not None:
                products += bias[None, :]
            new_peak = jnp.maximum(peak, products.max(axis=1))
            # Scaled here, so that the scores are read once less.
            weights = jnp.exp((products - new_peak[:, None]) * scale)
            rescale = jnp.exp((peak - new_peak) * scale)
            out = out * rescale[:, None] + _matmul(weights.astype(value.dtype), value)
            return (out, total * rescale + weights.sum(axis=1), new_peak), None

        block = len(query)
        start = (jnp.zeros((block, dim)), jnp.zeros(block), jnp.full(block, -jnp.inf))
        (out, total, peak), _ = jax.lax.scan(add_keys, start, (keys, values, bias))
        return (out / total[:, None]).astype(value.dtype), peak * scale + jnp.log(total)

    out, log_sum = jax.lax.map(attend, queries)
    return out.reshape(-1, dim)[:time], log_sum


def _head_backward(
    query: Float[Array, "time dim"],
    key: Float[Array, "time dim"],
    value: Float[Array, "time dim"],
    out: Float[Array, "time dim"],
    log_sum: Float32[Array, "block query"],
    grad: Float[Array, "time dim"],
    query_block: int,
) -> tuple[Float[Array, "time dim"], Float[Array, "time dim"], Float[Array, "time dim"]]:
    """The gradients with respect to one head's query, key and value; scores are recomputed."""
    time, dim = query.shape
    scale = dim**-0.5
    # sum_k weights * grad_weights of each row, which the softmax's gradient needs.
    row = jnp.sum(out.astype(jnp.float32) * grad.astype(jnp.float32), axis=1, keepdims=True)
    queries, grads, rows = (_blocks(x, query_block) for x in (query, grad, row))
    keys, values = (_blocks(x, KEY_BLOCK) for x in (key, value))
    bias = _padding_bias(time, keys.shape[:2])

    # Tiles are [key, query] here, so that only one of the five products needs a transposed tile.
    def of_keys(grad_queries: Array, block: tuple) -> tuple[Array, tuple[Array, Array]]:
        key, value, bias = block

        def of_queries(carry: tuple[Array, Array], block: tuple) -> tuple[tuple, Array]:
            grad_key, grad_value = carry
            query, grad, log_sum, row, grad_query = block
            scores = _matmul(key, query.T) * scale
            if bias is not None:
                scores += bias[:, None]
            weights = jnp.exp(scores - log_sum[None, :])
            grad_value += _matmul(weights.astype(grad.dtype), grad)
            grad_weights = _matmul(value, grad.T)
            grad_scores = (weights * (grad_weights - row.T)).astype(query.dtype)
            grad_key += _matmul(grad_scores, query)
            return (grad_key, grad_value), grad_query + _matmul(key.T, grad_scores)

        zeros = jnp.zeros(key.shape)
        blocks = (queries, grads, log_sum, rows, grad_queries)
        (grad_key, grad_value), grad_queries = jax.lax.scan(of_queries, (zeros, zeros), blocks)
        return grad_queries, (grad_key, grad_value)

    zeros = jnp.zeros((len(queries), dim, queries.shape[1]))
    grad_queries, (grad_key, grad_value) = jax.lax.scan(of_keys, zeros, (keys, values, bias))
    grad_query = grad_queries.swapaxes(1, 2) * scale
    return (
        grad_query.reshape(-1, dim)[:time].astype(query.dtype),
        (grad_key * scale).reshape(-1, dim)[:time].astype(key.dtype),
        grad_value.reshape(-1, dim)[:time].astype(value.dtype),
    )


def _blocks(x: Float[Array, "time dim"], longest: int) -> Float[Array, "block position dim"]:
    """`x` in as few equal blocks as `longest` allows, padded with zeros."""
    time, dim = x.shape
    blocks = -(-time // longest)
    padding = -time % blocks
    return jnp.pad(x, ((0, padding), (0, 0))).reshape(blocks, -1, dim)


def _padding_bias(time: int, blocks: tuple[int, ...]) -> Float32[Array, "block key"] | None:
    """-inf at the keys that padding added; None if there are none."""
    count, block = blocks
    if count * block == time:
        return None
    return jnp.where(jnp.arange(count * block) < time, 0.0, -jnp.inf).reshape(blocks)


_matmul = partial(jnp.matmul, preferred_element_type=jnp.float32)
