"""The paper's sampler with the networks in eager PyTorch, timed in turns with ours."""

import functools
import os
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.torch_layers import Audio
from benchmarks.torch_networks import TorchModel, alpha_beta
from diffsep_jax.inference.settings import SamplerSettings
from diffsep_jax.models.model import Params, SeparationModel
from diffsep_jax.noise import high_pass_gain
from diffsep_jax.samplers import move_coefficients


def ddim(
    model: TorchModel,
    mixture: Audio,
    noise: Audio,
    *,
    num_steps: int,
    eta: float,
    gain: Float[Tensor, "bin"],
) -> Audio:
    """Vocals from noise by equations (5), (6) and (10); `gain` filters the fresh noise."""
    levels = np.linspace(1, 0, num_steps + 1, dtype=np.float32)
    before, after = jnp.asarray(levels[:-1]), jnp.asarray(levels[1:])
    moves = np.stack(move_coefficients(before, after, eta), axis=1).tolist()
    with torch.no_grad():
        embeddings, estimate, _ = model.condition(mixture)
        x = noise
        for step in range(num_steps):
            sigma = torch.full((len(x),), float(levels[step]))
            v = model.velocity(x, sigma, mixture, embeddings, estimate)
            alpha_t, beta_t = alpha_beta(sigma)
            x0_hat = alpha_t * x - beta_t * v
            if step == num_steps - 1:
                return x0_hat
            noise_hat = beta_t * x + alpha_t * v
            alpha, beta, delta = moves[step]
            x = alpha * x0_hat + beta * noise_hat
            if eta > 0:
                spectrum = torch.fft.rfft(torch.randn_like(x), dim=1) * gain[None, :, None]
                x = x + delta * torch.fft.irfft(spectrum, n=x.shape[1], dim=1)
    raise ValueError(f"num_steps is {num_steps}; expected 1 or more")


def runs_in_torch(
    model: SeparationModel, params: Params, batch_size: int, steps: int
) -> dict[str, Callable[[], None]]:
    """A batch of chunks by the default settings, with all threads and with one."""
    theirs = TorchModel(model, params)
    settings = SamplerSettings()
    cutoff_hz = settings.cutoff_hz
    gain = torch.from_numpy(np.array(high_pass_gain(cutoff_hz, model.segment, model.sample_rate)))
    draw = np.random.default_rng(0).standard_normal
    mixture = torch.from_numpy(draw((batch_size, model.segment, 2), np.float32))

    def run(threads: int) -> None:
        torch.set_num_threads(threads)
        noise = torch.randn_like(mixture)
        ddim(theirs, mixture, noise, num_steps=steps, eta=settings.eta, gain=gain)

    return {
        f"PyTorch ddim, {steps}, {threads} threads": functools.partial(run, threads)
        for threads in dict.fromkeys((len(os.sched_getaffinity(0)), 1))
    }
