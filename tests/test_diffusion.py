"""The diffusion process: closed forms, and round trips between x0, eps, x and v."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffsep_jax import diffusion

SHAPE = (5, 7, 2)
SIGMAS = [0.0, 1e-3, 0.25, 0.5, 0.999, 1.0]


@pytest.fixture
def x0_and_noise():
    x0_key, noise_key = jax.random.split(jax.random.key(0))
    return 0.3 * jax.random.normal(x0_key, SHAPE), jax.random.normal(noise_key, SHAPE)


def test_alpha_beta_are_cosine_and_sine():
    sigma = np.linspace(0, 1, 1001)
    alpha, beta = diffusion.alpha_beta(jnp.asarray(sigma, jnp.float32))
    assert alpha.dtype == beta.dtype == jnp.float32
    np.testing.assert_allclose(alpha, np.cos(np.pi / 2 * sigma), rtol=0, atol=2e-7)
    np.testing.assert_allclose(beta, np.sin(np.pi / 2 * sigma), rtol=0, atol=2e-7)


def test_ends_are_exact(x0_and_noise):
    x0, noise = x0_and_noise
    np.testing.assert_array_equal(diffusion.diffuse(x0, noise, 0.0), x0)
    np.testing.assert_array_equal(diffusion.diffuse(x0, noise, 1.0), noise)
    np.testing.assert_array_equal(diffusion.velocity(x0, noise, 0.0), noise)
    np.testing.assert_array_equal(diffusion.velocity(x0, noise, 1.0), -x0)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_round_trip_from_x0_and_noise(x0_and_noise, sigma):
    x0, noise = x0_and_noise
    x = diffusion.diffuse(x0, noise, sigma)
    v = diffusion.velocity(x0, noise, sigma)
    np.testing.assert_allclose(diffusion.x0_from_velocity(x, v, sigma), x0, atol=1e-6)
    np.testing.assert_allclose(diffusion.noise_from_velocity(x, v, sigma), noise, atol=1e-6)


def test_velocity_is_the_derivative_by_the_angle(x0_and_noise):
    x0, noise = x0_and_noise

    def x_at_angle(angle):
        return diffusion.diffuse(x0, noise, angle / (jnp.pi / 2))

    angle = jnp.float32(0.7)
    _, derivative = jax.jvp(x_at_angle, (angle,), (jnp.float32(1),))
    v = diffusion.velocity(x0, noise, angle / (jnp.pi / 2))
    np.testing.assert_allclose(derivative, v, atol=1e-5)


@pytest.mark.parametrize(
    "formula",
    [
        diffusion.diffuse,
        diffusion.velocity,
        diffusion.x0_from_velocity,
        diffusion.noise_from_velocity,
    ],
)
def test_one_sigma_per_example(x0_and_noise, formula):
    first, second = x0_and_noise
    sigma = jnp.linspace(0, 1, SHAPE[0], dtype=jnp.float32)
    together = formula(first, second, sigma)
    assert together.dtype == jnp.float32
    for i in range(SHAPE[0]):
        alone = formula(first[i], second[i], sigma[i])
        np.testing.assert_allclose(together[i], alone, atol=1e-7)


def test_unit_variance_stays_unit_variance():
    """What lets one network serve all levels: unit x0 and eps give unit x and v at each sigma."""
    x0, noise = jax.random.normal(jax.random.key(1), (2, 3, 50_000, 1))
    sigma = jnp.array([0.2, 0.5, 0.8])
    for array in (diffusion.diffuse(x0, noise, sigma), diffusion.velocity(x0, noise, sigma)):
        np.testing.assert_allclose(jnp.var(array, axis=(1, 2)), 1, atol=0.04)
