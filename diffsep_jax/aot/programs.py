"""The programs that can be compiled ahead of time, without parameters or data."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from diffsep_jax.inference import engine
from diffsep_jax.models.convolution import choose_convolution
from diffsep_jax.samplers import SAMPLERS
from diffsep_jax.separation_model import SeparationModel
from diffsep_jax.training.config import TrainConfig
from diffsep_jax.training.program import abstract_arguments, train_program
from diffsep_jax.training.sharding import BatchLayout, make_mesh


class Program(NamedTuple):
    """A jitted function with abstract arguments, and what is known of it on paper.

    Attributes:
        function: what to lower.
        arguments: shapes, types and shardings.
        before_loop: the part of `function` that comes before its loop, as a function of its own,
            and that one's arguments; None if next to all of it is in the loop, or it has none.
        trips: how often the loop runs.
        mesh: the devices.
        batch_size: examples of all devices together.
    """

    function: Any
    arguments: tuple[Any, ...]
    before_loop: tuple[Any, tuple[Any, ...]] | None
    trips: int
    mesh: Mesh
    batch_size: int


def for_platform(model: SeparationModel, platform: str) -> SeparationModel:
    """The model with what `auto` stands for on another platform than this one's.

    On TPUs attention is `splash`, at any number of positions; there `auto` leaves short sequences
    to `plain`, which differs for models much smaller than the paper's only.
    """
    compute = model.compute
    if platform == "tpu" and compute.attention == "auto":
        compute = dataclasses.replace(compute, attention="splash")
    if compute.convolution == "auto":
        compute = dataclasses.replace(compute, convolution=choose_convolution(platform))
    return dataclasses.replace(model, compute=compute)


def training(
    model: SeparationModel,
    config: TrainConfig,
    devices: Sequence[jax.Device],
    per_device_batch: int,
) -> Program:
    """A training step. Raises UserError if mesh, batch and micro-batches don't fit."""
    mesh = make_mesh(config.mesh, devices)
    batch_size = per_device_batch * mesh.size
    BatchLayout(mesh, batch_size, config.micro_batches)
    program = train_program(model, config, mesh)
    return Program(
        function=program.step,
        arguments=abstract_arguments(program, model, mesh, batch_size),
        before_loop=None,
        trips=config.micro_batches,
        mesh=mesh,
        batch_size=batch_size,
    )


def sampling(
    model: SeparationModel, devices: Sequence[jax.Device], per_device_batch: int, steps: int
) -> Program:
    """A batch of chunks by the sampler, with `steps` calls of the generator."""
    mesh = engine.chunk_mesh(devices)
    batch_size = per_device_batch * mesh.size
    arguments = engine.abstract_arguments(model, mesh, batch_size)
    return Program(
        function=engine.sampling_program(model, mesh),
        arguments=arguments,
        before_loop=(
            engine.sampling_program(model, mesh, SAMPLERS["direct"]),
            (*arguments[:4], {}),
        ),
        trips=steps,
        mesh=mesh,
        batch_size=batch_size,
    )
