"""The networks in PyTorch agree with ours: a second implementation, with the same weights."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import micro
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import configs
from diffsep_jax import samplers
from diffsep_jax.training.optimizer import OptimizerConfig
from diffsep_jax.training.sharding import MeshConfig, make_mesh
from diffsep_jax.training.step import draw_noise, draw_noise_levels, example_losses, train_program

torch = pytest.importorskip("torch")

from benchmarks.torch_layers import to_torch  # noqa: E402
from benchmarks.torch_networks import Optimizer, TorchModel  # noqa: E402
from benchmarks.torch_sampling import compiled_field, ddim, torch_field  # noqa: E402
from benchmarks.torch_spectral import TorchSpectralModel  # noqa: E402

BATCH_SIZE = 2


def audio(model, seed):
    return np.random.default_rng(seed).standard_normal((BATCH_SIZE, model.segment, 2), np.float32)


def assert_agree(theirs, ours):
    """To 1e-5 of the largest value."""
    ours = np.asarray(ours)
    np.testing.assert_allclose(
        theirs.detach().numpy(), ours, rtol=0, atol=1e-5 * np.abs(ours).max()
    )


@pytest.mark.slow
def test_estimates_and_velocities_agree():
    model = configs.get("tiny").model
    params = micro.random_params(model)
    theirs = TorchModel(model, params)
    mixture, x = audio(model, 0), audio(model, 1)
    ours = jax.jit(model.condition)(params, mixture)
    velocity = jax.jit(model.velocity)
    with torch.no_grad():
        embeddings, estimate, _ = theirs.condition(torch.from_numpy(mixture))
        assert_agree(estimate, ours.estimate)
        for sigmas in ((0.0, 0.3), (0.9, 1.0)):
            sigma = np.array(sigmas, np.float32)
            v = theirs.velocity(*map(torch.from_numpy, (x, sigma, mixture)), embeddings, estimate)
            assert_agree(v, velocity(params, x, sigma, mixture, ours))


def test_deterministic_sampling_agrees():
    model = micro.MODEL
    params = micro.random_params(model)
    mixture, noise = audio(model, 0), audio(model, 1)

    @jax.jit
    def sample(params, mixture, noise):
        conditioning = model.condition(params, mixture)

        def velocity(x, sigma):
            sigmas = jnp.broadcast_to(sigma, x.shape[:1])
            return model.velocity(params, x, sigmas, mixture, conditioning)

        return samplers.ddim(velocity, noise, steps=3)

    expected = sample(params, mixture, noise)
    mixture, noise = torch.from_numpy(mixture), torch.from_numpy(noise)
    gain = torch.ones(model.segment // 2 + 1)
    for field in (
        torch_field(TorchModel(model, params), mixture),
        compiled_field(model, params, len(mixture))(mixture),
    ):
        assert_agree(ddim(field, noise, num_steps=3, eta=0.0, gain=gain), expected)


def test_fresh_noise_enters_as_in_ours(monkeypatch):
    noise = audio(micro.MODEL, 1)
    fresh = np.random.default_rng(2).standard_normal((3, *noise.shape)).astype(np.float32)
    draws = iter(map(torch.from_numpy, fresh))
    monkeypatch.setattr(torch, "randn_like", lambda x: next(draws))
    theirs = ddim(
        lambda x, level: (1 - level) * x,
        torch.from_numpy(noise),
        num_steps=3,
        eta=0.7,
        gain=torch.ones(noise.shape[1] // 2 + 1),
    )
    ours = samplers.ddim(
        lambda x, sigma: (1 - sigma) * x,
        jnp.asarray(noise),
        steps=3,
        eta=0.7,
        noise_fn=lambda step: jnp.asarray(fresh)[step],
    )
    assert_agree(theirs, ours)


@pytest.mark.parametrize("changes", [{}, {"skips": "add", "estimate_error": None}])
def test_gradients_agree(changes):
    model = dataclasses.replace(
        micro.MODEL,
        estimate_error=changes.get("estimate_error", 0.3),
        conditioner=dataclasses.replace(
            micro.MODEL.conditioner, skips=changes.get("skips", "gate")
        ),
    )
    params = micro.random_params(model)
    mixture, vocals, noise = (audio(model, seed) for seed in range(3))
    sigma = np.array([0.2, 0.9], np.float32)
    config = micro.TRAIN

    def mean_loss(params, mixture, vocals, sigma, noise):
        batch = {"mixture": mixture, "vocals": vocals}
        return example_losses(model, config, params, batch, sigma, noise, jnp.int32(0))[0].mean()

    given = (mixture, vocals, sigma, noise)
    loss, gradients = jax.jit(jax.value_and_grad(mean_loss))(params, *given)
    theirs = TorchModel(model, params)
    their_loss = theirs.loss(*map(torch.from_numpy, given), config.loss_weights)
    their_loss.backward()
    np.testing.assert_allclose(their_loss.item(), loss, rtol=1e-5)
    ours = flatten_dict(to_torch(gradients), sep="/")
    # Biases before a GroupNorm have gradients that cancel, down to 5e-6 of the whole here.
    least = 1e-4 * math.hypot(*(each.detach().norm().item() for each in ours.values()))
    for name, parameter in flatten_dict(theirs.params, sep="/").items():
        error = (parameter.grad - ours[name]).norm() / max(ours[name].norm(), least)
        assert error < 1e-4, (name, error)


def test_train_steps_agree():
    """Noise given, a step clips, decays, updates and averages alike."""
    model = micro.MODEL
    config = dataclasses.replace(
        micro.TRAIN,
        num_steps=1_000_000,  # the learning rate stays at its peak
        optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=0, weight_decay=0.1),
    )
    params = micro.random_params(model)
    batch = {"mixture": audio(model, 0), "vocals": audio(model, 1)}
    batch["mixture"][1] = 0  # digital silence teaches nothing
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    program = train_program(model, config, mesh)
    key = jax.random.key(3)
    state = program.init(key)._replace(params=params, ema=params)

    theirs = TorchModel(model, params)
    optimizer = Optimizer(theirs.params, config)
    for taken in range(2):
        sigma_key, noise_key = jax.random.split(jax.random.fold_in(key, taken))
        sigma = draw_noise_levels(sigma_key, BATCH_SIZE, config)
        noise = draw_noise(noise_key, jnp.arange(BATCH_SIZE), (model.segment, 2))
        with jax.set_mesh(mesh):
            state, metrics = program.step(state, batch, key)
        given = (batch["mixture"], batch["vocals"], np.array(sigma), np.array(noise))
        loss = theirs.loss(*map(torch.from_numpy, given), config.loss_weights)
        optimizer.descend(loss)
        np.testing.assert_allclose(loss.item(), metrics["loss"], rtol=1e-4)

    assert_moved_alike(optimizer, params, state)


def test_stage_one_of_the_spectral_family_agrees():
    """Outputs, and two steps from the same parameters."""
    model = configs.get("tiny_spectral").model
    config = dataclasses.replace(
        configs.get("tiny_spectral").train,
        freeze="generator",
        num_steps=1_000_000,  # the learning rate stays at its peak
        optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=0, weight_decay=0.1),
    )
    params = micro.random_params(model)
    batch = {"mixture": audio(model, 0), "vocals": audio(model, 1)}
    theirs = TorchSpectralModel(model.conditioner, params)
    ours = jax.jit(model.condition)(params, batch["mixture"])
    estimate, log_scale = theirs.condition(torch.from_numpy(batch["mixture"]))
    assert_agree(estimate, ours.estimate)
    assert_agree(log_scale, ours.log_scale)

    batch["mixture"][1] = 0  # digital silence teaches nothing
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    program = train_program(model, config, mesh)
    key = jax.random.key(3)
    state = program.init(key)._replace(params=params, ema=params)
    optimizer = Optimizer(theirs.params, config)
    for _ in range(2):
        with jax.set_mesh(mesh):
            state, metrics = program.step(state, batch, key)
        given = (torch.from_numpy(batch[name]) for name in ("mixture", "vocals"))
        loss = theirs.loss(*given, config.loss_weights)
        optimizer.descend(loss)
        np.testing.assert_allclose(loss.item(), metrics["loss"], rtol=1e-4)
    assert_moved_alike(optimizer, params, state)


def assert_moved_alike(optimizer, before, state):
    """To a thousandth of how far our steps went, parameters and average."""
    names = [name for name in ("conditioner", "generator") if name in optimizer.params]
    before, params, ema = (
        jax.tree.leaves(to_torch({name: tree[name] for name in names}))
        for tree in (before, state.params, state.ema)
    )
    moved = _distance(params, before)
    assert _distance(optimizer.parameters, params) < 1e-3 * moved
    assert _distance(optimizer.ema, ema) < 1e-3 * moved


def _distance(parameters, others):
    differences = (p - q for p, q in zip(parameters, others, strict=True))
    return math.sqrt(sum(d.detach().square().sum().item() for d in differences))
