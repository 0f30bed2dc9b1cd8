"""Seconds of a train step: our compiled one against the same networks in eager PyTorch, on the CPU.

    python -m benchmarks.train_step tiny [--batch-size 8] [--micro-batches 4] [--repeats 20]
                                    [--json FILE]

Needs the `bench` extra. Both do the same work on the same batch in float32: noise, the two networks
forward and backward, clipped AdamW, the moving average. A spectral configuration's step is that of
stage 1 (`--train.freeze generator`): the conditioner alone, its outputs compared with ours first;
there PyTorch draws no noise. Both have all cores. PyTorch is timed with one thread too, and the
ratio is to the faster of its two: where other processes keep the cores busy, its threads wait for
each other and one is faster than all. After warming up they take turns, so that whatever else the
machine does falls on all. `taskset -c 0` in front gives both one core.
"""

import dataclasses
import json
import os
import pathlib
import platform
import resource
import statistics
import time
from collections.abc import Callable

import jax
import numpy as np
import torch
import tyro

import configs
from benchmarks.torch_networks import TorchModel, Trainer
from benchmarks.torch_spectral import StageOneTrainer, TorchSpectralModel
from diffsep_jax.errors import UserError, one_line_errors
from diffsep_jax.models.spectral.conditioner import SpectralConditioner
from diffsep_jax.output import write_bytes
from diffsep_jax.separation_model import Params, SeparationModel
from diffsep_jax.training.program import KEY_TYPE, abstract_arguments, train_program
from diffsep_jax.training.sharding import BatchLayout, MeshConfig, batch_sharding, make_mesh

WARM_UP_STEPS = 3
TOLERANCE = 1e-4
"""Of the largest value, by which the outputs may differ."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Time both train steps."""

    config: tyro.conf.Positional[str]
    """Name of a configuration."""
    batch_size: int | None = None
    """Examples of a step; unset: the configuration's."""
    micro_batches: int = 1
    """Parts in which our step takes them; PyTorch takes them at once."""
    repeats: int = 20
    """Steps of each that are timed."""
    json: pathlib.Path | None = None
    """Where to write the figures too."""


