"""What a training run compiles: the first state and the step, laid out over a mesh."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import PRNGKeyArray

from diffsep_jax.models.model import SeparationModel
from diffsep_jax.noise import KEY_TYPE
from diffsep_jax.runtime import CHIPS, count_flops
from diffsep_jax.training.config import TrainConfig
from diffsep_jax.training.optimizer import make_optimizer
from diffsep_jax.training.sharding import batch_sharding, state_sharding, with_shardings
from diffsep_jax.training.step import TrainState, gradients_of_rows, init_state, train_step


class TrainProgram(NamedTuple):
    """Both functions are jitted and may be lowered without arrays, for devices that are not here.

    Attributes:
        state: shapes, types and shardings of the training state.
        init: key -> the state before the first step.
        step: (state, batch, key) -> (state, metrics); the state is donated.
    """

    state: TrainState
    init: Any
    step: Any


def train_program(model: SeparationModel, config: TrainConfig, mesh: Mesh) -> TrainProgram:
    """The program of a run on `mesh`."""
    optimizer = make_optimizer(config.optimizer, config.num_steps, config.freeze)
    init: Callable[[PRNGKeyArray], TrainState] = functools.partial(init_state, model, optimizer)
    abstract = jax.eval_shape(init, jax.random.key(0, impl=KEY_TYPE))
    shardings = state_sharding(abstract, mesh, config.mesh.min_shard_size)
    specs = jax.tree.map(lambda sharding: sharding.spec, shardings.params)
    step = functools.partial(train_step, model, config, optimizer, mesh, specs)
    everywhere = NamedSharding(mesh, P())
    return TrainProgram(
        state=with_shardings(abstract, shardings),
        init=jax.jit(init, out_shardings=shardings),
        step=jax.jit(
            step,
            in_shardings=(shardings, batch_sharding(mesh), everywhere),
            out_shardings=(shardings, everywhere),
            donate_argnums=0,
        ),
    )


def example_seconds_at_peak(
    model: SeparationModel, config: TrainConfig, mesh: Mesh
) -> float | None:
    """Seconds that one training example takes if all chips of the mesh run at their peak.

    Counts model FLOPs: nothing is computed twice to save memory, and attention in full. None if the
    chips' peak is not known.
    """
    chip = CHIPS.get(mesh.devices.flat[0].device_kind)
    if chip is None:
        return None
    compute = dataclasses.replace(
        model.compute, attention="plain", convolution="native", remat="none"
    )
    model = dataclasses.replace(model, compute=compute)
    params = jax.eval_shape(model.init, jax.eval_shape(lambda: jax.random.key(0)))
    audio = jax.ShapeDtypeStruct((1, model.segment, 2), jnp.float32)
    flops = count_flops(
        functools.partial(gradients_of_rows, model, dataclasses.replace(config, micro_batches=1)),
        params,
        {"mixture": audio, "vocals": audio},
        jax.ShapeDtypeStruct((1,), jnp.float32),
        audio,
    )
    return None if flops is None else flops / (chip.flops * mesh.size)


def describe_memory(compiled: Any) -> str:
    """One line about a compiled program's memory on each device."""
    memory = compiled.memory_analysis()
    if memory is None:
        return "memory of a step: the compiler does not tell"
    state, temporaries = memory.argument_size_in_bytes, memory.temp_size_in_bytes
    return (
        f"memory of a step on each device: {state / 2**20:,.0f} MiB of arguments (state and"
        f" batch), {temporaries / 2**20:,.0f} MiB of temporaries"
    )


def abstract_arguments(
    program: TrainProgram, model: SeparationModel, mesh: Mesh, batch_size: int
) -> tuple[Any, Any, Any]:
    """The step's arguments without data: shapes, types and shardings, to lower it with."""
    audio = jax.ShapeDtypeStruct(
        (batch_size, model.segment, 2), jnp.float32, sharding=batch_sharding(mesh)
    )
    key = jax.eval_shape(lambda: jax.random.key(0, impl=KEY_TYPE))
    return program.state, {"mixture": audio, "vocals": audio}, key
