"""The DDIM of diffusers, over our velocity or over the networks in eager PyTorch."""

import functools
import math
import os
from collections.abc import Callable

import jax
import numpy as np
import torch
from diffusers import DDIMScheduler
from jax.sharding import NamedSharding
from jaxtyping import Float
from torch import Tensor

from benchmarks.torch_layers import Audio
from benchmarks.torch_networks import TorchModel
from diffsep_jax.inference.engine import CHUNKS, SAME, chunk_mesh
from diffsep_jax.inference.settings import SamplerSettings
from diffsep_jax.models.model import Params, SeparationModel
from diffsep_jax.models.waveform.generator import Generator
from diffsep_jax.noise import high_pass_gain

Field = Callable[[Audio, float], Audio]
"""(x, noise level) -> velocity."""


def ddim(
    velocity: Field,
    noise: Audio,
    *,
    num_steps: int,
    eta: float,
    gain: Float[Tensor, "bin"],
) -> Audio:
    """Vocals from noise by the DDIM of diffusers; `gain` filters the fresh noise."""
    levels = np.arange(1, num_steps + 1) / num_steps
    signal = np.sin(np.pi / 2 * (1 - levels)) ** 2  # alpha^2, exactly 0 at a level of 1
    scheduler = DDIMScheduler(
        num_steps,
        trained_betas=1 - signal / np.append(1, signal[:-1]),
        prediction_type="v_prediction",
        clip_sample=False,
    )
    scheduler.set_timesteps(num_steps)
    x = noise
    for step in scheduler.timesteps:
        fresh = None
        if eta > 0:
            spectrum = torch.fft.rfft(torch.randn_like(x), dim=1) * gain[None, :, None]
            fresh = torch.fft.irfft(spectrum, n=x.shape[1], dim=1)
        v = velocity(x, float(levels[step]))
        x = scheduler.step(v, step, x, eta=eta, variance_noise=fresh).prev_sample
    return x


def torch_field(model: TorchModel, mixture: Audio) -> Field:
    """The velocity of the networks in PyTorch."""
    embeddings, estimate, _ = model.condition(mixture)

    def velocity(x: Audio, level: float) -> Audio:
        return model.velocity(x, torch.full((len(x),), level), mixture, embeddings, estimate)

    return velocity


def compiled_field(
    model: SeparationModel, params: Params, batch_size: int
) -> Callable[[Audio], Field]:
    """mixture -> velocity of our networks, each compiled alone, over as many devices as divide."""
    mesh = chunk_mesh(jax.devices()[: math.gcd(batch_size, len(jax.devices()))])
    by_chunk = NamedSharding(mesh, CHUNKS)
    on_mesh = functools.partial(jax.shard_map, mesh=mesh, out_specs=CHUNKS, check_vma=False)
    condition = jax.jit(on_mesh(model.condition, in_specs=(SAME, CHUNKS)))
    predict = jax.jit(on_mesh(model.velocity, in_specs=(SAME, CHUNKS, CHUNKS, CHUNKS, CHUNKS)))
    params = jax.device_put(params, NamedSharding(mesh, SAME))

    def field(mixture: Audio) -> Field:
        mixed = jax.device_put(mixture.numpy(), by_chunk)
        conditioning = condition(params, mixed)

        def velocity(x: Audio, level: float) -> Audio:
            given = jax.device_put((x.numpy(), np.full(len(x), level, np.float32)), by_chunk)
            return torch.from_numpy(np.array(predict(params, *given, mixed, conditioning)))

        return velocity

    return field


def runs_of_diffusers(
    model: SeparationModel, params: Params, batch_size: int, steps: int
) -> dict[str, Callable[[], None]]:
    """A batch of chunks by the default settings: over our compiled velocity and, for the waveform
    family, over the networks in PyTorch, with all threads and with one."""
    settings = SamplerSettings()
    response = high_pass_gain(settings.cutoff_hz, model.segment, model.sample_rate)
    gain = torch.from_numpy(np.array(response))
    draw = np.random.default_rng(0).standard_normal
    mixture = torch.from_numpy(draw((batch_size, model.segment, 2), np.float32))

    def run(field: Callable[[Audio], Field], threads: int) -> None:
        torch.set_num_threads(threads)
        with torch.no_grad():
            noise = torch.randn_like(mixture)
            ddim(field(mixture), noise, num_steps=steps, eta=settings.eta, gain=gain)

    cores = len(os.sched_getaffinity(0))
    ours = compiled_field(model, params, batch_size)
    runs: dict[str, Callable[[], None]] = {
        f"diffusers ddim, {steps}, our velocity": functools.partial(run, ours, cores)
    }
    if isinstance(model.generator, Generator):
        theirs = functools.partial(torch_field, TorchModel(model, params))
        runs |= {
            f"diffusers ddim, {steps}, PyTorch, {threads} threads": functools.partial(
                run, theirs, threads
            )
            for threads in dict.fromkeys((cores, 1))
        }
    return runs