def main(args: Arguments) -> None:
    """Print the figures, one a line."""
    counts = {name: getattr(args, name) for name in ("repeats", "batch_size", "micro_batches")}
    for name, count in counts.items():
        option = name.replace("_", "-")
        if count is not None and count < 1:
            raise UserError(f"--{option} is {count}; 1 or more is expected")
    figures = measure(args)
    for name, value in figures.items():
        print(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")
    if args.json is not None:
        write_bytes(args.json, (json.dumps(figures, indent=2) + "\n").encode())


def measure(args: Arguments) -> dict[str, str | int | float]:
    """The figures by name."""
    experiment = configs.get(args.config)
    model = experiment.model
    optimizer = dataclasses.replace(experiment.train.optimizer, method="adamw")
    config = dataclasses.replace(
        experiment.train, micro_batches=args.micro_batches, optimizer=optimizer
    )
    if isinstance(model.conditioner, SpectralConditioner):
        config = dataclasses.replace(config, freeze="generator")
    batch_size = args.batch_size or experiment.data.pipeline.batch_size
    draw = np.random.default_rng(0).standard_normal
    batch = {
        name: draw((batch_size, model.segment, 2), np.float32) for name in ("mixture", "vocals")
    }

    mesh = make_mesh(MeshConfig(), jax.devices("cpu")[:1])
    BatchLayout(mesh, batch_size, args.micro_batches)  # refuses what does not divide
    program = train_program(model, config, mesh)
    key = jax.random.key(0, impl=KEY_TYPE)
    start = time.perf_counter()
    compiled = program.step.lower(*abstract_arguments(program, model, mesh, batch_size)).compile()
    compile_seconds = time.perf_counter() - start
    state = program.init(key)
    parameters = jax.device_get(state.params)

    def ours() -> None:
        nonlocal state
        state, metrics = compiled(state, jax.device_put(batch, batch_sharding(mesh)), key)
        float(metrics["loss"])

    trainer: Trainer
    if isinstance(model.conditioner, SpectralConditioner):
        parameters = {"conditioner": parameters["conditioner"]}
        spectral = TorchSpectralModel(model.conditioner)
        check_outputs(model, spectral, parameters, batch["mixture"])
        spectral.load_params(parameters)
        trainer = StageOneTrainer(spectral, config)
    else:
        theirs_model = TorchModel(model)
        theirs_model.load_params(parameters)
        trainer = Trainer(theirs_model, config)
    their_batch = {name: torch.from_numpy(audio) for name, audio in batch.items()}

    cores = len(os.sched_getaffinity(0))

    def theirs() -> None:
        torch.set_num_threads(cores)
        trainer.step(**their_batch).item()

    def theirs_with_one_thread() -> None:
        torch.set_num_threads(1)
        trainer.step(**their_batch).item()

    before = _peak_resident_bytes()
    for _ in range(WARM_UP_STEPS):
        theirs()
    their_peak = _peak_resident_bytes() - before
    for _ in range(WARM_UP_STEPS):
        ours()
    seconds: dict[Callable[[], None], list[float]] = {
        run: [] for run in (ours, theirs, theirs_with_one_thread)
    }
    processor_seconds: dict[Callable[[], None], list[float]] = {run: [] for run in seconds}
    for _ in range(args.repeats):
        for run, times in seconds.items():
            start, processor_start = time.perf_counter(), time.process_time()
            run()
            times.append(time.perf_counter() - start)
            processor_seconds[run].append(time.process_time() - processor_start)

    medians = {run: statistics.median(times) for run, times in seconds.items()}
    best_of_theirs = min(medians[theirs], medians[theirs_with_one_thread])
    memory = compiled.memory_analysis()
    assert memory is not None
    return {
        "config": args.config,
        "batch size": batch_size,
        "our micro-batches": args.micro_batches,
        "samples of an example": model.segment,
        "cores": cores,
        "processes running or waiting (1 minute's mean)": os.getloadavg()[0],
        "machine": platform.machine(),
        "jax": jax.__version__,
        "torch": torch.__version__,
        "our step, seconds (median)": medians[ours],
        "PyTorch's step, all cores, seconds (median)": medians[theirs],
        "PyTorch's step, one thread, seconds (median)": medians[theirs_with_one_thread],
        "ratio, ours to PyTorch's faster": medians[ours] / best_of_theirs,
        "our fastest step, seconds": min(seconds[ours]),
        "PyTorch's fastest step, seconds": min(seconds[theirs] + seconds[theirs_with_one_thread]),
        "our processor seconds (median)": statistics.median(processor_seconds[ours]),
        "PyTorch's processor seconds, one thread (median)": statistics.median(
            processor_seconds[theirs_with_one_thread]
        ),
        "compilation, seconds": compile_seconds,
        "our temporaries, MB": memory.temp_size_in_bytes / 1e6,
        "PyTorch's growth of resident memory, MB": their_peak / 1e6,
    }


def check_outputs(
    model: SeparationModel, theirs: TorchSpectralModel, params: Params, mixture: np.ndarray
) -> None:
    """Raises AssertionError unless both give the same outputs with parameters near `params`."""
    # Away from the start, whose output layers are zero.
    draw = np.random.default_rng(1).standard_normal
    params = jax.tree.map(lambda p: p + np.float32(0.05) * draw(p.shape, np.float32), params)
    theirs.load_params(params)
    with torch.no_grad():
        estimate, log_scale = theirs.conditioner(torch.from_numpy(mixture))
    ours = jax.jit(model.condition)(params, mixture)
    for output, expected in ((estimate, ours.estimate), (log_scale, ours.log_scale)):
        error = np.abs(output.numpy() - expected).max() / np.abs(expected).max()
        assert error < TOLERANCE, f"the outputs differ by {error:.2g} of the largest value"


def _peak_resident_bytes() -> int:
    """The most memory that this process ever held (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    with one_line_errors():
        main(tyro.cli(Arguments, description=__doc__))
