"""What the command prints, and the same as one JSON object."""

import dataclasses
import datetime
import platform
from typing import Any

import jax

from diffsep_jax.aot.collectives import by_kind
from diffsep_jax.aot.compilation import Compilation
from diffsep_jax.aot.programs import Program
from diffsep_jax.aot.topology import Topology
from diffsep_jax.runtime import Chip
from diffsep_jax.separation_model import SeparationModel

Json = dict[str, Any]


def describe(topology: Topology, program: Program, model: SeparationModel, settings: Json) -> Json:
    """What is to be compiled; `settings` are those of the command."""
    return {
        "date": datetime.date.today().isoformat(),
        "versions": {
            "jax": jax.__version__,
            "compiler": topology.compiler,
            "python": platform.python_version(),
        },
        **settings,
        "topology": topology.name,
        "devices": len(topology.devices),
        "device_kind": topology.device_kind,
        "hosts": topology.hosts,
        "mesh": dict(program.mesh.shape),
        "batch_size": program.batch_size,
        **{f"compute_{name}": value for name, value in dataclasses.asdict(model.compute).items()},
    }


def results(
    compilation: Compilation, program: Program, chip: Chip | None, memory: float | None
) -> Json:
    """What the compiler and the counts say, per device and call unless the name says otherwise.

    `memory`: bytes of each device that is no `chip`, if known.
    """
    devices = program.mesh.size
    limit = memory if chip is None else chip.memory
    return {
        "compile_seconds": compilation.seconds,
        "memory": {
            **dataclasses.asdict(compilation.memory),
            "total": compilation.memory.total,
            "limit": limit,
            "limit_is": "the chip's" if chip else f"this machine's RAM / {devices} devices",
        },
        "fits": limit is None or compilation.memory.total <= limit,
        "flops": compilation.flops,
        "bytes_accessed": compilation.bytes_accessed,
        "collectives": {
            kind: {"count": count, "bytes": size}
            for kind, (count, size) in by_kind(compilation.collectives).items()
        },
    }


def header(report: Json) -> str:
    """The lines that can be printed before the compiler starts."""
    versions = report["versions"]
    compute = ", ".join(report[f"compute_{name}"] for name in ("dtype", "attention"))
    mesh = " x ".join(f"{name} {size}" for name, size in report["mesh"].items())
    return _table(
        ("date", report["date"]),
        ("versions", f"jax {versions['jax']}, {versions['compiler']}, Python {versions['python']}"),
        ("program", _program(report)),
        ("compute", f"{compute} attention, rematerialisation {report['compute_remat']}"),
        (
            "devices",
            f"{report['devices']} x {report['device_kind']}, {_count(report['hosts'], 'host')}",
        ),
        ("mesh", mesh),
        ("batch", f"{report['batch_size']}, {report['per_device_batch']} a device"),
    )


def body(report: Json) -> str:
    """The lines about the compiled program."""
    memory = report["memory"]
    total = _size(memory["total"])
    if memory["limit"] is not None:
        total += f" of {_limit(memory)}; at one time {_size(memory['peak'])}"
    lines = [
        ("compiled in", f"{report['compile_seconds']:.1f} s"),
        *((name, _size(memory[name])) for name in _MEMORY),
        ("memory", total),
        ("FLOPs", f"{report['flops']:.4g}, elementwise work too, without attention kernels"),
        ("bytes accessed", _size(report["bytes_accessed"])),
        *(
            (kind, f"{found['count']}, {_size(found['bytes'])} of results")
            for kind, found in report["collectives"].items()
        ),
    ]
    if not report["collectives"]:
        lines.append(("collectives", "none"))
    return _table(*lines)


def excess(report: Json) -> str:
    """One line on a program that is too large."""
    memory = report["memory"]
    return (
        f"{_size(memory['total'])} on each device of {_limit(memory)}; a smaller"
        " --per-device-batch, --train.micro-batches, --model.compute.remat or --train.mesh.fsdp"
        " needs less"
    )


def _limit(memory: Json) -> str:
    return f"{_size(memory['limit'])} ({memory['limit_is']})"


_MEMORY = ("arguments", "output", "temporaries", "code")


def _program(report: Json) -> str:
    name = f"{report['program']} {report['config']}"
    if report["program"] == "train":
        return f"{name}, {_count(report['micro_batches'], 'micro-batch', 'micro-batches')}"
    return f"{name}, {_count(report['steps'], 'step')}"


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _size(size: float | int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _table(*lines: tuple[str, str]) -> str:
    return "\n".join(f"{name:15} {value}" for name, value in lines)
