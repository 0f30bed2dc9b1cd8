"""Losses: closed forms, one value per example, and what their gradients reach."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffsep_jax import losses
from diffsep_jax.errors import UserError

SHAPE = (3, 16, 2)
NAMES = ("v_hat", "v", "latent_estimate", "direct_estimate", "vocals")
UNIT = losses.LossWeights()


@pytest.fixture
def arrays():
    return dict(zip(NAMES, jax.random.normal(jax.random.key(0), (5, *SHAPE)), strict=True))


@pytest.mark.parametrize("loss", [losses.diffusion_loss, losses.reconstruction_loss])
def test_mean_square_per_example(arrays, loss):
    value = loss(arrays["v_hat"], arrays["v"])
    expected = np.mean((np.float64(arrays["v_hat"]) - np.float64(arrays["v"])) ** 2, axis=(1, 2))
    assert value.shape == (SHAPE[0],)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_array_equal(loss(arrays["v"], arrays["v"]), np.zeros(SHAPE[0]))


def test_total_is_the_weighted_sum_of_its_terms(arrays):
    total, terms = losses.total_loss(
        **arrays, weights=losses.LossWeights(latent=0.5, reconstruction=2.0)
    )
    assert list(terms) == ["diffusion", "latent", "reconstruction"]
    np.testing.assert_allclose(
        total, terms["diffusion"] + 0.5 * terms["latent"] + 2 * terms["reconstruction"], rtol=1e-6
    )
    for name, estimate, target in (
        ("diffusion", "v_hat", "v"),
        ("latent", "latent_estimate", "vocals"),
        ("reconstruction", "direct_estimate", "vocals"),
    ):
        expected = losses.reconstruction_loss(arrays[estimate], arrays[target])
        np.testing.assert_array_equal(terms[name], expected)


@pytest.mark.parametrize(
    ("estimate", "target", "weight"),
    [("v_hat", "v", 1.0), ("latent_estimate", "vocals", 0.5), ("direct_estimate", "vocals", 2.0)],
)
def test_gradient_is_the_weighted_error(arrays, estimate, target, weight):
    weights = losses.LossWeights(latent=0.5, reconstruction=2.0)

    def loss_of_example_1(value):
        total, _ = losses.total_loss(**{**arrays, estimate: value}, weights=weights)
        return total[1]

    gradient = jax.grad(loss_of_example_1)(arrays[estimate])
    expected = weight * 2 * (arrays[estimate] - arrays[target]) / (SHAPE[1] * SHAPE[2])
    np.testing.assert_allclose(gradient[1], expected[1], rtol=1e-5)
    np.testing.assert_array_equal(gradient[jnp.array([0, 2])], 0)  # the other examples' share


def test_bfloat16_is_cast_before_the_difference(arrays):
    half = {name: array.astype(jnp.bfloat16) for name, array in arrays.items()}
    exact = {name: array.astype(jnp.float32) for name, array in half.items()}
    for from_half, from_exact in zip(
        jax.tree.leaves(losses.total_loss(**half, weights=UNIT)),
        jax.tree.leaves(losses.total_loss(**exact, weights=UNIT)),
        strict=True,
    ):
        assert from_half.dtype == jnp.float32
        np.testing.assert_array_equal(from_half, from_exact)
    # A network's bfloat16 output against float32 targets, as in training.
    mixed = losses.diffusion_loss(half["v_hat"], exact["v"])
    np.testing.assert_array_equal(mixed, losses.diffusion_loss(exact["v_hat"], exact["v"]))


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["latent", "reconstruction"])
def test_bad_weights_are_refused(name, value):
    with pytest.raises(UserError, match=f"loss weight {name} is {value}"):
        losses.LossWeights(**{name: value})
