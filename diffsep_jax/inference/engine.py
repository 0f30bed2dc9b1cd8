"""The compiled chunk program: mixture chunks in, vocals chunks out, on all devices."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Float32, Int32, PRNGKeyArray

from diffsep_jax import samplers
from diffsep_jax.inference.settings import SamplerSettings
from diffsep_jax.noise import white_noise
from diffsep_jax.separation_model import Params, SeparationModel

CHANNELS = 2

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
        self._model = model
        mesh = jax.make_mesh((len(devices),), ("data",), (AxisType.Auto,), devices=devices)
        self._by_chunk = NamedSharding(mesh, P("data"))
        self._everywhere = NamedSharding(mesh, P())
        self._params = jax.device_put(params, self._everywhere)

        def on_each_device(function: Any, num_runtime_values: int) -> Any:
            chunks, same = P("data"), P()
            specs = (same, chunks, chunks, *(same,) * num_runtime_values)
            return jax.jit(
                jax.shard_map(
                    function, mesh=mesh, in_specs=specs, out_specs=chunks, check_vma=False
                )
            )

        self._ddim = on_each_device(self._sample, 4)
        self._direct = on_each_device(self._estimate, 0)

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
            # By name: the default may be set to another by an environment variable.
            jax.random.key(settings.seed, impl="threefry2x32"),
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

    def _estimate(
        self, params: Params, mixture: Float[Array, "batch segment 2"], start: Array
    ) -> Float[Array, "batch segment 2"]:
        del start  # no noise
        return self._model.condition(params, mixture).estimate

    def _sample(
        self,
        params: Params,
        mixture: Float[Array, "batch segment 2"],
        start: Array,
        key: PRNGKeyArray,
        steps: Array,
        eta: Array,
        cutoff_hz: Array,
    ) -> Float[Array, "batch segment 2"]:
        conditioning = self._model.condition(params, mixture)

        def velocity(x: Array, sigma: Array) -> Array:
            sigmas = jnp.broadcast_to(sigma, x.shape[:1])
            return self._model.velocity(params, x, sigmas, mixture, conditioning)

        def noise(step: int | Array) -> Array:
            return white_noise(key, step, start, length=self.segment, channels=CHANNELS)

        return samplers.ddim(
            velocity,
            noise(_START),
            key,
            num_steps=steps,
            eta=eta,
            cutoff_hz=cutoff_hz,
            sample_rate=self.sample_rate,
            noise_fn=lambda move: noise(move + 1),
        )
