"""Speed, memory and quality of compiled samplers, in one run and on whatever devices there are.

    python -m benchmarks.sampling [MODEL] [--sweep sampler=ddim,ab2,direct steps=5,20 schedule=1,3]
        [--batch-sizes 1 4] [--data SOURCE --out DIR] [--compare OTHER/rows.json]

MODEL is the name of a model, a model directory, or a configuration, which gets random weights. The
command is the same on a CPU, a GPU and a TPU: it uses all devices of JAX's default kind, which on a
CPU are its cores. The rows take turns, so that other load on the machine affects all of them alike.

With `--data` the same points are scored on songs, and with `--out` the rows are written as
rows.json, rows.csv, rows.md and a page with quality against time. A sampler of one's own is
registered by a module given with `--plugin`; `--velocity MODULE:FUNCTION` replaces the model's
velocity. `--diffusers` needs the `bench` extra: DDIM as the diffusers package takes its steps, on
the CPU, over our velocity, compiled alone, and, for the waveform family, over the same networks in
eager PyTorch, with all threads and with one.
"""

import collections
import dataclasses
import functools
import importlib
import math
import os
import resource
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.sharding import NamedSharding

import configs
from benchmarks import sampling_rows
from benchmarks.sampling_rows import METRIC_NAMES, Row
from benchmarks.turns import take_turns
from data_pipelines.sources import Source, available_split, open_source
from diffsep_jax.errors import UserError, one_line_errors
from diffsep_jax.evaluation.estimates import SeparatorEstimates, condition_names
from diffsep_jax.evaluation.evaluate import evaluate, hardware, versions, weights_digest
from diffsep_jax.evaluation.scores import check_same_settings
from diffsep_jax.evaluation.summary import summarise
from diffsep_jax.evaluation.sweep import label, parse_sweep
from diffsep_jax.files import check_writable
from diffsep_jax.inference.chunks import DEFAULT_OVERLAP
from diffsep_jax.inference.engine import (
    CHANNELS,
    CHUNKS,
    SAME,
    chunk_arguments,
    chunk_mesh,
    runtime_values,
    sampling_function,
    sampling_program,
)
from diffsep_jax.inference.pretrained import known_models, load_model
from diffsep_jax.inference.separator import Separator
from diffsep_jax.inference.settings import SamplerOptions, SamplerSettings
from diffsep_jax.models.model import Params, SeparationModel
from diffsep_jax.runtime import (
    DtypeOption,
    count_flops,
    inference_dtype,
    use_compilation_cache,
    use_cores,
)
from diffsep_jax.samplers import Sampler
from diffsep_jax.urls import is_url

DIRECT = SamplerSettings(sampler="direct")
"""Timed in any case: it is the conditioner alone."""

