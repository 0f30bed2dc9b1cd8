"""The compiled chunk program: mixture chunks in, vocals chunks out, on all devices."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Float32, Int32

from diffsep_jax import diffusion
from diffsep_jax.inference.chunks import DEFAULT_BATCH_SIZE
from diffsep_jax.inference.settings import PAPER, SamplerSettings
from diffsep_jax.inference.traces import kept_trace
from diffsep_jax.models.model import Params, SeparationModel
from diffsep_jax.noise import crossover, key_of, white_noise
from diffsep_jax.runtime import fixed_flags
from diffsep_jax.samplers import SETTINGS, Sampler

CHANNELS = 2

CHUNKS, SAME = P("data"), P()
"""Arrays that are split over the devices by chunk, and arrays that each device holds whole."""

# Steps of the positional noise: the sampler starts from step 0, its move i refreshes by step i + 1.
_START = 0


class ChunkSeparator:
    """One model call: a batch of mixture chunks in, their vocals out.

    Compiles once for each sampler, and once more for each that starts from given vocals: all
    settings but the sampler are runtime values. The conditioner runs once per chunk, however many
    steps and seeds. Chunks are split over the devices, which do not communicate.

    Attributes:
        segment: samples of a chunk.
        stride: samples in a frame of the networks' bottlenecks, which divides `segment`.
        sample_rate: Hz.
        target_rms: level of a mixture that the model was trained for.
        min_overlap: samples that chunks must overlap by.
        batch_size: chunks of a call; the size asked for, rounded up to a multiple of the devices.
            `lower_batch_size` lowers it where memory is short.
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
        self.target_rms = model.target_rms
        self.min_overlap = model.min_overlap
        self.batch_size = batch_size + -batch_size % len(devices)
        self._model, self._mesh = model, chunk_mesh(devices)
        self._by_chunk = NamedSharding(self._mesh, CHUNKS)
        self._everywhere = NamedSharding(self._mesh, SAME)
        self._params = jax.device_put(params, self._everywhere)
        self._programs: dict[tuple[Sampler, int, bool], Any] = {}

    @fixed_flags()
    def __call__(
        self,
        mixture: Float32[np.ndarray, "batch segment 2"],
        start: Int32[np.ndarray, "batch"],
        settings: SamplerSettings,
        guess: Float32[np.ndarray, "batch segment 2"] | None = None,
    ) -> Float32[Array, "batch segment 2"]:
        """Vocals of `batch_size` chunks. Returns before the devices have computed them.

        Args:
            mixture: chunks at the model's level and rate.
            start: position in the track of each chunk's first sample, which the noise depends on.
            settings: settings of the sampler.
            guess: vocals to start from at `settings.start_sigma`, scaled as `mixture`; None is the
                direct estimate.
        """
        chunks = jax.device_put((mixture, start, guess), self._by_chunk)
        values = jax.device_put(runtime_values(settings), self._everywhere)
        key = settings.method, len(mixture), guess is not None
        if key not in self._programs:
            self._programs[key] = sampling_program(self._model, self._mesh, settings.method)
        return self._programs[key](self._params, *chunks, values)

    @fixed_flags()
    def compile(self, settings: SamplerSettings, *, refines: bool) -> None:
        """Compiles what a call with these settings runs, with a guess if `refines`.

        Where compiled programs are kept, see `runtime.use_compilation_cache`, so is the trace.
        """
        size = self.batch_size
        mixture = jax.ShapeDtypeStruct(
            (size, self.segment, CHANNELS), np.float32, sharding=self._by_chunk
        )
        start = jax.ShapeDtypeStruct((size,), np.int32, sharding=self._by_chunk)
        values = jax.device_put(runtime_values(settings), self._everywhere)
        arguments = self._params, mixture, start, mixture if refines else None, values
        sampler = settings.method
        key = sampler, size, refines
        if key not in self._programs:
            program = sampling_program(self._model, self._mesh, sampler)
            self._programs[key] = kept_trace(program, self._model, sampler, arguments)
        try:
            self._programs[key].lower(*arguments).compile()
        except RuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error) or not self.lower_batch_size(size):
                raise
            self.compile(settings, refines=refines)

    def lower_batch_size(self, tried: int) -> bool:
        """Halves `batch_size`, unless it is already below `tried`; False at 1 per device."""
        per_device = tried // self._mesh.size
        if per_device == 1:
            return False
        if self.batch_size == tried:
            self.batch_size = per_device // 2 * self._mesh.size
            logging.getLogger(__name__).warning(
                "batch size is %d, which takes more memory than there is; continuing with %d",
                tried,
                self.batch_size,
            )
        return True

    @property
    def num_compilations(self) -> int:
        """Programs compiled so far."""
        return sum(program._cache_size() for program in self._programs.values())


