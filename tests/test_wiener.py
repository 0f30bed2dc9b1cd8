"""The multichannel Wiener filter of the spectral conditioner."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffsep_jax.models.spectral.wiener import LOADING, wiener_filter


def bins(seed: int, pan: tuple[float, float]) -> jax.Array:
    """One source of 40 frames and 6 bins, whose level varies, at one place."""
    rng = np.random.default_rng(seed)
    source = rng.normal(size=(1, 40, 1, 6)) + 1j * rng.normal(size=(1, 40, 1, 6))
    level = rng.uniform(0.2, 2, size=(1, 40, 1, 1))
    return jnp.asarray(level * source * np.array(pan)[None, None, :, None], jnp.complex64)


def test_it_is_the_filter_of_the_equation():
    vocals, rest = bins(0, (1, 0.7)) + 0.1 * bins(1, (0.2, 1)), bins(2, (0.3, 1.0))
    filtered = wiener_filter(vocals + rest, vocals)
    expected = np.zeros(vocals.shape, np.complex128)
    for k in range(6):
        v, r = [], []
        for y in (vocals[0, :, :, k], rest[0, :, :, k]):
            v.append((np.abs(y) ** 2).mean(1))
            r.append(np.einsum("ta,tb->ab", y, y.conj()) / v[-1].sum())
        for t in range(40):
            total = v[0][t] * r[0] + v[1][t] * r[1]
            total += LOADING * np.trace(total) * np.eye(2)
            gain = v[0][t] * r[0] @ np.linalg.inv(total)
            expected[0, t, :, k] = gain @ (vocals + rest)[0, t, :, k]
    np.testing.assert_allclose(filtered, expected, atol=1e-4)


def test_it_takes_apart_what_comes_from_two_places():
    """From an estimate that leaves a third of each source in the other."""
    vocals, rest = bins(0, (1, 1)), bins(2, (1, 0.1))
    estimate = 0.7 * vocals + 0.3 * rest
    filtered = wiener_filter(vocals + rest, estimate)
    before, after = (np.square(np.abs(x - vocals)).sum() for x in (estimate, filtered))
    assert after < 0.5 * before


@pytest.mark.parametrize("rest", [0.0, 0.3, 1.0], ids=["no rest", "some", "no vocals"])
def test_mono_comes_out_as_mono(rest):
    mixture = bins(0, (1, 1))
    filtered, gradient = jax.value_and_grad(
        lambda x: jnp.square(jnp.abs(wiener_filter(mixture, x))).sum()
    )((1 - rest) * mixture)
    assert np.isfinite(filtered)
    assert np.isfinite(gradient).all()
    vocals = wiener_filter(mixture, (1 - rest) * mixture)
    np.testing.assert_allclose(vocals[:, :, 0], vocals[:, :, 1], atol=1e-4)
    share = (1 - rest) ** 2 / ((1 - rest) ** 2 + rest**2)
    np.testing.assert_allclose(vocals, share * mixture, atol=2e-2 * np.abs(mixture).max())


def test_silence_stays_silent_and_has_finite_gradients():
    """All of it, and a frame among others."""
    mixture = bins(0, (1, 0.5))
    for silent in (0 * mixture, mixture.at[:, 3].set(0)):
        filtered, pullback = jax.vjp(wiener_filter, silent, 0.5 * silent)
        np.testing.assert_array_equal(filtered[:, 3], 0)
        for gradient in pullback(jnp.ones_like(filtered)):
            assert np.isfinite(gradient).all()


def test_examples_of_a_batch_and_frequencies_do_not_mix():
    one, other = (bins(seed, (1, 0.7)) + bins(seed + 1, (0.3, 1)) for seed in (0, 2))
    mixtures = jnp.concatenate([one, other])
    together = wiener_filter(mixtures, 0.6 * mixtures.at[..., 3].multiply(0.5))
    for i, mixture in enumerate((one, other)):
        alone = wiener_filter(mixture, 0.6 * mixture)
        np.testing.assert_allclose(together[i : i + 1, ..., :3], alone[..., :3], atol=1e-5)


def test_a_silent_channel_stays_silent():
    mixture = (bins(0, (1, 1)) + bins(2, (1, 0.1))).at[:, :, 1].set(0)
    vocals, gradient = jax.value_and_grad(
        lambda x: jnp.square(jnp.abs(wiener_filter(mixture, x))).sum()
    )(0.5 * mixture)
    assert np.isfinite(vocals)
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(wiener_filter(mixture, 0.5 * mixture)[:, :, 1], 0, atol=1e-6)