SCORES = "scores"
"""Folder of the scores in --out."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """What is measured.

    Attributes:
        model: name of a model, a model directory, or the name or path of a configuration (random
            weights).
        sweep: grid of sampler settings, as in eval.py; the rest are the paper's.
        batch_sizes: chunks of a call.
        segment: samples of a chunk; unset: the model's.
        dtype: type to compute in; auto: float32 on CPUs, bfloat16 elsewhere.
        repeats: turns of each row.
        data: songs to score every point on: "embedded" (ten), or a folder of songs.
        out: folder for rows.json, rows.csv, rows.md, index.html and the scores.
        compare: rows.json of another run, to compare rows of the same name with.
        plugin: modules to import, which register samplers.
        velocity: MODULE:FUNCTION with the parameters of `SeparationModel.velocity`, to use instead.
        diffusers: time its DDIM too, at the largest number of steps of ours.
    """

    model: tyro.conf.Positional[str] = "small"
    sweep: tuple[str, ...] = ("sampler=ddim,ab2,direct", "steps=5,20")
    batch_sizes: tuple[int, ...] = (4,)
    segment: int | None = None
    dtype: DtypeOption = "auto"
    repeats: int = 5
    data: str | None = None
    out: Path | None = None
    compare: Path | None = None
    plugin: tuple[str, ...] = ()
    velocity: str | None = None
    diffusers: bool = False

    def __post_init__(self) -> None:
        for name in ("batch_sizes", "repeats"):
            value = getattr(self, name)
            if min(value if isinstance(value, tuple) else (value,), default=0) < 1:
                option = name.replace("_", "-")
                raise UserError(f"--{option} is {value}; expected whole numbers of 1 or more.")
        if self.data is not None and self.out is None:
            raise UserError("--data is given without --out; expected a folder for the scores.")


def main(args: Arguments) -> None:
    """Measures everything, prints a table and writes the rows."""
    for module in args.plugin:
        imported(module)
    points = parse_sweep(args.sweep, SamplerOptions()).points
    last = max((point.steps for point in points if point.sampler == "ddim"), default=0)
    if args.diffusers and not last:
        raise UserError("--sweep has no ddim; expected it with --diffusers, to compare with it.")
    earlier = None if args.compare is None else sampling_rows.read(args.compare)
    if args.out is not None:
        check_writable(args.out)
    use_cores(max(args.batch_sizes))
    use_compilation_cache()
    model, params = load(args.model, args.segment, args.dtype)
    if args.velocity is not None:
        model = with_velocity(model, args.velocity)
    settings: dict[str, Any] = {}
    songs: Source | None = None
    if args.data is not None:
        assert args.out is not None
        settings = settings_of_scores(args, model, points)
        check_same_settings(args.out / SCORES, settings, "Delete it to score again")
        songs = open_source(args.data, split="test", num_songs=10)
    direct = next((point for point in points if point.method == DIRECT.method), DIRECT)
    methods = dict.fromkeys(point.method for point in (*points, direct))
    note(f"compiling {len(methods) * len(args.batch_sizes)} programs")
    programs = {
        (method, batch_size): Compiled(model, params, method, batch_size)
        for batch_size in args.batch_sizes
        for method in methods
    }
    runs: dict[Any, Callable[[], Any]] = {
        (point, batch_size): functools.partial(programs[point.method, batch_size].run, point)
        for batch_size in args.batch_sizes
        for point in dict.fromkeys((*points, direct))
    }
    if args.diffusers:
        from benchmarks.torch_sampling import runs_of_diffusers

        runs |= runs_of_diffusers(model, params, args.batch_sizes[0], last)
    note(f"timing {len(runs)} rows in {args.repeats + 1} turns, of which the first does not count")
    seconds = take_turns(runs, args.repeats)
    quality: dict[str, dict[str, list[float]]] = {}
    if songs is not None:
        note(f"scoring {len(points)} points on {args.data}")
        separator = Separator(model, params, batch_size=max(args.batch_sizes), dtype=args.dtype)
        quality = scores(args, separator, points, songs, settings)
    flops = {method: flops_of(model, method) for method in methods}
    peak_flops = matmul_flops(model.compute.dtype)
    rows: list[Row] = []
    for batch_size in args.batch_sizes:
        for point in points:
            program, taken = programs[point.method, batch_size], seconds[point, batch_size]
            conditioner = flops[DIRECT.method]
            of_a_step = flops[point.method] - conditioner
            # A product on one device of a CPU uses all cores.
            num_chips = 1 if jax.default_backend() == "cpu" else program.num_devices
            work = batch_size * (conditioner + point.steps * point.ensemble * of_a_step)
            rows.append(
                {
                    "name": label(point),
                    "settings": dataclasses.asdict(point),
                    "batch_size": batch_size,
                    "seconds": taken.clock,
                    "seconds_lowest": taken.fastest,
                    "seconds_highest": taken.slowest,
                    "real_time_factor": taken.clock / (batch_size * segment_seconds(model)),
                    "conditioner_share": seconds[direct, batch_size].clock / taken.clock,
                    "flops": work,
                    "share_of_matmul": work / taken.clock / (peak_flops * num_chips),
                    "compile_seconds": program.compile_seconds,
                    "compile_cached": program.is_cached,
                    "temporary_bytes": program.temporaries,
                    "quality": quality.get(label(point), {}),
                }
            )
    run = {
        "model": args.model,
        "data": args.data,
        "dtype": model.compute.dtype,
        "segment_seconds": segment_seconds(model),
        "devices": f"{len(jax.devices())} x {jax.devices()[0].device_kind}",
        "matmul_flops": peak_flops,
        "programs": len(programs),
        "peak_bytes": peak_bytes(),
        "busy": os.getloadavg()[0],
        "hardware": hardware(),
        "versions": versions(),
        "rows": rows,
    }
    sampling_rows.show(run, earlier)
    if args.diffusers:
        ours = next(
            seconds[p, args.batch_sizes[0]]
            for p in points
            if (p.sampler, p.steps) == ("ddim", last)
        )
        for name, theirs in seconds.items():
            if isinstance(name, str):
                print(f"{name}: {theirs.clock:.3f} s; ours {ours.clock / theirs.clock:.3f} of it")
    if args.out is not None:
        sampling_rows.write(args.out, run, earlier)


class Compiled:
    """A sampler compiled ahead of time, with a batch of noise for a mixture."""

    def __init__(
        self, model: SeparationModel, params: Params, method: Sampler, batch_size: int
    ) -> None:
        # As many of the devices as the batch can be split over evenly.
        self.num_devices = math.gcd(batch_size, len(jax.devices()))
        mesh = chunk_mesh(jax.devices()[: self.num_devices])
        settings = SamplerSettings(sampler=method.name)
        arguments = chunk_arguments(model, mesh, batch_size, settings)
        mixture = np.random.default_rng(0).standard_normal(arguments[1].shape, np.float32)
        self._given = (
            jax.device_put(params, NamedSharding(mesh, SAME)),
            *jax.device_put((mixture, np.zeros(batch_size, np.int32)), NamedSharding(mesh, CHUNKS)),
        )
        program = sampling_program(model, mesh, method)
        lowered = program.lower(*self._given, *arguments[3:])
        hits = num_cache_hits()
        start = time.perf_counter()
        self._program = lowered.compile()
        self.compile_seconds = time.perf_counter() - start
        self.is_cached = num_cache_hits() > hits
        self.temporaries = self._program.memory_analysis().temp_size_in_bytes

    def run(self, settings: SamplerSettings) -> None:
        """One call, waited for. All settings but the sampler are arguments of the program."""
        jax.block_until_ready(self._program(*self._given, None, runtime_values(settings)))


_events: collections.Counter[str] = collections.Counter()
jax.monitoring.register_event_listener(lambda event, **_: _events.update([event]))


def num_cache_hits() -> int:
    """Programs taken from the compilation cache so far."""
    return _events["/jax/compilation_cache/cache_hits"]


def note(text: str) -> None:
    """Says on standard error what takes time now."""
    print(text, file=sys.stderr, flush=True)


def imported(name: str) -> Any:
    """Imports the module. Raises UserError if Python cannot find it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise UserError(f"there is no module {name}; expected one that Python finds.") from None


