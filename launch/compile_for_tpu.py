"""Asks the TPU compiler whether a program fits, on a machine without a TPU.

    python launch/compile_for_tpu.py CONFIG --topology v5e:2x4 --program train --per-device-batch 4

Compiles the training step of a config, or its sampler, and prints what each chip needs: memory,
FLOPs, communication. Any `model` and `train` option of train.py may be added, such as
--train.micro-batches 2, --train.mesh.fsdp 8, --model.compute.dtype bfloat16 or
--model.compute.remat full. The compiler, libtpu, comes with `pip install -e '.[train,tpu]'`;
TPU_LIBRARY_PATH may name a libtpu.so instead.

Exit status: 0 if the program fits a chip's memory, 3 if it does not, 2 for bad input.
"""

import dataclasses
import importlib.util
import math
import os
import pathlib
import re
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import tyro
from jax.experimental import topologies

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))  # for configs/

from diffsep_jax.errors import UserError, one_line_errors

with one_line_errors():
    import configs
    from diffsep_jax.inference import engine
    from diffsep_jax.models.convolution import choose_convolution
    from diffsep_jax.models.model import SeparationModel
    from diffsep_jax.runtime import CHIPS, count_flops
    from diffsep_jax.training.config import TrainConfig
    from diffsep_jax.training.sharding import BatchLayout, make_mesh
    from diffsep_jax.training.step import (
        as_written,
        example_flops,
        step_arguments,
        train_program,
    )

EXIT_DOES_NOT_FIT = 3

