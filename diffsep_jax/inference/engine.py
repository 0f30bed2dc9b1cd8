"""The compiled chunk program: mixture chunks in, vocals chunks out, on all devices."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Float32, Int32

from diffsep_jax import diffusion, samplers
from diffsep_jax.inference.chunks import DEFAULT_BATCH_SIZE
from diffsep_jax.inference.settings import SamplerSettings
from diffsep_jax.noise import KEY_TYPE, crossover, white_noise
from diffsep_jax.separation_model import Params, SeparationModel

CHANNELS = 2

CHUNKS, SAME = P("data"), P()
"""Arrays split over the devices by chunk, and arrays that each device has whole."""

# Steps of the positional noise: the sampler starts from step 0, its move i refreshes by step i + 1.
_START = 0

ITERATIVE: tuple[Literal["ddim", "ab2"], ...] = ("ddim", "ab2")
"""The samplers that call the generator; `direct` does not."""

RUNTIME_TYPES: dict[str, type[np.generic]] = {
    "seed": np.uint32,
    "steps": np.int32,
    "eta": np.float32,
    "cutoff_hz": np.float32,
    "start_sigma": np.float32,
    "schedule": np.float32,
    "temperature": np.float32,
    "crossover_hz": np.float32,
    "ensemble": np.int32,
}
"""The runtime values of a sampler, in the order of its arguments. A cutoff of 0 is none."""


class ChunkSeparator:
    """Separates batches of chunks with one model; one compilation for each sampler.

    A refinement is one more. All of `RUNTIME_TYPES` are runtime values.
    The conditioner runs once per chunk, however many steps and seeds. Chunks are split over the
    devices, and each device works on its own without talking to the others.

    Attributes:
        segment: samples of a chunk.
        stride: samples in a frame of the networks' bottlenecks; `segment` is a multiple of it.
        sample_rate: Hz.
        min_overlap: samples that chunks must overlap by.
        batch_size: chunks of a call; the size asked for, rounded up to a multiple of the devices.
    """

    def __init__(
        self,
        model: SeparationModel,
        params: Params,
        *,
        batch_size: int = DEFAULT_BATCH_SIZE,
        devices: Sequence[jax.Device] | None = None,
    ) -> None:
        """`devices`: all of this process by default."""
        devices = jax.local_devices() if devices is None else devices
        self.segment = model.segment
        self.stride = max(model.generator.stride, model.conditioner.stride)
        self.sample_rate = model.sample_rate
        self.min_overlap = model.min_overlap
        self.batch_size = whole_batch(batch_size, devices)
        mesh = chunk_mesh(devices)
        self._by_chunk = NamedSharding(mesh, CHUNKS)
        self._everywhere = NamedSharding(mesh, SAME)
        self._params = jax.device_put(params, self._everywhere)

        self._iterative = {name: sampling_program(model, mesh, name) for name in ITERATIVE}
        self._direct = direct_program(model, mesh)

    def __call__(
        self,
        mixture: Float32[np.ndarray, "batch segment 2"],
        start: Int32[np.ndarray, "batch"],
        settings: SamplerSettings,
        guess: Float32[np.ndarray, "batch segment 2"] | None = None,
    ) -> Float32[Array, "batch segment 2"]:
        """Vocals of `batch_size` chunks, which the devices may still be computing.

        Args:
            mixture: chunks at the model's level and rate.
            start: position in the track of each chunk's first sample, which the noise depends on.
            settings: runtime values.
            guess: vocals to start from at `settings.start_sigma`, scaled as `mixture`; None is the
                direct estimate.
        """
        chunks = jax.device_put((mixture, start), self._by_chunk)
        if settings.sampler == "direct":
            return self._direct(self._params, *chunks)
        if guess is not None:
            guess = jax.device_put(guess, self._by_chunk)
        values = jax.device_put(runtime_values(settings), self._everywhere)
        program = self._iterative[settings.sampler]
        return program(self._params, *chunks, guess, *values)

    @property
    def num_compilations(self) -> int:
        """Programs compiled so far."""
        programs = (*self._iterative.values(), self._direct)
        return sum(program._cache_size() for program in programs)


def runtime_values(settings: SamplerSettings) -> list[np.ndarray]:
    """The last arguments of a sampler's program, typed."""
    return [np.asarray(getattr(settings, name), dtype) for name, dtype in RUNTIME_TYPES.items()]


def whole_batch(batch_size: int, devices: Sequence[jax.Device]) -> int:
    """The batch size, rounded up to a multiple of the devices."""
    return batch_size + -batch_size % len(devices)


def chunk_mesh(devices: Sequence[jax.Device]) -> Mesh:
    """A mesh of one axis, over which chunks are split."""
    return jax.make_mesh((len(devices),), ("data",), (AxisType.Auto,), devices=devices)


