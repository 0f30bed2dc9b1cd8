"""Seconds of a train step: our compiled one against the same networks in eager PyTorch, on the CPU.

    python -m benchmarks.train_step tiny [--batch-size 8] [--repeats 20] [--json FILE]

Needs the `bench` extra. Both do the same work on the same batch in float32: noise, the two networks
forward and backward, clipped AdamW, the moving average. Both have all cores. After warming up they
take turns, so that whatever else the machine does falls on both.
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
from diffsep_jax.errors import UserError, one_line_errors
from diffsep_jax.training.program import KEY_TYPE, abstract_arguments, train_program
from diffsep_jax.training.sharding import MeshConfig, batch_sharding, make_mesh

WARM_UP_STEPS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Time both train steps."""

    config: tyro.conf.Positional[str]
    """Name of a configuration."""
    batch_size: int | None = None
    """Examples of a step; unset: the configuration's."""
    repeats: int = 20
    """Steps of each that are timed."""
    json: pathlib.Path | None = None
    """Where to write the figures too."""


def main(args: Arguments) -> None:
    """Print the figures, one a line."""
    if args.repeats < 1:
        raise UserError(f"--repeats is {args.repeats}; 1 or more is expected")
    figures = measure(args)
    for name, value in figures.items():
        print(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")
    if args.json is not None:
        args.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def measure(args: Arguments) -> dict[str, str | int | float]:
    """The figures by name."""
    experiment = configs.get(args.config)
    model, config = experiment.model, experiment.train
    batch_size = args.batch_size or experiment.data.pipeline.batch_size
    draw = np.random.default_rng(0).standard_normal
    batch = {
        name: draw((batch_size, model.segment, 2), np.float32) for name in ("mixture", "vocals")
    }

    mesh = make_mesh(MeshConfig(), jax.devices("cpu")[:1])
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

    theirs_model = TorchModel(model)
    theirs_model.load_params(parameters)
    trainer = Trainer(theirs_model, config)
    their_batch = {name: torch.from_numpy(audio) for name, audio in batch.items()}

    def theirs() -> None:
        trainer.step(**their_batch).item()

    before = _peak_resident_bytes()
    for _ in range(WARM_UP_STEPS):
        theirs()
    their_peak = _peak_resident_bytes() - before
    for _ in range(WARM_UP_STEPS):
        ours()
    seconds: dict[Callable[[], None], list[float]] = {ours: [], theirs: []}
    for _ in range(args.repeats):
        for run, times in seconds.items():
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)

    our_median, their_median = (statistics.median(times) for times in seconds.values())
    memory = compiled.memory_analysis()
    assert memory is not None
    return {
        "config": args.config,
        "batch size": batch_size,
        "samples of an example": model.segment,
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
        "jax": jax.__version__,
        "torch": torch.__version__,
        "our step, seconds (median)": our_median,
        "PyTorch's step, seconds (median)": their_median,
        "ratio, ours to PyTorch's": our_median / their_median,
        "our fastest step, seconds": min(seconds[ours]),
        "PyTorch's fastest step, seconds": min(seconds[theirs]),
        "compilation, seconds": compile_seconds,
        "our temporaries, MB": memory.temp_size_in_bytes / 1e6,
        "PyTorch's growth of resident memory, MB": their_peak / 1e6,
    }


def _peak_resident_bytes() -> int:
    """The most memory that this process ever held (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    with one_line_errors():
        main(tyro.cli(Arguments, description=__doc__))
