"""Speed and memory of the compiled samplers, beside eager PyTorch if asked for.

    python -m benchmarks.sampling [MODEL] [--samplers ddim ab2 direct] [--steps 5 20]
        [--batch-sizes 1 4] [--segment 16384] [--torch] [--start] [--json FILE]
        [--plot FILE.png [--scores FILE.json]]

MODEL is the name of a model, a model directory, or a configuration, which gets random weights. The
command is the same on a CPU, a GPU and a TPU: it takes all devices of JAX's default kind, which on
a CPU are its cores. All runs of a batch size take turns, so that whatever else the machine does
falls on all of them.

`--torch` needs the `bench` extra: the same networks with the same weights in eager PyTorch, on the
CPU, with all threads and with one, of which the faster counts; once with the conditioner run once a
chunk, as ours, and once with it run at each step.
"""

import dataclasses
import functools
import json
import math
import os
import pathlib
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.sharding import NamedSharding
from rich import box
from rich.console import Console
from rich.table import Table

import configs
from benchmarks.command_start import start_seconds
from diffsep_jax.cores import use_cores
from diffsep_jax.errors import UserError, one_line_errors
from diffsep_jax.flops import sampling_flops
from diffsep_jax.inference.engine import (
    CHUNKS,
    SAME,
    abstract_arguments,
    chunk_mesh,
    direct_program,
    runtime_values,
    sampling_program,
)
from diffsep_jax.inference.pretrained import known_models, load_model
from diffsep_jax.inference.settings import Sampler, SamplerSettings
from diffsep_jax.models.compute import Dtype
from diffsep_jax.models.generator import Generator
from diffsep_jax.output import write_bytes
from diffsep_jax.separation_model import Params, SeparationModel

Json = dict[str, Any]

