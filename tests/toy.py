"""Networks of one gain per channel, for tests of the training loop: they compile in no time."""

import jax
import jax.numpy as jnp

from diffsep_jax.models.model import SeparationModel
from diffsep_jax.models.waveform.conditioner import Conditioning


def use_toy_networks(monkeypatch):
    """Every model of the waveform family has these until the test ends."""

    def init(model, key):
        shape = (1000 * model.generator.embedding_width, 2)  # most of a checkpoint's bytes
        names = ("generator", "conditioner")
        keys = jax.random.split(key)
        return {n: {"gain": jax.random.normal(k, shape)} for n, k in zip(names, keys, strict=True)}

    def condition(model, params, mixture, *, with_latent=False):
        estimate = gain(params["conditioner"]) * mixture
        return Conditioning((), estimate, estimate if with_latent else None)

    def velocity(model, params, x, sigma, mixture, conditioning):
        return gain(params["generator"]) * x - conditioning.estimate

    def gain(params):
        return 1.0 + jnp.mean(params["gain"], axis=0)[None, None]

    for method in (init, condition, velocity):
        monkeypatch.setattr(SeparationModel, method.__name__, method)