def sampling_program(
    model: SeparationModel, mesh: Mesh, sampler: Literal["ddim", "ab2"] = "ddim"
) -> Any:
    """`sampling_function`, jitted.

    It may be lowered with `abstract_arguments`, for devices that are not here.
    """
    function = sampling_function(model, sampler)
    return _on_each_device(function, mesh, num_chunked=3, num_runtime_values=len(RUNTIME_TYPES))


def direct_program(model: SeparationModel, mesh: Mesh) -> Any:
    """`direct_function`, jitted."""
    return _on_each_device(direct_function(model), mesh, num_chunked=2, num_runtime_values=0)


def sampling_function(
    model: SeparationModel, sampler: Literal["ddim", "ab2"] = "ddim"
) -> Callable[..., Float[Array, "batch segment 2"]]:
    """A sampler, for one device.

    (params, mixture, start, guess, *runtime values in the order of `RUNTIME_TYPES`) -> vocals, the
    mean over `ensemble` seeds from `seed` up. A `guess` of None stands for the direct estimate.
    """

    def sample(
        params: Params,
        mixture: Float[Array, "batch segment 2"],
        start: Array,
        guess: Float[Array, "batch segment 2"] | None,
        seed: Array,
        steps: Array,
        eta: Array,
        cutoff_hz: Array,
        start_sigma: Array,
        schedule: Array,
        temperature: Array,
        crossover_hz: Array,
        ensemble: Array,
    ) -> Float[Array, "batch segment 2"]:
        conditioning = model.condition(params, mixture)
        if guess is None:
            guess = conditioning.estimate

        def velocity(x: Array, sigma: Array) -> Array:
            sigmas = jnp.broadcast_to(sigma, x.shape[:1])
            return model.velocity(params, x, sigmas, mixture, conditioning)

        def draw(member: Array) -> Array:
            key = jax.random.key(seed + member.astype(jnp.uint32), impl=KEY_TYPE)

            def noise(step: int | Array) -> Array:
                return white_noise(key, step, start, length=model.segment, channels=CHANNELS)

            x = temperature * noise(_START)
            # At 1 the two are equal, up to what a device makes of sin(pi/2).
            x = jnp.where(start_sigma < 1, diffusion.diffuse(guess, x, start_sigma), x)
            grid: dict[str, Any] = {
                "num_steps": steps,
                "start_sigma": start_sigma,
                "schedule": schedule,
            }
            if sampler == "ab2":
                return samplers.adams_bashforth_2(velocity, x, key, **grid)
            return samplers.ddim(
                velocity,
                x,
                key,
                **grid,
                eta=eta,
                cutoff_hz=cutoff_hz,
                sample_rate=model.sample_rate,
                noise_fn=lambda move: noise(move + 1),
            )

        total = jax.lax.fori_loop(
            jnp.int32(0),
            ensemble,
            lambda member, total: total + draw(member),
            jnp.zeros(mixture.shape, jnp.float32),
        )
        sampled = total / ensemble.astype(jnp.float32)
        return jax.lax.cond(
            crossover_hz > 0,
            lambda: crossover(guess, sampled, crossover_hz, model.sample_rate),
            lambda: sampled,
        )

    return sample


def direct_function(model: SeparationModel) -> Callable[..., Float[Array, "batch segment 2"]]:
    """The direct estimate, for one device: (params, mixture, start) -> vocals."""

    def estimate(
        params: Params, mixture: Float[Array, "batch segment 2"], start: Array
    ) -> Float[Array, "batch segment 2"]:
        del start  # no noise
        return model.condition(params, mixture).estimate

    return estimate


def abstract_arguments(
    model: SeparationModel, mesh: Mesh, batch_size: int, params: Params | None = None
) -> tuple[Any, ...]:
    """A sampler's arguments without data or guess; the direct estimate's are the first three.

    `params`: abstract parameters; all that training has by default.
    """

    def array(shape: tuple[int, ...], dtype: Any, spec: P) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))

    if params is None:
        params = jax.eval_shape(model.init, jax.eval_shape(lambda: jax.random.key(0)))
    return (
        jax.tree.map(lambda leaf: array(leaf.shape, leaf.dtype, SAME), params),
        array((batch_size, model.segment, CHANNELS), jnp.float32, CHUNKS),
        array((batch_size,), jnp.int32, CHUNKS),
        None,
        *(array((), dtype, SAME) for dtype in RUNTIME_TYPES.values()),
    )


def _on_each_device(function: Any, mesh: Mesh, *, num_chunked: int, num_runtime_values: int) -> Any:
    specs = (SAME, *(CHUNKS,) * num_chunked, *(SAME,) * num_runtime_values)
    return jax.jit(
        jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=CHUNKS, check_vma=False)
    )