DIRECT: Final = "direct"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Time the samplers of one model on this machine's devices."""

    model: tyro.conf.Positional[str] = "small"
    """Name of a model, a model directory, or a configuration (random weights)."""
    samplers: tuple[Sampler, ...] = ("ddim", "ab2")
    """Which to time."""
    steps: tuple[int, ...] = (5, 20)
    """Network calls; two different numbers or more give the seconds of a step."""
    batch_sizes: tuple[int, ...] = (4,)
    """Chunks of a call."""
    segment: int | None = None
    """Samples of a chunk; unset: the model's."""
    dtype: Dtype | None = None
    """Type to compute in; unset: float32 on a CPU, else the model's."""
    repeats: int = 5
    """Turns that each run takes."""
    torch: bool = False
    """Time PyTorch too, at the largest number of steps of ddim."""
    start: bool = False
    """Time the command `diffsep separate` from an empty and from a filled compilation cache."""
    json: pathlib.Path | None = None
    """Where to write the figures."""
    plot: pathlib.Path | None = None
    """Where to draw seconds for a second of audio against the number of steps (a png)."""
    scores: pathlib.Path | None = None
    """For --plot: a list of {"label", "sampler", "steps", "sdr", "real_time_factor"}."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_sizes", "repeats"):
            value = getattr(self, name)
            if min(value if isinstance(value, tuple) else (value,), default=0) < 1:
                option = name.replace("_", "-")
                raise UserError(f"--{option} is {value}; whole numbers of 1 or more are expected")
        if not self.samplers:
            raise UserError("--samplers is empty; at least one is expected")
        if self.torch and "ddim" not in self.samplers:
            raise UserError("--torch is compared with ddim; name it in --samplers")
        if self.scores is not None and self.plot is None:
            raise UserError("--scores is drawn by --plot; name a file for it")


def main(args: Arguments) -> None:
    """Measure, print the tables, write the files."""
    report = measure(args)
    for title, rows in (("programs", report["programs"]), ("runs", report["runs"])):
        Console().print(table(title, rows))
    for name in ("machine", "torch", "start"):
        for key, value in (report[name] or {}).items():
            print(f"{key}: {_cell(value)}")
    if args.json is not None:
        write_bytes(args.json, (json.dumps(report, indent=2) + "\n").encode())
    if args.plot is not None:
        from benchmarks.sampling_picture import draw, read_scores

        draw(args.plot, report["runs"], None if args.scores is None else read_scores(args.scores))


def measure(args: Arguments) -> Json:
    """Everything by name; times in seconds, sizes in bytes."""
    use_cores(max(args.batch_sizes))
    model, params = load(args.model, args.segment, args.dtype)
    if args.torch and not isinstance(model.generator, Generator):
        raise UserError(f"--torch: {args.model} is no waveform model, such as tiny; leave it out")
    params = jax.device_put(params, jax.devices()[0])  # one copy for all programs
    peak = matmul_peak(model.compute.dtype)
    programs: list[Json] = []
    runs: list[Json] = []
    comparison = None
    for batch_size in args.batch_sizes:
        compiled = {
            name: Compiled(model, params, name, batch_size)
            for name in dict.fromkeys((*args.samplers, DIRECT))
        }
        contestants: dict[tuple[str, int], Callable[[], Any]] = {
            (name, steps): functools.partial(compiled[name].run, steps)
            for name in compiled
            for steps in ((0,) if name == DIRECT else sorted(set(args.steps)))
        }
        seconds = take_turns(contestants, args.repeats)
        for name, program in compiled.items():
            times = {steps: t for (sampler, steps), t in seconds.items() if sampler == name}
            programs.append(
                {"sampler": name, "batch_size": batch_size}
                | program.facts()
                | {
                    "seconds_per_step": slope(times),
                    "conditioner_seconds": seconds[DIRECT, 0],
                }
            )
        runs += [
            run_figures(model, name, steps, batch_size, taken, peak)
            for (name, steps), taken in seconds.items()
        ]
        if args.torch:
            from benchmarks.torch_sampling import compare

            steps = max(args.steps)
            ours = functools.partial(compiled["ddim"].run, steps)
            figures = compare(model, params, batch_size, steps, ours, args.repeats)
            comparison = (comparison or {}) | figures
    return {
        "model": args.model,
        "segment": model.segment,
        "programs": programs,
        "runs": runs,
        "torch": comparison,
        "start": start_seconds(args.model) if args.start else None,
        "machine": machine_facts() | {f"{model.compute.dtype} matmul peak, FLOP/s": peak},
    }


def num_devices(batch_size: int) -> int:
    """As many of the devices as a batch can be split over evenly."""
    return math.gcd(batch_size, len(jax.devices()))


class Compiled:
    """A sampler compiled ahead of time, with a batch of noise for a mixture."""

    def __init__(
        self, model: SeparationModel, params: Params, sampler: Sampler, batch_size: int
    ) -> None:
        mesh = chunk_mesh(jax.devices()[: num_devices(batch_size)])
        arguments = abstract_arguments(model, mesh, batch_size)
        mixture = np.random.default_rng(0).standard_normal(arguments[1].shape, np.float32)
        self._given = (
            jax.device_put(params, NamedSharding(mesh, SAME)),
            *jax.device_put((mixture, np.zeros(batch_size, np.int32)), NamedSharding(mesh, CHUNKS)),
        )
        self._is_direct = sampler == DIRECT
        if sampler == DIRECT:
            lowered = direct_program(model, mesh).lower(*self._given)
        else:
            lowered = sampling_program(model, mesh, sampler).lower(*self._given, *arguments[3:])
        start = time.perf_counter()
        self._program = lowered.compile()
        self._compile_seconds = time.perf_counter() - start

    def run(self, steps: int) -> None:
        """One call with the default settings, waited for."""
        if self._is_direct:
            jax.block_until_ready(self._program(*self._given))
            return
        values = runtime_values(SamplerSettings(steps=steps))
        jax.block_until_ready(self._program(*self._given, None, *values))

    def facts(self) -> Json:
        """Compilation, and what the compiler says of the program."""
        memory, costs = self._program.memory_analysis(), self._program.cost_analysis()
        return {
            "compile_seconds": self._compile_seconds,
            "temporary_bytes": None if memory is None else memory.temp_size_in_bytes,
            # A loop's body counts once.
            "compiler_flops": (costs or {}).get("flops"),
        }


def load(
    name: str, segment: int | None, dtype: Dtype | None
) -> tuple[SeparationModel, dict[str, Any]]:
    """The model as it is to be timed and its parameters, random for a configuration."""
    params: Any = None
    if name in configs.NAMES and name not in known_models():
        model = configs.get(name).model
    else:
        model, params = load_model(name)
    if dtype is None:
        dtype = "float32" if jax.default_backend() == "cpu" else model.compute.dtype
    compute = dataclasses.replace(model.compute, dtype=dtype)
    model = dataclasses.replace(model, compute=compute, segment=segment or model.segment)
    if params is None:
        params = jax.device_get(jax.jit(model.init)(jax.random.key(0)))
    return model, params


def take_turns(runs: dict[Any, Callable[[], Any]], repeats: int) -> dict[Any, float]:
    """The median seconds of each, after a call of each that does not count."""
    for run in runs.values():
        run()
    seconds: dict[Any, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def slope(seconds: dict[int, float]) -> float | None:
    """Seconds of a step: between the fewest and the most steps; None of a single number."""
    fewest, most = min(seconds), max(seconds)
    if fewest == most:
        return None
    return (seconds[most] - seconds[fewest]) / (most - fewest)


def run_figures(
    model: SeparationModel, sampler: str, steps: int, batch_size: int, seconds: float, peak: float
) -> Json:
    """What one call's time means."""
    audio_seconds = batch_size * model.segment / model.sample_rate
    flops_per_second = sampling_flops(model, batch_size, steps) / seconds
    return {
        "sampler": sampler,
        "batch_size": batch_size,
        "steps": steps,
        "seconds": seconds,
        "real_time_factor": seconds / audio_seconds,
        "chunks_per_second": batch_size / seconds,
        "flops_per_second": flops_per_second,
        "share_of_peak": flops_per_second / peak,
    }


def matmul_peak(dtype: str) -> float:
    """FLOP/s of large products of two square matrices on all devices, the best of five.

    A CPU's product is spread over the cores, whatever devices they are; others are told from one.
    """
    on_cpu = jax.default_backend() == "cpu"
    size = 2048 if on_cpu else 8192
    matrix = jnp.ones((size, size), dtype)
    multiply = jax.jit(jnp.matmul).lower(matrix, matrix).compile()
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        multiply(matrix, matrix).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds[1:]) * (1 if on_cpu else len(jax.devices()))


def machine_facts() -> Json:
    """Where this ran and what it took of it; call it last."""
    device = jax.devices()[0]
    return {
        "device": device.device_kind,
        "platform": device.platform,
        "cores": len(os.sched_getaffinity(0)),
        "processes running or waiting (1 minute's mean)": os.getloadavg()[0],
        "jax": jax.__version__,
        "peak resident bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "peak device bytes": (device.memory_stats() or {}).get("peak_bytes_in_use"),
    }


def table(title: str, rows: list[Json]) -> Table:
    """Rows of the same keys."""
    result = Table(title=title, box=box.SIMPLE, padding=(0, 0))
    for name in rows[0]:
        result.add_column(name.replace("_", " "), justify="right")
    for row in rows:
        result.add_row(*map(_cell, row.values()))
    return result


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    with one_line_errors():
        main(tyro.cli(Arguments, description=__doc__))
