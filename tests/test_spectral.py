"""The spectral family: transforms, preconditioning, and the model that holds its networks."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffsep_jax import diffusion, samplers
from diffsep_jax.errors import UserError
from diffsep_jax.models.compute import Compute
from diffsep_jax.models.conditioning import Conditioning
from diffsep_jax.models.model import SeparationModel
from diffsep_jax.models.spectral import transform
from diffsep_jax.models.spectral.bands import join_bands, repeat_over_bands, split_bands
from diffsep_jax.models.spectral.conditioner import SpectralConditioner, log_shares
from diffsep_jax.models.spectral.generator import SpectralGenerator, gaussian_velocity
from diffsep_jax.models.waveform.conditioner import Conditioner

FRAME = transform.FRAME
BANDS = ((4, 16), (3, 64), (3, 256))
SMALL = SeparationModel(
    segment=8 * FRAME,
    conditioner=SpectralConditioner(bands=BANDS, widths=(16, 24), blocks=(1, 1)),
    generator=SpectralGenerator(bands=BANDS, widths=(16, 24), blocks=(1, 1), embedding_width=32),
)


def noise(seed: int, frames: int, batch: int = 2) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), (batch, frames * FRAME, 2))


def test_the_mdct_is_orthonormal_and_inverts():
    audio = noise(0, 6)
    coefficients = transform.mdct(audio)
    assert coefficients.shape == (2, 6, 2, FRAME)
    np.testing.assert_allclose(transform.inverse_mdct(coefficients), audio, atol=1e-5)
    matrix = jax.jacobian(lambda x: transform.mdct(x[None, :, None]).ravel())(jnp.zeros(2 * FRAME))
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(2 * FRAME), atol=1e-5)


@pytest.mark.parametrize(("function", "wave"), [("mdct", np.cos), ("mdst", np.sin)])
def test_inner_frames_are_those_of_the_textbook(function, wave):
    audio = np.asarray(noise(1, 4))
    sample, coefficient = np.arange(2 * FRAME)[:, None] + 0.5, np.arange(FRAME) + 0.5
    window = np.sqrt(2 / FRAME) * np.sin(np.pi / (2 * FRAME) * sample)
    basis = window * wave(np.pi / FRAME * (sample - FRAME / 2) * coefficient)
    frame = audio[:, FRAME // 2 : FRAME // 2 + 2 * FRAME].transpose(0, 2, 1) @ basis
    found = getattr(transform, function)(jnp.asarray(audio))[:, 1]
    np.testing.assert_allclose(found, frame, atol=1e-4)


def test_a_tone_stays_in_its_coefficients():
    tone = jnp.sin(jnp.pi * 100.3 / FRAME * jnp.arange(8.0 * FRAME))[None, :, None]
    energy = np.square(transform.mdct(tone))[0, 2:-2, 0]
    near = energy[:, 96:105].sum()
    assert near > 0.999 * energy.sum()


def test_inner_frames_of_overlapping_chunks_agree():
    audio = noise(2, 8)
    first, second = transform.mdct(audio[:, : 6 * FRAME]), transform.mdct(audio[:, 3 * FRAME :])
    np.testing.assert_allclose(first[:, 4], second[:, 1], atol=1e-6)


@pytest.mark.parametrize("window", [2048, 4096])
def test_the_stft_inverts_and_white_noise_keeps_its_variance(window):
    audio = noise(3, 12)
    bins = transform.stft(audio, window)
    assert bins.shape == (2, 12, 2, window // 2 + 1)
    np.testing.assert_allclose(transform.inverse_stft(bins, window), audio, atol=1e-5)
    assert float(jnp.square(jnp.abs(bins[:, 2:-2])).mean()) == pytest.approx(1, abs=0.02)


def test_bands_are_cut_and_joined():
    coefficients = transform.mdct(noise(4, 2))
    parts = split_bands(coefficients, BANDS)
    assert [part.shape[2:] for part in parts] == [(4, 32), (3, 128), (3, 512)]
    np.testing.assert_array_equal(join_bands(parts, BANDS, 2), coefficients)
    spread_out = repeat_over_bands(jnp.arange(10.0)[None, None], BANDS)[0, 0, 0]
    assert spread_out[jnp.array([0, 64, -1])].tolist() == [0, 4, 9]


def conditioning_of(estimate: jax.Array, deviation: float) -> Conditioning:
    shape = (estimate.shape[0], estimate.shape[1] // FRAME, 2, FRAME)
    return Conditioning((), estimate, log_scale=jnp.full(shape, np.log(deviation)))


def test_the_velocity_about_a_sure_estimate_is_the_true_one():
    vocals, epsilon, sigma = noise(5, 4), noise(6, 4), jnp.array([0.3, 0.8])
    x = diffusion.diffuse(vocals, epsilon, sigma)
    gaussian = gaussian_velocity(x, sigma, conditioning_of(vocals, 2e-4))
    velocity = diffusion.velocity(vocals, epsilon, sigma)
    found = transform.inverse_mdct(gaussian.mean)
    np.testing.assert_allclose(found, velocity, atol=5e-3)
    assert float(gaussian.normalised.std()) == pytest.approx(1, abs=0.02)


def test_a_bands_error_is_shared_out_as_the_mixture_has_it():
    mixture = noise(11, 4)[..., :1] * jnp.array([[[1.0, 0.1]]])
    shares = np.exp(log_shares(mixture, BANDS, 0.6))
    for part in split_bands(jnp.square(shares), BANDS):
        np.testing.assert_allclose(part.mean(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(shares[:, :, 0] / shares[:, :, 1], 10**0.6, rtol=1e-3)
    power = jnp.square(transform.mdct(mixture)) + jnp.square(transform.mdst(mixture))
    smooth = np.convolve(power[1, 2, 0], [0.25, 0.5, 0.25], "same")
    last_band = slice(768, 1023)
    ratio = shares[1, 2, 0, last_band] / smooth[last_band] ** 0.3
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-3)
    np.testing.assert_allclose(log_shares(mixture, BANDS, 0.0), 0, atol=1e-6)


def test_untrained_it_draws_gaussian_samples_about_the_estimate():
    params = jax.jit(SMALL.init)(jax.random.key(0))
    mixture = noise(7, 8)
    conditioning = jax.jit(SMALL.condition)(params, mixture)
    np.testing.assert_allclose(conditioning.estimate, 0.3 * mixture, atol=0.05)

    def velocity(x, sigma):
        return SMALL.velocity(params, x, jnp.broadcast_to(sigma, (2,)), mixture, conditioning)

    drawn = samplers.ddim(velocity, noise(8, 8), steps=100)
    ratio = transform.mdct(drawn - conditioning.estimate)
    ratio /= jnp.exp(conditioning.log_scale)
    # DDIM of so many steps falls a little short (docs/method.md).
    np.testing.assert_allclose([float(part.std()) for part in ratio], 0.96, atol=0.04)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"conditioner": Conditioner()},
            "the generator is spectral and the conditioner is waveform",
        ),
        ({"target_rms": 0.1}, "target_rms is 0.1"),
        ({"estimate_error": 0.3}, "estimate_error is 0.3"),
        ({"segment": 8_000}, "segment is 8000"),
        ({"conditioner": SpectralConditioner()}, "bands"),
        ({"conditioner": SpectralConditioner(bands=BANDS, window=3000)}, "conditioner.window"),
        (
            {"conditioner": SpectralConditioner(bands=BANDS, scale_exponent=2.0)},
            "conditioner.scale_exponent",
        ),
        ({"conditioner": SpectralConditioner(bands=BANDS, wiener=-0.5)}, "conditioner.wiener"),
        ({"generator": SpectralGenerator(bands=((4, 16),))}, "generator.bands"),
        ({"generator": SpectralGenerator(widths=(64, 96))}, "generator.widths"),
        ({"generator": SpectralGenerator(fourier_scale=0.0)}, "generator.fourier_scale"),
    ],
)
def test_networks_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(SMALL, **changes)


def test_in_bfloat16_all_that_the_networks_correct_stays_float32():
    """Untrained, what they add is zero: transforms, masks, filter, error scale, preconditioning."""
    filtered = dataclasses.replace(SMALL, conditioner=SMALL.conditioner.clone(wiener=0.5))
    params = jax.jit(filtered.init)(jax.random.key(0))
    scale_of_levels = {  # the error's scale of what has no network before it
        "scale": jax.tree.map(jnp.zeros_like, params["conditioner"]["scale"]),
        "scale_levels": jax.tree.map(jnp.ones_like, params["conditioner"]["scale_levels"]),
    }
    params = {**params, "conditioner": {**params["conditioner"], **scale_of_levels}}
    mixture, x, sigma = noise(9, 8), noise(10, 8), jnp.array([0.2, 0.9])

    def outputs(dtype):
        model = dataclasses.replace(filtered, compute=Compute(dtype=dtype))

        @jax.jit
        def both(params):
            conditioning = model.condition(params, mixture)
            v = model.velocity(params, x, sigma, mixture, conditioning)
            return conditioning.estimate, conditioning.log_scale, v

        return both(params)

    for ours, expected in zip(outputs("bfloat16"), outputs("float32"), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-5, rtol=1e-5)
