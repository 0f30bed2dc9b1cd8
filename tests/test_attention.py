"""Attention: the backends agree, and none holds a T x T score matrix over 2,048 positions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffsep_jax.models import attention as attention_module
from diffsep_jax.models.attention import attention


def qkv(time, batch=2, heads=2, dim=8):
    keys = jax.random.split(jax.random.key(0), 3)
    return [jax.random.normal(k, (batch, time, heads, dim)) for k in keys]


def reference(query, key, value):
    """softmax(q k^T / sqrt(d)) v in float64 numpy."""
    q, k, v = (np.asarray(x, np.float64) for x in (query, key, value))
    scores = np.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(q.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("bhqk,bkhd->bqhd", weights, v)


@pytest.mark.parametrize("backend", ["plain", "blockwise"])
@pytest.mark.parametrize("time", [1, 64, 100])
def test_backends_agree_with_numpy(backend, time, monkeypatch):
    monkeypatch.setattr(attention_module, "QUERY_BLOCK", 32)  # 100 = 3 blocks and a part of one
    inputs = qkv(time)
    np.testing.assert_allclose(attention(*inputs, backend), reference(*inputs), atol=2e-6)


def test_gradients_of_the_backends_agree(monkeypatch):
    monkeypatch.setattr(attention_module, "QUERY_BLOCK", 32)
    inputs = qkv(100)
    direction = jax.random.normal(jax.random.key(1), inputs[0].shape)

    def gradients(backend):
        return jax.grad(lambda qkv: jnp.sum(attention(*qkv, backend) * direction))(inputs)

    for plain, blockwise in zip(gradients("plain"), gradients("blockwise"), strict=True):
        np.testing.assert_allclose(plain, blockwise, atol=5e-6)


def test_memory_is_linear_in_time_forward_and_backward():
    time = 16_384
    shape = jax.ShapeDtypeStruct((1, time, 1, 8), jnp.float32)

    def score(q, k, v):
        return jnp.sum(attention(q, k, v))

    compiled = jax.jit(jax.grad(score, argnums=(0, 1, 2))).lower(shape, shape, shape).compile()
    temporaries = compiled.memory_analysis().temp_size_in_bytes
    blocks_of_scores = 6 * attention_module.QUERY_BLOCK * time * 4
    assert temporaries < blocks_of_scores < time * time * 4 / 2


def test_plain_attention_refuses_long_sequences():
    with pytest.raises(ValueError, match="2049 positions"):
        attention(*qkv(2049, batch=1, heads=1), backend="plain")