def runtime_values(settings: SamplerSettings) -> dict[str, np.ndarray]:
    """The last argument of a chunk program: the settings that the sampler uses, typed."""
    return {
        name: np.asarray(getattr(settings, name), setting.dtype)
        for name, setting in SETTINGS.items()
        if name in settings.method.uses
    }


def chunk_mesh(devices: Sequence[jax.Device]) -> Mesh:
    """A mesh of one axis, over which chunks are split."""
    return jax.make_mesh((len(devices),), ("data",), (AxisType.Auto,), devices=devices)


def sampling_program(model: SeparationModel, mesh: Mesh, sampler: Sampler = PAPER.method) -> Any:
    """`sampling_function`, jitted.

    It can be lowered with `chunk_arguments`, for devices that are not present.
    """
    in_specs = (SAME, CHUNKS, CHUNKS, CHUNKS, SAME)
    function = sampling_function(model, sampler)
    return jax.jit(
        jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=CHUNKS, check_vma=False)
    )


def sampling_function(
    model: SeparationModel, sampler: Sampler
) -> Callable[..., Float[Array, "batch segment 2"]]:
    """A sampler of a model, for one device.

    (params, mixture, start, guess, `runtime_values`) -> vocals, the mean over `ensemble` seeds from
    `seed` up. A `guess` of None stands for the direct estimate.
    """

    def separate(
        params: Params,
        mixture: Float[Array, "batch segment 2"],
        start: Array,
        guess: Float[Array, "batch segment 2"] | None,
        values: dict[str, Array],
    ) -> Float[Array, "batch segment 2"]:
        conditioning = model.condition(params, mixture)
        if sampler.function is None:
            return conditioning.estimate
        if guess is None:
            guess = conditioning.estimate
        velocity = model.velocity_fn(params, mixture, conditioning)

        def draw(member: Array) -> Array:
            key = key_of(values["seed"] + member.astype(jnp.uint32))

            def noise(step: int | Array) -> Array:
                return white_noise(key, step, start, length=model.segment, channels=CHANNELS)

            x = values["temperature"] * noise(_START)
            if "start_sigma" in values:
                level = values["start_sigma"]
                # At 1 the two are equal, up to the device's rounding of sin(pi/2).
                x = jnp.where(level < 1, diffusion.diffuse(guess, x, level), x)
            return sampler(
                velocity,
                x,
                values,
                noise_fn=lambda move: noise(move + 1),
                sample_rate=model.sample_rate,
            )

        total = jax.lax.fori_loop(
            jnp.int32(0),
            values["ensemble"],
            lambda member, total: total + draw(member),
            jnp.zeros(mixture.shape, jnp.float32),
        )
        sampled = total / values["ensemble"].astype(jnp.float32)
        return jax.lax.cond(
            values["crossover_hz"] > 0,
            lambda: crossover(guess, sampled, values["crossover_hz"], model.sample_rate),
            lambda: sampled,
        )

    return separate


def chunk_arguments(
    model: SeparationModel,
    mesh: Mesh,
    batch_size: int,
    settings: SamplerSettings = PAPER,
) -> tuple[Any, ...]:
    """Abstract arguments of a chunk program without a guess; parameters of all training heads."""

    def array(shape: tuple[int, ...], dtype: Any, spec: P) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))

    params = jax.eval_shape(model.init, jax.eval_shape(lambda: jax.random.key(0)))
    return (
        jax.tree.map(lambda leaf: array(leaf.shape, leaf.dtype, SAME), params),
        array((batch_size, model.segment, CHANNELS), jnp.float32, CHUNKS),
        array((batch_size,), jnp.int32, CHUNKS),
        None,
        {name: array((), x.dtype, SAME) for name, x in runtime_values(settings).items()},
    )
