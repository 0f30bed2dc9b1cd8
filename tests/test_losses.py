"""Losses: closed forms, one value per example, and what their gradients reach."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from diffsep_jax import losses, metrics
from diffsep_jax.errors import UserError

SHAPE = (3, 16, 2)
NAMES = ("v_hat", "v")


@pytest.fixture
def arrays():
    return dict(zip(NAMES, jax.random.normal(jax.random.key(0), (2, *SHAPE)), strict=True))


def test_mean_square_per_example(arrays):
    loss = losses.mean_square_error
    value = loss(arrays["v_hat"], arrays["v"])
    expected = np.mean((np.float64(arrays["v_hat"]) - np.float64(arrays["v"])) ** 2, axis=(1, 2))
    assert value.shape == (SHAPE[0],)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_array_equal(loss(arrays["v"], arrays["v"]), np.zeros(SHAPE[0]))


def test_bfloat16_is_cast_before_the_difference(arrays):
    half = {name: array.astype(jnp.bfloat16) for name, array in arrays.items()}
    exact = {name: array.astype(jnp.float32) for name, array in half.items()}
    for ours in (half, {**half, "v": exact["v"]}):  # as in training: targets are float32
        value = losses.mean_square_error(ours["v_hat"], ours["v"])
        assert value.dtype == jnp.float32
        np.testing.assert_array_equal(value, losses.mean_square_error(exact["v_hat"], exact["v"]))


def test_the_spectral_distance_is_the_logarithmic_half_of_the_metric():
    vocals = 0.1 * np.random.default_rng(0).standard_normal((2, 9001, 2)).astype(np.float32)
    vocals[:, :4000] = 0
    # Twice as loud: the other half of the metric is 1, as |R - E| = |R|.
    np.testing.assert_allclose(
        losses.log_spectral_distance(jnp.array(2 * vocals), jnp.array(vocals)),
        [metrics.mr_stft(each, 2 * each) - 1 for each in vocals],
        rtol=1e-4,
    )


def test_a_decibel_counts_the_same_in_an_easy_and_in_a_hard_example():
    vocals = jnp.zeros((3, 64, 2))
    estimate = vocals + jnp.sqrt(jnp.array([0.0, 0.01, 1.0]))[:, None, None]
    plain, logarithmic = (
        losses.reconstruction_term(estimate, vocals, losses.LossWeights(log_floor=floor))
        for floor in (None, 0.05)
    )
    np.testing.assert_allclose(plain, [0.0, 0.01, 1.0], rtol=1e-6)
    np.testing.assert_allclose(logarithmic, np.log([0.05, 0.06, 1.05]), rtol=1e-6)


def test_a_decibel_counts_the_same_in_a_pause_and_in_song():
    """Two examples, whose second halves have another error."""
    errors = np.sqrt(np.repeat([[0.01, 0.0], [0.01, 4.0]], 32, axis=1))[..., None].repeat(2, -1)
    estimate, vocals = jnp.asarray(errors, jnp.float32), jnp.zeros((2, 64, 2))
    weights = losses.LossWeights(log_floor=0.01, log_blocks=2)
    expected = np.log([[0.02, 0.01], [0.02, 4.01]]).mean(1)
    term = losses.reconstruction_term(estimate, vocals, weights)
    np.testing.assert_allclose(term, expected, rtol=1e-6)


def test_the_likelihood_is_greatest_at_the_errors_deviation():
    error = 0.2 / np.sqrt(2) * jax.random.laplace(jax.random.key(0), (1, 50, 2, 100))
    scales = np.geomspace(0.05, 0.8, 81)
    values = [losses.scale_loss(error, jnp.full_like(error, np.log(s)))[0] for s in scales]
    assert scales[np.argmin(values)] == pytest.approx(0.2, rel=0.05)
    # -log of a Laplace distribution's density is this and log(2) / 2.
    density = scipy.stats.laplace.pdf(np.asarray(error), scale=0.3 / np.sqrt(2))
    value = losses.scale_loss(error, jnp.full_like(error, np.log(0.3)))[0]
    assert float(value) + np.log(2) / 2 == pytest.approx(-np.log(density).mean(), rel=1e-5)


def test_errors_of_large_targets_weigh_less():
    error, target = jnp.ones((2, 1, 1, 2)), jnp.array([0.0, 3.0, 6.0, 6.0]).reshape(2, 1, 1, 2)
    np.testing.assert_allclose(losses.normalised_loss(error, target), [0.75, 0.2], rtol=1e-6)


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["latent", "reconstruction", "log_floor", "scale"])
def test_bad_weights_are_refused(name, value):
    with pytest.raises(UserError, match=f"loss weight {name} is {value}"):
        losses.LossWeights(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [("normalised", 1.5), ("log_floor", 0.0), ("log_blocks", 0), ("log_blocks", 4)],
)
def test_weights_that_would_break_the_loss_are_refused(name, value):
    with pytest.raises(UserError, match=f"loss weight {name} is"):
        losses.LossWeights(**{name: value})
