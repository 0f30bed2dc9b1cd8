"""Speed and memory of the compiled samplers, and of eager PyTorch with `--torch`.

    python -m benchmarks.sampling [MODEL] [--samplers ddim ab2 direct] [--steps 5 20]
        [--batch-size 4] [--segment 16384] [--torch]

MODEL is the name of a model, a model directory, or a configuration, which gets random weights. The
command is the same on a CPU, a GPU and a TPU: it uses all devices of JAX's default kind, which on a
CPU are its cores. The runs take turns, so that other load on the machine affects all of them alike.

`--torch` needs the `bench` extra: the same networks with the same weights in eager PyTorch, on the
CPU, with all threads and with one, of which the faster counts.
"""

import dataclasses
import functools
import math
import os
import resource
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import tyro
from jax.sharding import NamedSharding

import configs
from benchmarks.turns import take_turns
from diffsep_jax.errors import UserError, one_line_errors
from diffsep_jax.inference.engine import (
    CHUNKS,
    SAME,
    chunk_arguments,
    chunk_mesh,
    runtime_values,
    sampling_program,
)
from diffsep_jax.inference.pretrained import known_models, load_model
from diffsep_jax.inference.settings import SamplerSettings
from diffsep_jax.models.model import Params, SeparationModel
from diffsep_jax.models.waveform.generator import Generator
from diffsep_jax.runtime import DtypeOption, inference_dtype, use_cores
from diffsep_jax.samplers import find_sampler


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """What is timed.

    Attributes:
        model: name of a model, a model directory, or a configuration (random weights).
        samplers: names of samplers.
        steps: network calls.
        batch_size: chunks of a call.
        segment: samples of a chunk; unset: the model's.
        dtype: type to compute in; auto: float32 on CPUs, bfloat16 elsewhere.
        repeats: turns of each run.
        torch: time PyTorch too, with ddim at the largest number of steps.
    """

    model: tyro.conf.Positional[str] = "small"
    samplers: tuple[str, ...] = ("ddim", "ab2", "direct")
    steps: tuple[int, ...] = (5, 20)
    batch_size: int = 4
    segment: int | None = None
    dtype: DtypeOption = "auto"
    repeats: int = 5
    torch: bool = False

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "repeats"):
            value = getattr(self, name)
            if min(value if isinstance(value, tuple) else (value,), default=0) < 1:
                option = name.replace("_", "-")
                raise UserError(f"--{option} is {value}; expected whole numbers of 1 or more.")
        if not self.samplers:
            raise UserError("--samplers is empty; expected at least one.")
        if self.torch and "ddim" not in self.samplers:
            raise UserError(
                "--samplers has no ddim; expected it with --torch, which is compared with it."
            )


def main(args: Arguments) -> None:
    """Times everything in turns and prints a table."""
    use_cores(args.batch_size)
    model, params = load(args.model, args.segment, args.dtype)
    if args.torch and not isinstance(model.generator, Generator):
        raise UserError(
            f"--torch: {args.model} is spectral; expected a waveform model, such as tiny."
        )
    programs = {name: Compiled(model, params, name, args.batch_size) for name in args.samplers}
    runs: dict[str, Callable[[], Any]] = {}
    for sampler, program in programs.items():
        for steps in (0,) if sampler == "direct" else args.steps:
            runs[f"{sampler}, {steps}"] = functools.partial(program.run, steps)
    if args.torch:
        from benchmarks.torch_sampling import runs_in_torch

        runs |= runs_in_torch(model, params, args.batch_size, max(args.steps))
    seconds = take_turns(runs, args.repeats)

    audio_seconds = args.batch_size * model.segment / model.sample_rate
    print("| sampler, steps | seconds | real-time factor | chunks/s |")
    print("|---|---|---|---|")
    for name, each in seconds.items():
        figures = each.clock, each.clock / audio_seconds, args.batch_size / each.clock
        print(f"| {name} | " + " | ".join(f"{figure:.3g}" for figure in figures) + " |")
    for sampler, program in programs.items():
        memory = f"{program.temporaries / 1e6:.0f} MB of temporaries on each device"
        print(f"{sampler}: compiled in {program.compile_seconds:.1f} s, {memory}")
    if args.torch:
        ours = seconds[f"ddim, {max(args.steps)}"].clock
        theirs = min(each.clock for name, each in seconds.items() if name.startswith("PyTorch"))
        print(f"ours to PyTorch's faster: {ours / theirs:.3f}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
    print(
        f"{len(jax.devices())} x {jax.devices()[0].device_kind}, jax {jax.__version__},"
        f" {os.getloadavg()[0]:.1f} processes running or waiting (a minute's mean),"
        f" peak resident memory {peak / 1e6:.0f} MB"
    )


class Compiled:
    """A sampler compiled ahead of time, with a batch of noise for a mixture."""

    def __init__(
        self, model: SeparationModel, params: Params, sampler: str, batch_size: int
    ) -> None:
        # As many of the devices as the batch can be split over evenly.
        devices = jax.devices()[: math.gcd(batch_size, len(jax.devices()))]
        mesh = chunk_mesh(devices)
        arguments = chunk_arguments(model, mesh, batch_size, SamplerSettings(sampler=sampler))
        mixture = np.random.default_rng(0).standard_normal(arguments[1].shape, np.float32)
        self._given = (
            jax.device_put(params, NamedSharding(mesh, SAME)),
            *jax.device_put((mixture, np.zeros(batch_size, np.int32)), NamedSharding(mesh, CHUNKS)),
        )
        self._sampler = sampler
        program = sampling_program(model, mesh, find_sampler(sampler))
        lowered = program.lower(*self._given, *arguments[3:])
        start = time.perf_counter()
        self._program = lowered.compile()
        self.compile_seconds = time.perf_counter() - start
        self.temporaries = self._program.memory_analysis().temp_size_in_bytes

    def run(self, steps: int) -> None:
        """One call with the default settings, waited for."""
        values = runtime_values(SamplerSettings(sampler=self._sampler, steps=max(steps, 1)))
        jax.block_until_ready(self._program(*self._given, None, values))


def load(name: str, segment: int | None, dtype: DtypeOption) -> tuple[SeparationModel, Params]:
    """The model to time and its parameters, random for a configuration."""
    params: Any = None
    if name in configs.NAMES and name not in known_models():
        model = configs.get(name).model
    else:
        model, params = load_model(name)
    compute = dataclasses.replace(model.compute, dtype=inference_dtype(dtype))
    model = dataclasses.replace(model, compute=compute, segment=segment or model.segment)
    if params is None:
        params = jax.device_get(jax.jit(model.init)(jax.random.key(0)))
    return model, params


if __name__ == "__main__":
    with one_line_errors():
        main(tyro.cli(Arguments, description=__doc__))