def with_velocity(model: SeparationModel, name: str) -> SeparationModel:
    """The model with the velocity MODULE:FUNCTION instead of its own."""
    module, _, attribute = name.partition(":")
    function = getattr(imported(module), attribute, None) if module else None
    if not callable(function):
        raise UserError(f"--velocity is {name}; expected MODULE:FUNCTION.")
    kind = dataclasses.make_dataclass(
        "Replaced", [], bases=(SeparationModel,), namespace={"velocity": function}, frozen=True
    )
    return kind(**{f.name: getattr(model, f.name) for f in dataclasses.fields(model)})


def settings_of_scores(
    args: Arguments, model: SeparationModel, points: Sequence[SamplerSettings]
) -> dict[str, Any]:
    """What the scores depend on, but for the code of --plugin and --velocity."""
    assert args.data is not None
    return {
        "data": args.data,
        "split": available_split(args.data, "test") or "all",
        "metrics": list(METRIC_NAMES),
        "model": args.model,
        "weights": None if is_configuration(args.model) else weights_digest(args.model),
        "velocity": args.velocity,
        "segment": model.segment,
        "dtype": model.compute.dtype,
        "points": {label(point): dataclasses.asdict(point) for point in points},
    }


def scores(
    args: Arguments,
    separator: Separator,
    points: Sequence[SamplerSettings],
    songs: Source,
    settings: dict[str, Any],
) -> dict[str, dict[str, list[float]]]:
    """Median and 95% interval of each metric, by condition and metric.

    The songs are scored as eval.py scores them; the same command again goes on where it stopped.
    """
    from eval import read_notes

    assert args.data is not None
    assert args.out is not None
    result = evaluate(
        songs,
        SeparatorEstimates(
            separator, condition_names(points, None), repeats=1, overlap=DEFAULT_OVERLAP
        ),
        out=args.out / SCORES,
        settings=settings,
        metrics=METRIC_NAMES,
        command=shlex.join(sys.argv),
        notes=read_notes(args.data),
    )
    assert result is not None
    summary = summarise(result)
    found: dict[str, dict[str, list[float]]] = {}
    for name in result.conditions:
        statistics = {metric: summary["", name, metric] for metric in METRIC_NAMES}
        found[name] = {
            metric: [each.median, *(each.median_interval or (each.median, each.median))]
            for metric, each in statistics.items()
            if each.median is not None
        }
    return found


