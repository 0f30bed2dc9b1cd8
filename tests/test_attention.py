"""Attention: the backends agree with float64, forward and backward, and need linear memory."""

import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import print_saved_residuals
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from diffsep_jax.models import attention as attention_module
from diffsep_jax.models import splash
from diffsep_jax.models.attention import attention, choose_backend
from diffsep_jax.models.splash import splash_attention


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Several blocks of keys and of queries in short sequences."""
    monkeypatch.setattr(attention_module, "TILE_QUERIES", 32)
    monkeypatch.setattr(attention_module, "MIN_QUERY_BLOCK", 16)
    monkeypatch.setattr(attention_module, "KEY_BLOCK", 48)
    monkeypatch.setattr(attention_module, "ROWS_BYTES", 2**15)
    monkeypatch.setattr(splash, "BLOCK", 256)
    monkeypatch.setattr(splash, "COMPUTE_BLOCK", 128)


def run(backend, *inputs):
    if backend == "splash":
        return splash_attention(*inputs, interpret=True)
    return attention(*inputs, backend)


def random(seed, shape, dtype=jnp.float32):
    return jax.random.normal(jax.random.key(seed), shape, dtype)


def qkv(time, batch=2, heads=2, dim=8, dtype=jnp.float32):
    return [random(seed, (batch, time, heads, dim), dtype) for seed in range(3)]


def reference(query, key, value, grad):
    """softmax(q k^T / sqrt(d)) v in float64 numpy, and its gradients in the direction `grad`."""
    q, k, v, g = (np.asarray(x, np.float64) for x in (query, key, value, grad))
    scale = q.shape[-1] ** -0.5
    scores = np.einsum("bqhd,bkhd->bhqk", q, k) * scale
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    grad_weights = np.einsum("bqhd,bkhd->bhqk", g, v)
    mean = np.sum(weights * grad_weights, axis=-1, keepdims=True)
    grad_scores = weights * (grad_weights - mean) * scale
    return (
        np.einsum("bhqk,bkhd->bqhd", weights, v),
        np.einsum("bhqk,bkhd->bqhd", grad_scores, k),
        np.einsum("bhqk,bqhd->bkhd", grad_scores, q),
        np.einsum("bhqk,bqhd->bkhd", weights, g),
    )


def output_and_gradients(backend, inputs, grad):
    out, pull_back = jax.vjp(lambda *inputs: run(backend, *inputs), *inputs)
    return out, *pull_back(grad)


@pytest.mark.parametrize("backend", ["plain", "blockwise", "rows", "splash"])
@pytest.mark.parametrize(
    ("time", "dim"),
    [
        (1, 8),
        (48, 8),
        (97, 8),  # 3 blocks of 33 keys, two of them padding; 7 of 14 queries, one padding
        (300, 24),  # 2 blocks of 256 of the kernel, 212 of them padding
    ],
)
def test_output_and_gradients_agree_with_float64(backend, time, dim):
    inputs = qkv(time, dim=dim)
    grad = random(3, inputs[0].shape)
    ours = output_and_gradients(backend, inputs, grad)
    for mine, exact in zip(ours, reference(*inputs, grad), strict=True):
        np.testing.assert_allclose(mine, exact, atol=5e-6)


@pytest.mark.parametrize("backend", ["plain", "blockwise", "rows", "splash"])
def test_bfloat16_rounds_inputs_and_weights_only(backend):
    # bfloat16 has 8 bits: a relative error of 2^-9 for each rounding of a scale of about one.
    inputs = qkv(97, dtype=jnp.bfloat16)
    grad = random(3, inputs[0].shape, jnp.bfloat16)
    ours = output_and_gradients(backend, inputs, grad)
    for mine, exact in zip(ours, reference(*inputs, grad), strict=True):
        assert mine.dtype == jnp.bfloat16
        scale = np.abs(exact).max()
        np.testing.assert_allclose(np.asarray(mine, np.float64), exact, atol=2**-7 * scale)


@pytest.mark.parametrize("backend", ["plain", "blockwise", "rows", "splash"])
def test_large_scores_neither_overflow_nor_vanish(backend):
    query, key, value = qkv(97)
    inputs = [60 * query, 60 * key, value]
    grad = random(3, query.shape)
    exact = reference(*inputs, grad)
    for mine, of_float64 in zip(output_and_gradients(backend, inputs, grad), exact, strict=True):
        # scores of thousands: float32 leaves them an error of about 1e-3
        np.testing.assert_allclose(mine, of_float64, atol=5e-3 * np.abs(of_float64).max())


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="cuDNN needs a GPU")
def test_cudnn_agrees_with_float64():
    inputs = qkv(1024, dim=64, dtype=jnp.bfloat16)
    grad = random(3, inputs[0].shape, jnp.bfloat16)
    ours = output_and_gradients("cudnn", inputs, grad)
    for mine, exact in zip(ours, reference(*inputs, grad), strict=True):
        scale = np.abs(exact).max()
        np.testing.assert_allclose(np.asarray(mine, np.float64), exact, atol=2**-7 * scale)


def test_cudnn_says_that_it_does_not_compute_in_float32():
    with pytest.raises(ValueError, match="are float32; expected bfloat16"):
        attention(*qkv(4), backend="cudnn")


@pytest.mark.parametrize(
    ("platform", "time", "dtype", "has_cudnn", "backend"),
    [
        ("tpu", 512, jnp.bfloat16, False, "plain"),
        ("tpu", 513, jnp.bfloat16, False, "splash"),
        ("tpu", 16_384, jnp.float32, False, "splash"),
        ("gpu", 512, jnp.bfloat16, True, "plain"),
        ("gpu", 16_384, jnp.bfloat16, True, "cudnn"),
        ("gpu", 16_384, jnp.bfloat16, False, "rows"),
        ("gpu", 16_384, jnp.float32, True, "rows"),
        ("cpu", 64, jnp.float32, False, "blockwise"),
        ("cpu", 16_384, jnp.bfloat16, False, "blockwise"),
    ],
)
def test_choice_of_backend(platform, time, dtype, has_cudnn, backend):
    assert choose_backend(platform, time, dtype, has_cudnn=has_cudnn) == backend


@pytest.mark.parametrize(
    ("capability", "supported"),
    [("7.0", False), ("7.5", False), ("8.0", True), ("10.0", True), ("gfx90a", False)],
)
def test_cudnn_needs_an_nvidia_gpu_from_ampere_on(monkeypatch, capability, supported):
    device = types.SimpleNamespace(compute_capability=capability)
    monkeypatch.setattr(jax, "devices", lambda: [device])
    assert attention_module._has_cudnn() == supported


def test_few_bodies_on_a_gpu_in_float32(monkeypatch):
    # The paper's longest attention: 16,384 positions, two heads, here of four chunks.
    monkeypatch.setattr(attention_module, "ROWS_BYTES", 2**30)
    shape = jax.ShapeDtypeStruct((4, 16_384, 2, 128), jnp.float32)
    jaxpr = jax.make_jaxpr(lambda *inputs: attention(*inputs, "rows"))(shape, shape, shape)
    (length,) = (each.params["length"] for each in jaxpr.eqns if each.primitive.name == "scan")
    assert length <= 16


def temporaries(backend, time):
    shape = jax.ShapeDtypeStruct((1, time, 1, 8), jnp.float32)

    def score(*inputs):
        return jnp.sum(attention(*inputs, backend) ** 2)

    compiled = jax.jit(jax.value_and_grad(score, argnums=(0, 1, 2))).lower(shape, shape, shape)
    return compiled.compile().memory_analysis().temp_size_in_bytes


def test_memory_is_linear_in_time_forward_and_backward():
    of_one_position = 40 * 8 * 4  # forty arrays of the input's size, whatever the length
    for backend in ("blockwise", "rows"):
        assert temporaries(backend, 4096) < 4096 * of_one_position
        assert temporaries(backend, 32_768) < 32_768 * of_one_position
    assert temporaries("plain", 4096) > 4096 * of_one_position  # so the bound tells them apart


@pytest.mark.parametrize("backend", ["plain", "blockwise", "rows"])
def test_the_compiler_partitions_the_batch_without_communication(backend):
    mesh = jax.make_mesh((8,), ("data",), (AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    shape = jax.ShapeDtypeStruct((8, 97, 2, 8), jnp.float32, sharding=sharding)

    def step(*inputs):
        out, pull_back = jax.vjp(lambda *inputs: attention(*inputs, backend), *inputs)
        return out, pull_back(out)

    program = jax.jit(step).lower(shape, shape, shape).compile()
    found = re.findall(
        r"all-gather|all-reduce|reduce-scatter|all-to-all|permute", program.as_text()
    )
    assert not found
    assert all(leaf.spec == sharding.spec for leaf in jax.tree.leaves(program.output_shardings))


@pytest.mark.parametrize("batch", [8, 3])
def test_splash_maps_itself_over_the_automatic_axes_of_a_mesh(batch):
    inputs = qkv(60, batch=batch)
    grad = random(3, inputs[0].shape)
    alone = output_and_gradients("splash", inputs, grad)
    mesh = jax.make_mesh((4, 2), ("data", "fsdp"), (AxisType.Auto,) * 2)
    with jax.set_mesh(mesh):
        mapped = jax.jit(lambda *args: output_and_gradients("splash", args[:3], args[3]))(
            *inputs, grad
        )
    for one, many in zip(alone, mapped, strict=True):
        np.testing.assert_allclose(one, many, atol=1e-6)


def test_splash_off_a_tpu_is_an_error_and_not_the_interpreter():
    with pytest.raises(ValueError, match="interpret mode"):
        jax.block_until_ready(attention(*qkv(128), backend="splash"))


@pytest.mark.parametrize("backend", ["blockwise", "splash"])
def test_a_policy_can_keep_the_output_and_the_log_sums_by_name(backend, capsys):
    inputs = qkv(97)

    def residuals(policy):
        layer = jax.checkpoint(lambda *inputs: run(backend, *inputs), policy=policy)
        print_saved_residuals(layer, *inputs)
        return len(capsys.readouterr().out.splitlines())

    keep = jax.checkpoint_policies.save_only_these_names("attention")
    assert residuals(keep) == residuals(None) + 2


def test_blockwise_attention_that_a_policy_keeps_is_not_run_again():
    inputs = qkv(97)

    def runs_again(policy):
        layer = jax.checkpoint(lambda *inputs: run("blockwise", *inputs), policy=policy)
        _, pull_back = jax.vjp(layer, *inputs)
        return "= log " in str(jax.make_jaxpr(pull_back)(inputs[0]))

    assert runs_again(None)
    assert not runs_again(jax.checkpoint_policies.save_only_these_names("attention"))
