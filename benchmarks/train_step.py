"""Seconds of a train step: our compiled one against the same networks in eager PyTorch, on the CPU.

    python -m benchmarks.train_step tiny [--batch-size 8] [--micro-batches 4] [--repeats 20]

Needs the `bench` extra. Both do the same work on the same batch in float32: noise, the two networks
forward and backward, clipped AdamW, the moving average. A spectral configuration's step is that of
stage 1 (`--train.freeze generator`): the conditioner alone, for which PyTorch draws no noise. Both
use all cores. PyTorch is timed with one thread too, and the ratio is to the faster of its two, as
its threads wait for each other where other processes keep the cores busy. `taskset -c 0` gives both
one core.
"""

import dataclasses
import functools
import os
import resource
import time
from collections.abc import Callable

import jax
import numpy as np
import torch
import tyro

import configs
from benchmarks.torch_networks import Optimizer, TorchModel
from benchmarks.torch_spectral import TorchSpectralModel
from benchmarks.turns import take_turns
from diffsep_jax.errors import UserError, one_line_errors
from diffsep_jax.models.model import Params, SeparationModel
from diffsep_jax.models.spectral.conditioner import SpectralConditioner
from diffsep_jax.noise import KEY_TYPE
from diffsep_jax.training.config import TrainConfig
from diffsep_jax.training.sharding import BatchLayout, MeshConfig, batch_sharding, make_mesh
from diffsep_jax.training.step import step_arguments, train_program

WARM_UP_TURNS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """What is timed.

    Attributes:
        config: name or path of a configuration.
        batch_size: examples of a step; unset: the configuration's.
        micro_batches: micro-batches of our step; PyTorch takes the batch at once.
        repeats: timed steps of each.
    """

    config: tyro.conf.Positional[str]
    batch_size: int | None = None
    micro_batches: int = 1
    repeats: int = 20

    def __post_init__(self) -> None:
        for name in ("repeats", "batch_size", "micro_batches"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise UserError(f"--{name.replace('_', '-')} is {count}; expected 1 or more")


def main(args: Arguments) -> None:
    """Times both and prints the figures, one a line."""
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
    compiled = program.step.lower(*step_arguments(program, model, mesh, batch_size)).compile()
    compile_seconds = time.perf_counter() - start
    state = program.init(key)
    their_step = step_in_torch(model, jax.device_get(state.params), config)
    their_batch = {name: torch.from_numpy(audio) for name, audio in batch.items()}

    def ours() -> None:
        nonlocal state
        state, metrics = compiled(state, jax.device_put(batch, batch_sharding(mesh)), key)
        float(metrics["loss"])

    def theirs(threads: int) -> None:
        torch.set_num_threads(threads)
        their_step(**their_batch).item()

    cores = len(os.sched_getaffinity(0))
    before = peak_resident_bytes()
    for _ in range(WARM_UP_TURNS):
        theirs(cores)
    their_peak = peak_resident_bytes() - before
    runs: dict[str, Callable[[], None]] = {
        "ours": ours,
        f"PyTorch, {cores} threads": functools.partial(theirs, cores),
        "PyTorch, one thread": functools.partial(theirs, 1),
    }
    seconds = take_turns(runs, args.repeats, WARM_UP_TURNS)
    print(f"{args.config}, batch {batch_size}, {args.micro_batches} micro-batches, {cores} cores")
    print(f"{os.getloadavg()[0]:.1f} processes running or waiting, a mean over the last minute")
    print("| | seconds | fastest | processor seconds |")
    print("|---|---|---|---|")
    for name, each in seconds.items():
        print(f"| {name} | {each.clock:.4g} | {each.fastest:.4g} | {each.processor:.4g} |")
    best = min(each.clock for name, each in seconds.items() if name != "ours")
    print(f"ours to PyTorch's faster: {seconds['ours'].clock / best:.2f}")
    memory = compiled.memory_analysis()
    assert memory is not None
    print(f"our compilation: {compile_seconds:.1f} s; temporaries: {memory.temp_size_in_bytes:,} B")
    print(f"growth of resident memory by PyTorch: {their_peak:,} B")


def step_in_torch(
    model: SeparationModel, params: Params, config: TrainConfig
) -> Callable[..., torch.Tensor]:
    """PyTorch's step from the same parameters: (mixture, vocals) -> loss."""
    theirs: TorchModel | TorchSpectralModel
    if isinstance(model.conditioner, SpectralConditioner):
        theirs = TorchSpectralModel(model.conditioner, params)
    else:
        theirs = TorchModel(model, params)
    optimizer = Optimizer(theirs.params, config)

    def step(mixture: torch.Tensor, vocals: torch.Tensor) -> torch.Tensor:
        if isinstance(theirs, TorchSpectralModel):
            loss = theirs.loss(mixture, vocals, config.loss_weights)
        else:
            sigma = torch.rand(len(vocals))
            if config.stratified_sigma:
                sigma = (torch.randperm(len(vocals)) + sigma) / len(vocals)
            mixture, vocals = mixture * model.target_rms, vocals * model.target_rms
            noise = torch.randn_like(vocals)
            loss = theirs.loss(mixture, vocals, sigma, noise, config.loss_weights)
        optimizer.descend(loss)
        return loss

    return step


def peak_resident_bytes() -> int:
    """Peak resident memory of this process (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    with one_line_errors():
        main(tyro.cli(Arguments, description=__doc__))
