"""What the command prints, and the same as one JSON object."""

import dataclasses
import datetime
import math
import platform
from typing import Any

import jax

from diffsep_jax import hardware
from diffsep_jax.aot.collectives import by_kind
from diffsep_jax.aot.compilation import Compilation
from diffsep_jax.aot.programs import Program
from diffsep_jax.aot.roofline import ASSUMPTIONS, Roofline, roofline
from diffsep_jax.aot.topology import Topology
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
    compilation: Compilation,
    program: Program,
    model: SeparationModel,
    chip: hardware.Chip | None,
    memory: float | None,
) -> Json:
    """What the compiler and the counts say, per device and call unless the name says otherwise.

    `memory`: bytes of each device that is no `chip`, if known.
    """
    devices = program.mesh.size
    limit = memory if chip is None else chip.memory
    attention = program.attention_flops / devices
    return {
        "compile_seconds": compilation.seconds,
        "memory": {
            **dataclasses.asdict(compilation.memory),
            "total": compilation.memory.total,
            "limit": limit,
            "limit_is": "the chip's" if chip else f"this machine's RAM / {devices} devices",
        },
        "fits": limit is None or compilation.memory.total <= limit,
        "flops": {
            "model": program.model_flops / devices,
            "executed": compilation.executed_flops,
            "compiler": compilation.compiler_flops,
            "attention_by_formula": attention,
        },
        "bytes_accessed": compilation.bytes_accessed,
        "collectives": {
            kind: {"count": count, "bytes": size}
            for kind, (count, size) in by_kind(compilation.collectives).items()
        },
        "roofline": chip and _roofline(compilation, program, model, chip),
    }


def _roofline(
    compilation: Compilation, program: Program, model: SeparationModel, chip: hardware.Chip
) -> Json:
    devices = program.mesh.size
    bound: Roofline = roofline(
        chip,
        flops=compilation.executed_flops,
        bytes_accessed=compilation.bytes_accessed,
        bytes_sent=math.fsum(each.bytes_sent(devices) for each in compilation.collectives),
    )
    return {
        **dataclasses.asdict(bound),
        "limit": bound.limit,
        "shortest": bound.shortest,
        "longest": bound.longest,
        "examples_per_second": [program.batch_size / t for t in (bound.longest, bound.shortest)],
        "audio_seconds_per_second": [
            program.batch_size * model.segment / model.sample_rate / t
            for t in (bound.longest, bound.shortest)
        ],
        "model_flops_utilisation": [
            program.model_flops / (devices * chip.flops * t)
            for t in (bound.longest, bound.shortest)
        ],
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
    memory, flops = report["memory"], report["flops"]
    total = _size(memory["total"])
    if memory["limit"] is not None:
        total += f" of {_limit(memory)}; at one time {_size(memory['peak'])}"
    lines = [
        ("compiled in", f"{report['compile_seconds']:.1f} s"),
        *((name, _size(memory[name])) for name in _MEMORY),
        ("memory", total),
        ("model FLOPs", f"{flops['model']:.4g} a device and call: products and convolutions, once"),
        ("executed", f"{flops['executed']:.4g}: with what is computed again to save memory"),
        ("by compiler", _compiler_flops(report)),
        ("bytes accessed", _size(report["bytes_accessed"])),
        *(
            (kind, f"{found['count']}, {_size(found['bytes'])} of results")
            for kind, found in report["collectives"].items()
        ),
    ]
    if not report["collectives"]:
        lines.append(("collectives", "none"))
    if report["roofline"] is None:
        lines.append(("roofline", f"the peak of {report['device_kind']} is not known"))
        return _table(*lines)
    return _table(*lines, *_roofline_lines(report["roofline"])) + "".join(
        f"\n  assumed: {assumption}" for assumption in ASSUMPTIONS
    )


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


def _compiler_flops(report: Json) -> str:
    flops = report["flops"]
    own = f"{flops['compiler']:.4g}, elementwise work too"
    if report["compute_attention"] != "splash":
        return own
    attention = flops["attention_by_formula"]
    total = flops["compiler"] + attention
    return f"{own}, + {attention:.4g} in attention kernels by formula = {total:.4g}"


_MEMORY = ("arguments", "output", "temporaries", "code")


def _roofline_lines(bound: Json) -> list[tuple[str, str]]:
    terms = ", ".join(
        f"{name} {1e3 * bound[name]:.1f} ms" for name in ("compute", "memory", "interconnect")
    )
    slow, fast = bound["examples_per_second"]
    audio_slow, audio_fast = bound["audio_seconds_per_second"]
    low, high = bound["model_flops_utilisation"]
    return [
        ("roofline", terms),
        (
            "a call takes",
            f"at least {1e3 * bound['shortest']:.1f} ms ({bound['limit']});"
            f" {1e3 * bound['longest']:.1f} ms if nothing overlaps",
        ),
        (
            "throughput",
            f"{slow:.1f} to {fast:.1f} examples/s,"
            f" {audio_slow:.0f} to {audio_fast:.0f} s of audio/s",
        ),
        ("utilisation", f"{low:.1%} to {high:.1%} of the peak, in model FLOPs"),
    ]


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
