"""The compiled chunk program: mixture chunks in, vocals chunks out, on all devices."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Float32, Int32, PRNGKeyArray

from diffsep_jax import samplers
from diffsep_jax.inference.settings import SamplerSettings
from diffsep_jax.noise import KEY_TYPE, white_noise
from diffsep_jax.separation_model import Params, SeparationModel

CHANNELS = 2

CHUNKS, SAME = P("data"), P()
"""Arrays split over the devices by chunk, and arrays that each device has whole."""

# Steps of the positional noise: the sampler starts from step 0, its move i refreshes by step i + 1.
_START = 0


class ChunkSeparator:
    """Separates batches of chunks with one model; one compilation for each sampler.

    Steps, eta, cutoff and seed are runtime values. The conditioner runs once per chunk; the loop
    over the steps carries x alone. Chunks are split over the devices, and each device works on its
    own without talking to the others.

    Attributes:
        segment: samples of a chunk.
        stride: samples in a frame of the networks' bottlenecks; `segment` is a multiple of it.
        sample_rate: Hz.
        batch_size: chunks of a call; the size asked for, rounded up to a multiple of the devices.
    """

    def __init__(
        self,
        model: SeparationModel,
        params: Params,
        *,
        batch_size: int = 4,
        devices: Sequence[jax.Device] | None = None,
    ) -> None:
        """`devices`: all of this process by default."""
        devices = jax.local_devices() if devices is None else devices
        self.segment = model.segment
        self.stride = max(model.generator.stride, model.conditioner.stride)
        self.sample_rate = model.sample_rate
        self.batch_size = batch_size + -batch_size % len(devices)
        mesh = chunk_mesh(devices)
        self._by_chunk = NamedSharding(mesh, CHUNKS)
        self._everywhere = NamedSharding(mesh, SAME)
        self._params = jax.device_put(params, self._everywhere)

        self._ddim = sampling_program(model, mesh)
        self._direct = direct_program(model, mesh)

    def __call__(
        self,
        mixture: Float32[np.ndarray, "batch segment 2"],
        start: Int32[np.ndarray, "batch"],
        settings: SamplerSettings,
    ) -> Float32[np.ndarray, "batch segment 2"]:
        """Vocals of `batch_size` chunks.

        Args:
            mixture: chunks at the model's level and rate.
            start: position in the track of each chunk's first sample, which the noise depends on.
            settings: runtime values.
        """
        chunks = jax.device_put((mixture, start), self._by_chunk)
        if settings.sampler == "direct":
            return np.asarray(self._direct(self._params, *chunks))
        values = (
            jax.random.key(settings.seed, impl=KEY_TYPE),
            jnp.int32(settings.steps),
            jnp.float32(settings.eta),
            jnp.float32(settings.cutoff_hz or 0.0),
        )
        values = jax.device_put(values, self._everywhere)
        return np.asarray(self._ddim(self._params, *chunks, *values))

    @property
    def num_compilations(self) -> int:
        """Programs compiled so far."""
        return self._ddim._cache_size() + self._direct._cache_size()


def chunk_mesh(devices: Sequence[jax.Device]) -> Mesh:
    """A mesh of one axis, over which chunks are split."""
    return jax.make_mesh((len(devices),), ("data",), (AxisType.Auto,), devices=devices)


def sampling_program(model: SeparationModel, mesh: Mesh) -> Any:
    """The sampler, jitted: (params, mixture, start, key, steps, eta, cutoff_hz) -> vocals.

    It may be lowered with `abstract_arguments`, for devices that are not here.
    """

    def sample(
        params: Params,
        mixture: Float[Array, "batch segment 2"],
        start: Array,
        key: PRNGKeyArray,
        steps: Array,
        eta: Array,
        cutoff_hz: Array,
    ) -> Float[Array, "batch segment 2"]:
        conditioning = model.condition(params, mixture)

        def velocity(x: Array, sigma: Array) -> Array:
            sigmas = jnp.broadcast_to(sigma, x.shape[:1])
            return model.velocity(params, x, sigmas, mixture, conditioning)

        def noise(step: int | Array) -> Array:
            return white_noise(key, step, start, length=model.segment, channels=CHANNELS)

        return samplers.ddim(
            velocity,
            noise(_START),
            key,
            num_steps=steps,
            eta=eta,
            cutoff_hz=cutoff_hz,
            sample_rate=model.sample_rate,
            noise_fn=lambda move: noise(move + 1),
        )

    return _on_each_device(sample, mesh, num_runtime_values=4)


def direct_program(model: SeparationModel, mesh: Mesh) -> Any:
    """The direct estimate, jitted: (params, mixture, start) -> vocals."""

    def estimate(
        params: Params, mixture: Float[Array, "batch segment 2"], start: Array
    ) -> Float[Array, "batch segment 2"]:
        del start  # no noise
        return model.condition(params, mixture).estimate

    return _on_each_device(estimate, mesh, num_runtime_values=0)


def abstract_arguments(model: SeparationModel, mesh: Mesh, batch_size: int) -> tuple[Any, ...]:
    """The sampler's arguments without data; the direct estimate's are the first three."""

    def array(shape: tuple[int, ...], dtype: Any, spec: P) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))

    key = jax.eval_shape(lambda: jax.random.key(0, impl=KEY_TYPE))
    params = jax.eval_shape(model.init, key)
    return (
        jax.tree.map(lambda leaf: array(leaf.shape, leaf.dtype, SAME), params),
        array((batch_size, model.segment, CHANNELS), jnp.float32, CHUNKS),
        array((batch_size,), jnp.int32, CHUNKS),
        key,
        array((), jnp.int32, SAME),
        array((), jnp.float32, SAME),
        array((), jnp.float32, SAME),
    )


def _on_each_device(function: Any, mesh: Mesh, num_runtime_values: int) -> Any:
    specs = (SAME, CHUNKS, CHUNKS, *(SAME,) * num_runtime_values)
    return jax.jit(
        jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=CHUNKS, check_vma=False)
    )