COMPILER_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
}
"""Keeps libtpu from looking for a TPU, and lets several processes compile at a time."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """Compiles a program for TPU slices and prints what each chip needs.

    Attributes:
        config: name or path of the experiment.
        topology: generation and chips of a slice: v4:2x2x2, v5e:2x4, v5p:2x2x2, v6e:2x4 and the
            like.
        program: a training step, or the sampler on a batch of chunks.
        per_device_batch: examples or chunks on each chip.
        model: the experiment's.
        train: the experiment's; the sampler does not use it.
        num_slices: slices, connected by a data center's network.
    """

    config: tyro.conf.Suppress[str]
    topology: str
    program: Literal["train", "sample"]
    per_device_batch: int
    model: SeparationModel
    train: TrainConfig
    num_slices: int = 1


NEEDS_LESS = (
    "a smaller --per-device-batch needs less, in training also --train.micro-batches,"
    " --train.mesh.fsdp and --model.compute.remat"
)


class DoesNotFitError(Exception):
    """The program needs more memory than a chip has."""


def main(arguments: Sequence[str]) -> None:
    """Compiles and prints. Raises UserError for bad input and DoesNotFitError."""
    command = parse(arguments)
    devices = tpu_devices(command.topology, command.num_slices)
    jax.config.update("jax_enable_compilation_cache", False)
    command = dataclasses.replace(command, model=for_tpu(command.model))
    lowered, mesh = lower(command, devices)
    compute, hosts = command.model.compute, {device.process_index for device in devices}
    show("program", f"{command.program} {command.config}, jax {jax.__version__}")
    show("compute", f"{compute.dtype}, {compute.attention} attention, remat {compute.remat}")
    show("devices", f"{mesh.size} x {devices[0].device_kind} on {len(hosts)} host(s)")
    show("mesh", " x ".join(f"{axis} {size}" for axis, size in mesh.shape.items()))
    show("batch", f"{command.per_device_batch * mesh.size}, {command.per_device_batch} a device")
    flops = ", ".join(f"{count:.4g} {when}" for when, count in flops_by_part(command).items())
    show("FLOPs", f"{flops}, on each device")

    start = time.perf_counter()
    compiled = compile_program(lowered)
    show("compiled in", f"{time.perf_counter() - start:.0f} s")
    for kind, sizes in collectives(compiled.as_text() or "").items():
        show(kind, f"{len(sizes)}, {gigabytes(sum(sizes))} of results")
    check_memory(compiled, CHIPS[devices[0].device_kind].memory)


def parse(arguments: Sequence[str]) -> Command:
    """The command line over the config that it names."""
    commands = {}
    own = [argument for argument in arguments[:1] if argument.endswith(".py")]
    for name in (*configs.NAMES, *own):
        experiment = configs.get(name)
        command = Command(
            config=name,
            topology=tyro.MISSING,
            program=tyro.MISSING,
            per_device_batch=tyro.MISSING,
            model=experiment.model,
            train=experiment.train,
        )
        commands[name] = (name if name in own else f"configs/{name}.py", command)
    command = tyro.extras.overridable_config_cli(
        commands, prog="launch/compile_for_tpu.py", description=__doc__, args=arguments
    )
    if command.per_device_batch < 1:
        raise UserError(f"per-device-batch is {command.per_device_batch}; expected 1 or more")
    if command.num_slices < 1:
        raise UserError(f"num-slices is {command.num_slices}; expected 1 or more")
    return command


def has_libtpu() -> bool:
    """Whether the compiler for TPUs can be found."""
    library = os.environ.get("TPU_LIBRARY_PATH")
    if library:
        return pathlib.Path(library).is_file()
    return importlib.util.find_spec("libtpu") is not None


def tpu_devices(topology: str, num_slices: int = 1) -> list[jax.Device]:
    """The chips of all slices, to compile for: they hold no arrays.

    Raises UserError for an unknown topology, and where there is no libtpu.
    """
    expected = "expected a TPU slice such as v4:2x2x2, v5e:2x4, v5p:2x2x2 or v6e:2x4"
    match = re.fullmatch(r"(v4|v5e|v5p|v6e):(\d+)x(\d+)(x\d+)?", topology)
    if match is None:
        raise UserError(f"topology is {topology!r}; {expected}")
    if not has_libtpu():
        raise UserError(
            "there is no libtpu, the compiler for TPUs; expected `pip install -e '.[train,tpu]'`,"
            " or TPU_LIBRARY_PATH set to a libtpu.so"
        )
    jax.config.update("jax_platforms", "cpu")
    for variable, value in COMPILER_ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    on_a_host = [min(2, int(size)) for size in match.groups()[1:3]]
    options: dict[str, Any] = {
        "chips_per_host_bounds": [*on_a_host, 1],
        "num_slices": num_slices,
    }
    if match[1] == "v4":
        options["chip_config_name"] = "megacore"  # a chip's two cores are one device
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=topology, **options)
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).split(": ", 1)[-1].splitlines()[0]
        raise UserError(f"topology is {topology!r}; {expected} ({reason})") from None
    return list(found.devices)


def for_tpu(model: SeparationModel) -> SeparationModel:
    """The model with what `auto` stands for on TPUs: on this machine it means something else.

    On TPUs `auto` leaves very short sequences to `plain` attention; here all are `splash`.
    """
    compute = model.compute
    if compute.attention == "auto":
        compute = dataclasses.replace(compute, attention="splash")
    if compute.convolution == "auto":
        compute = dataclasses.replace(compute, convolution=choose_convolution("tpu"))
    return dataclasses.replace(model, compute=compute)


def lower(
    command: Command, devices: Sequence[jax.Device]
) -> tuple[jax.stages.Lowered, jax.sharding.Mesh]:
    """The program over all devices, without parameters or data, and its mesh.

    Raises UserError if mesh, batch and micro-batches do not fit.
    """
    batch_size = command.per_device_batch * len(devices)
    if command.program == "sample":
        mesh = engine.chunk_mesh(devices)
        arguments = engine.chunk_arguments(command.model, mesh, batch_size)
        return engine.sampling_program(command.model, mesh).lower(*arguments), mesh
    mesh = make_mesh(command.train.mesh, devices)
    BatchLayout(mesh, batch_size, command.train.micro_batches)
    program = train_program(command.model, command.train, mesh)
    arguments = step_arguments(program, command.model, mesh, batch_size)
    return program.step.lower(*arguments), mesh


def flops_by_part(command: Command) -> dict[str, float]:
    """FLOPs of a device's share: "each step", and for the sampler also "once".

    Counted in the program as written: the compiled one leaves out attention kernels. Muon's
    iterations, the optimizer and the moving average are not counted.
    """
    batch_size = command.per_device_batch
    if command.program == "train":
        return {"each step": batch_size * example_flops(command.model, command.train)}
    model = as_written(command.model)
    params = jax.eval_shape(model.init, jax.eval_shape(lambda: jax.random.key(0)))
    audio = jax.ShapeDtypeStruct((batch_size, model.segment, 2), jnp.float32)
    sigma = jax.ShapeDtypeStruct((batch_size,), jnp.float32)
    conditioning = jax.eval_shape(model.condition, params, audio)
    return {
        "once": count_flops(model.condition, params, audio),
        "each step": count_flops(model.velocity, params, audio, sigma, audio, conditioning),
    }


def compile_program(lowered: jax.stages.Lowered) -> jax.stages.Compiled:
    """Raises DoesNotFitError if the compiler gives up because memory is too small."""
    try:
        return lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = str(error).split(": ", 1)[-1].splitlines()[0]
        raise DoesNotFitError(reason.rstrip(".")) from None


def check_memory(compiled: jax.stages.Compiled, limit: float) -> None:
    """Prints a device's memory; raises DoesNotFitError if it is more than `limit` bytes."""
    memory: Any = compiled.memory_analysis()
    parts = {
        "arguments": memory.argument_size_in_bytes,
        "output": memory.output_size_in_bytes - memory.alias_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "code": memory.generated_code_size_in_bytes,
    }
    for name, size in parts.items():
        show(name, gigabytes(size))
    total = f"{gigabytes(sum(parts.values()))} of {gigabytes(limit)} on each device"
    show("memory", total)
    if sum(parts.values()) > limit:
        raise DoesNotFitError(total)


