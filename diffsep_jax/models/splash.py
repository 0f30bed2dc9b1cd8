"""JAX's splash attention kernel for TPU, without a mask, for any number of positions."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec
from jaxtyping import Array, Float

ATTENTION = "attention"
"""Name of the residuals of attention, for rematerialisation policies."""
LANES = 128
"""Positions are padded to a multiple of this."""
BLOCK = 1024
"""Positions of a tile in the chip's fast memory; 2,048 don't fit on v5e and v5p."""
COMPUTE_BLOCK = 512
"""Keys of a tile that are worked on at a time."""


def splash_attention(
    query: Float[Array, "batch time head dim"],
    key: Float[Array, "batch time head dim"],
    value: Float[Array, "batch time head dim"],
    *,
    interpret: bool = False,
) -> Float[Array, "batch time head dim"]:
    """softmax(q k^T / sqrt(dim)) v on a TPU; `interpret` runs Pallas' interpreter, for tests.

    The output and the log-sum-exp are named `ATTENTION`, for rematerialisation policies.

    The compiler can't partition the kernel: under a mesh with automatic axes (`jax.set_mesh`) it is
    mapped over them, split by examples where their number divides, else each device computes all.
    """
    call = partial(_splash, interpret=interpret)
    mesh = jax.sharding.get_abstract_mesh()
    kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
    automatic = tuple(name for name, kind in kinds if kind == AxisType.Auto)
    if automatic:
        devices = math.prod(mesh.shape[name] for name in automatic)
        spec = PartitionSpec(automatic if query.shape[0] % devices == 0 else None)
        call = jax.shard_map(
            call, in_specs=spec, out_specs=spec, axis_names=set(automatic), check_vma=False
        )
    return call(query, key, value)


def _splash(query: Array, key: Array, value: Array, *, interpret: bool) -> Array:
    # Pallas takes long to import, and only TPUs need it.
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        BlockSizes,
        FullMask,
        MultiHeadMask,
        SegmentIds,
        make_splash_mha,
    )

    _, time, heads, dim = query.shape
    block, padding = _block(time)

    def heads_first(x: Array) -> Array:
        return jnp.pad(x.transpose(0, 2, 1, 3), ((0, 0), (0, 0), (0, padding), (0, 0)))

    query = (query.astype(jnp.float32) * dim**-0.5).astype(query.dtype)
    compute = math.gcd(block, COMPUTE_BLOCK)
    kernel = make_splash_mha(
        MultiHeadMask([FullMask((time + padding, time + padding))] * heads),
        block_sizes=BlockSizes(
            block_q=block,
            block_kv=block,
            block_kv_compute=compute,
            block_q_dkv=block,
            block_kv_dkv=block,
            block_kv_dkv_compute=compute,
            block_q_dq=block,
            block_kv_dq=block,
        ),
        head_shards=1,
        q_seq_shards=1,
        residual_checkpoint_name=ATTENTION,
        interpret=interpret,
    )
    segments = None
    if padding:
        is_padding = (jnp.arange(time + padding) >= time).astype(jnp.int32)
        segments = SegmentIds(is_padding, is_padding)
    inputs = (heads_first(x) for x in (query, key, value))
    out = jax.vmap(lambda q, k, v: kernel(q, k, v, segment_ids=segments))(*inputs)
    return out[:, :, :time].transpose(0, 2, 1, 3)


def _block(time: int) -> tuple[int, int]:
    """The tile's side and the padding: as few tiles as `BLOCK` allows, each of whole lanes."""
    tiles = -(-time // BLOCK)
    block = -(-time // (tiles * LANES)) * LANES
    return block, tiles * block - time