def segment_seconds(model: SeparationModel) -> float:
    """Length of a chunk."""
    return model.segment / model.sample_rate


def flops_of(model: SeparationModel, method: Sampler) -> float:
    """FLOPs of one chunk with a single step, as written: the conditioner's and a step's."""
    values = runtime_values(SamplerSettings(sampler=method.name))
    params = jax.eval_shape(model.init, jax.eval_shape(lambda: jax.random.key(0)))
    return count_flops(
        sampling_function(model, method),
        params,
        jax.ShapeDtypeStruct((1, model.segment, CHANNELS), jnp.float32),
        jax.ShapeDtypeStruct((1,), jnp.int32),
        None,
        {name: jax.ShapeDtypeStruct((), value.dtype) for name, value in values.items()},
    )


def matmul_flops(dtype: str, size: int = 2048) -> float:
    """FLOPs per second of a large matrix product on one device: the best of five."""
    matrix = jax.device_put(np.ones((size, size), dtype), jax.devices()[0])
    product = jax.jit(jnp.matmul)
    product(matrix, matrix).block_until_ready()
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        product(matrix, matrix).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2.0 * size**3 / min(seconds)


def peak_bytes() -> int:
    """The most memory in use so far: a device's where it says so, else the process's."""
    stats = jax.devices()[0].memory_stats() or {}
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
    return int(stats.get("peak_bytes_in_use", resident))


def is_configuration(name: str) -> bool:
    """Whether this is a configuration, by name or path, and not a model."""
    return name.endswith(".py") or (name in configs.NAMES and name not in known_models())


def load(name: str, segment: int | None, dtype: DtypeOption) -> tuple[SeparationModel, Params]:
    """The model to time and its parameters, random for a configuration."""
    params: Any = None
    if is_configuration(name):
        model = configs.get(name).model
    elif is_url(name) or name.lower() in known_models() or Path(name).is_dir():
        model, params = load_model(name)
    else:
        raise UserError(
            f"model is {name!r}; expected a folder, a URL, one of {', '.join(known_models())}, or a"
            f" configuration: a .py file, {', '.join(configs.NAMES)}"
        )
    compute = dataclasses.replace(model.compute, dtype=inference_dtype(dtype))
    model = dataclasses.replace(
        model, compute=compute, segment=model.segment if segment is None else segment
    )
    if params is None:
        params = jax.device_get(jax.jit(model.init)(jax.random.key(0)))
    return model, params


if __name__ == "__main__":
    with one_line_errors():
        main(tyro.cli(Arguments, description=__doc__))
