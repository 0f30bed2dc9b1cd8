"""What the loss of each stage is made of, and which network it trains."""

import dataclasses

import jax
import jax.numpy as jnp
import micro
import numpy as np
import pytest

from diffsep_jax import diffusion
from diffsep_jax.errors import UserError
from diffsep_jax.losses import LossWeights
from diffsep_jax.models.spectral.transform import mdct
from diffsep_jax.samplers import adams_bashforth_2
from diffsep_jax.training.config import TrainConfig
from diffsep_jax.training.sharding import MeshConfig, make_mesh
from diffsep_jax.training.step import example_losses, train_program

TERMS = {
    "waveform": {"diffusion", "latent", "reconstruction"},
    "spectral": {"diffusion", "normalised", "reconstruction", "scale"},
}
OF_THE_GENERATOR = {"diffusion", "normalised"}


def batch_of(model, rows=2):
    vocals, rest = jax.random.normal(jax.random.key(1), (2, rows, model.segment, 2)) * 0.5
    return {"vocals": vocals, "mixture": vocals + rest}


def losses_of(model, config, params, batch):
    noise = jax.random.normal(jax.random.key(2), batch["vocals"].shape)
    sigma = jnp.array([0.3, 1.0])
    function = jax.jit(lambda *given: example_losses(model, config, *given))
    return *function(params, batch, sigma, noise, jnp.int32(0)), sigma, noise


@pytest.mark.parametrize("family", micro.FAMILIES)
@pytest.mark.parametrize("freeze", ["none", "generator", "conditioner"])
def test_the_loss_is_the_weighted_sum_of_the_trained_networks_terms(family, freeze):
    model = micro.FAMILIES[family]
    weights = LossWeights(
        latent=0.5 if family == "waveform" else 0.0, reconstruction=2.0, scale=0.3, normalised=0.25
    )
    params, batch = micro.random_params(model), batch_of(model)
    config = TrainConfig(freeze=freeze, loss_weights=weights)
    total, terms, *_ = losses_of(model, config, params, batch)
    left_out = {"none": set(), "generator": OF_THE_GENERATOR}.get(
        freeze, TERMS[family] - OF_THE_GENERATOR
    )
    assert set(terms) == TERMS[family] - left_out
    share = 0.25 if family == "spectral" else 0.0
    factors = {
        "diffusion": 1 - share,
        "normalised": share,
        "latent": 0.5,
        "reconstruction": 2.0,
        "scale": 0.3,
    }
    expected = sum(factors[name] * value for name, value in terms.items())
    np.testing.assert_allclose(total, expected, rtol=1e-5)


def test_blocks_of_the_loss_divide_the_segment():
    weights = LossWeights(log_floor=0.05, log_blocks=3)
    with pytest.raises(UserError, match="log_blocks is 3; expected a divisor of the segment of"):
        train_program(micro.MODEL, TrainConfig(loss_weights=weights), make_mesh(MeshConfig()))


def test_the_terms_of_the_waveform_family_are_mean_squares():
    model, batch = micro.MODEL, batch_of(micro.MODEL)
    params = micro.random_params(model)
    config = TrainConfig(loss_weights=LossWeights(log_floor=0.05))
    _, terms, sigma, noise = losses_of(model, config, params, batch)
    vocals, mixture = batch["vocals"], batch["mixture"]
    conditioning = model.condition(params, mixture, with_latent=True)
    x = diffusion.diffuse(vocals, noise, sigma)
    v_hat = model.velocity(params, x, sigma, mixture, conditioning)
    v = diffusion.velocity(vocals, noise, sigma)
    expected = {
        "reconstruction": jnp.log(jnp.square(conditioning.estimate - vocals).mean((1, 2)) + 0.05),
        "latent": jnp.square(conditioning.latent_estimate - vocals).mean((1, 2)),
        "diffusion": jnp.square(v_hat - v).mean((1, 2)),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(terms[name], value, rtol=1e-4, err_msg=name)


def test_an_untrained_spectral_generators_error_is_its_target():
    """Its output is zero: its error in units of the output is what it should have been."""
    model, batch = micro.SPECTRAL, batch_of(micro.SPECTRAL)
    params = model.init(jax.random.key(0))
    _, terms, sigma, noise = losses_of(model, TrainConfig(), params, batch)
    conditioning = model.condition(params, batch["mixture"])
    scale = np.exp(conditioning.log_scale)
    alpha, beta = (np.asarray(w)[:, None, None, None] for w in diffusion.alpha_beta(sigma))
    error = np.asarray(mdct(batch["vocals"] - conditioning.estimate))
    # For v - m in units of s and the noise: (beta d / s - alpha s eps) / sqrt(t)
    target = beta * error / scale - alpha * scale * np.asarray(mdct(noise))
    target = target / np.sqrt(np.square(alpha * scale) + np.square(beta))
    expected = (np.square(target) / (1 + np.square(target) / 9)).mean((1, 2, 3))
    np.testing.assert_allclose(terms["normalised"], expected, rtol=1e-3)


def test_the_generator_is_trained_through_the_sampler():
    model, batch = micro.SPECTRAL, batch_of(micro.SPECTRAL)
    params = model.init(jax.random.key(0))
    config = TrainConfig(freeze="conditioner", unrolled_steps=(1, 2), unrolled_schedule=2.0)
    noise = jax.random.normal(jax.random.key(2), batch["vocals"].shape)

    @jax.jit
    def terms_and_gradients(step):
        def loss(generator):
            sigma = jnp.array([0.3, 1.0])
            both = params | {"generator": generator}
            total, terms = example_losses(model, config, both, batch, sigma, noise, step)
            return total.sum(), terms

        (_, terms), gradients = jax.value_and_grad(loss, has_aux=True)(params["generator"])
        return terms, gradients

    @jax.jit
    def error_in_two_steps():
        conditioning = model.condition(params, batch["mixture"])

        def velocity(x, sigma):
            sigmas = jnp.broadcast_to(sigma, x.shape[:1])
            return model.velocity(params, x, sigmas, batch["mixture"], conditioning)

        sample = adams_bashforth_2(velocity, noise, steps=2, schedule=2.0)
        return jnp.square(sample - batch["vocals"]).mean((1, 2))

    errors = []
    for step in range(3):
        terms, gradients = terms_and_gradients(jnp.int32(step))
        errors.append(terms["sample"])
        assert max(jnp.abs(leaf).max() for leaf in jax.tree.leaves(gradients)) > 0
    np.testing.assert_allclose(errors[1], error_in_two_steps(), rtol=1e-4)
    np.testing.assert_array_equal(errors[2], errors[0])
    assert set(terms) == {"diffusion", "normalised", "sample", "spectra"}


@pytest.mark.parametrize("freeze", ["generator", "conditioner"])
def test_a_frozen_network_stays_as_it_is(freeze):
    config = dataclasses.replace(micro.TRAIN, freeze=freeze)
    program = train_program(micro.SPECTRAL, config, make_mesh(MeshConfig(), jax.devices()[:1]))
    state = program.init(jax.random.key(0))
    before = jax.device_get(state.params)
    batch = batch_of(micro.SPECTRAL, micro.BATCH_SIZE)
    for _ in range(2):
        state, _ = program.step(state, batch, jax.random.key(1))
    for network in ("generator", "conditioner"):
        changes = jax.tree.map(
            lambda a, b: float(jnp.abs(a - b).max()), before[network], state.params[network]
        )
        assert (max(jax.tree.leaves(changes)) == 0) == (network == freeze), network
