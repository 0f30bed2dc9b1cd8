"""Compiles a program for devices that are not here and tells what it takes.

    python -m diffsep_jax.aot CONFIG --topology v5e:2x4 --program train --per-device-batch 4

A script: it alone of the package knows the experiments in `configs/`. Exit status: 0 if the program
fits the chip's memory, 3 if it does not, 2 for bad input.
"""

import dataclasses
import json
import pathlib
import sys
from typing import Any, Literal

import jax
import tyro

from diffsep_jax.aot import programs, report
from diffsep_jax.aot.compilation import DoesNotFitError, compile_program
from diffsep_jax.aot.topology import memory_of_device, topology
from diffsep_jax.errors import UserError, one_line_errors
from diffsep_jax.files import check_writable, write_bytes
from diffsep_jax.runtime import CHIPS
from diffsep_jax.separation_model import SeparationModel
from diffsep_jax.training.config import TrainConfig

EXIT_DOES_NOT_FIT = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """Compiles a program for devices that are not here and tells what it takes.

    Attributes:
        config: name of an experiment in configs/; comes first.
        topology: "cpu", "cpu:8" or a TPU slice, such as v5e:2x4.
        program: a training step, or the sampler on a batch of chunks.
        per_device_batch: examples or chunks on each device.
        steps: T of the sampler.
        json: also write everything to this file.
        model: the experiment's.
        train: the experiment's; the sampler has no use for it.
    """

    config: tyro.conf.Positional[str]
    topology: str
    program: Literal["train", "sample"]
    per_device_batch: int
    steps: int = 50
    json: pathlib.Path | None = None
    model: SeparationModel
    train: TrainConfig

    def __post_init__(self) -> None:
        for name in ("per_device_batch", "steps"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; 1 or more is expected")


def parse(arguments: list[str]) -> Command:
    """The command line over the config that it names. Raises UserError for an unknown one."""
    import configs

    named = bool(arguments) and not arguments[0].startswith("-")
    if not named and {"-h", "--help"}.isdisjoint(arguments):
        raise UserError(
            f"no config; give one of {', '.join(configs.NAMES)} first:"
            " python -m diffsep_jax.aot CONFIG --topology v5e:2x4 ..."
        )
    experiment = configs.get(arguments[0] if named else "small")

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class CommandWithDefaults(Command):
        __doc__ = Command.__doc__
        model: SeparationModel = experiment.model
        train: TrainConfig = experiment.train

    return tyro.cli(CommandWithDefaults, args=arguments, prog="python -m diffsep_jax.aot")


def main(arguments: list[str]) -> int:
    """Compiles, prints, writes. The exit status, where nothing is wrong with the input."""
    command = parse(arguments)
    if command.json is not None:
        if command.json.is_dir():
            raise UserError(f"--json: {command.json} is a folder; the name of a file is expected")
        check_writable(command.json.parent)
    jax.config.update("jax_enable_compilation_cache", False)  # the compiler's time and word count
    machine = topology(command.topology)
    model = programs.for_platform(command.model, machine.platform)
    settings: dict[str, Any] = {
        "config": command.config,
        "program": command.program,
        "per_device_batch": command.per_device_batch,
    }
    if command.program == "train":
        settings["micro_batches"] = command.train.micro_batches
        program = programs.training(model, command.train, machine.devices, command.per_device_batch)
    else:
        settings["steps"] = command.steps
        program = programs.sampling(model, machine.devices, command.per_device_batch, command.steps)
    found = report.describe(machine, program, model, settings)
    print(report.header(found), flush=True)

    too_large = None
    try:
        compilation = compile_program(program)
    except DoesNotFitError as error:
        too_large = f"{error}"
        found |= {"fits": False, "compiler_says": too_large}
    else:
        found |= report.results(
            compilation, program, CHIPS.get(machine.device_kind), memory_of_device(machine)
        )
        print(report.body(found))
        if not found["fits"]:
            too_large = report.excess(found)
    if command.json is not None:
        write_bytes(command.json, json.dumps(found, indent=2).encode() + b"\n")
    if too_large is None:
        return 0
    print(f"does not fit: {too_large}", file=sys.stderr)
    return EXIT_DOES_NOT_FIT


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main(sys.argv[1:]))