# NAME = RESULT KIND(OPERANDS), ATTRIBUTES. Asynchronous ones are a KIND-start and a KIND-done, of
# which only the second has the plain result.
_COLLECTIVE = re.compile(
    r"= (\(*[a-z].*?) (?:ragged-)?"
    r"(all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)(?:-done)?\("
)
_ARRAY = re.compile(r"\b[a-z]+(\d*)[a-z0-9]*\[([0-9,]*)\]")  # bf16[4,8], f8e4m3fn[3], pred[]
_CHAIN = re.compile(r'chain_id="(\d+)"')


def collectives(hlo: str) -> dict[str, list[int]]:
    """The communications of a compiled program: kind -> bytes of each one's result on a device.

    One in a loop's body counts once. The TPU compiler cuts an asynchronous one into pieces, which
    it puts into its neighbours with the number of their chain; a chain counts once.
    """
    found, chains = defaultdict(list), set()
    for line in hlo.splitlines():
        match = _COLLECTIVE.search(line)
        if match is None:
            continue
        result, kind = match.groups()
        if chain := _CHAIN.search(line):
            if (kind, chain[1]) in chains:
                continue
            chains.add((kind, chain[1]))
        size = 0
        for bits, shape in _ARRAY.findall(result):
            elements = math.prod(map(int, filter(None, shape.split(","))))
            size += math.ceil(elements * int(bits or 8) / 8)
        found[kind].append(size)
    return dict(found)


def gigabytes(size: float) -> str:
    """In powers of ten."""
    return f"{size / 1e9:.3f} GB"


def show(name: str, value: str) -> None:
    """Prints a line at once: compiling takes minutes."""
    print(f"{name:15} {value}", flush=True)


if __name__ == "__main__":
    with one_line_errors():
        try:
            main(sys.argv[1:])
        except DoesNotFitError as error:
            print(f"does not fit: {error}; {NEEDS_LESS}", file=sys.stderr)
            sys.exit(EXIT_DOES_NOT_FIT)
