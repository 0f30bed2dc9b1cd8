"""Compiles a program and reads what the compiler tells about it."""

import dataclasses
import time
from typing import Any

import jax

from diffsep_jax.aot.collectives import Collective, collectives
from diffsep_jax.aot.programs import Program


class DoesNotFitError(Exception):
    """The compiler gave up: the program needs more memory than the device has."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on each device.

    Attributes:
        arguments: parameters, state, batch.
        output: results that do not take an argument's place.
        temporaries: everything between.
        code: the program itself.
        peak: the compiler's own figure for the most that is in use at one time. `temporaries` can
            be more: they count on-chip buffers and gaps too.
    """

    arguments: int
    output: int
    temporaries: int
    code: int
    peak: int

    @property
    def total(self) -> int:
        """All but the peak: safely enough."""
        return self.arguments + self.output + self.temporaries + self.code


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compilation:
    """What is known of a program when it is compiled. Per device and call, unless said otherwise.

    Attributes:
        seconds: that the compiler took, with nothing from a cache.
        memory: in bytes.
        flops: the compiler's count: elementwise work too, no attention kernels.
        bytes_accessed: the compiler's count of what its operations read and write.
        collectives: communication, as it stands in the program.
    """

    seconds: float
    memory: Memory
    flops: float
    bytes_accessed: float
    collectives: list[Collective]


def compile_program(program: Program) -> Compilation:
    """Compiles for the program's devices. Raises DoesNotFitError if the compiler says so.

    The compiler counts the body of a loop once; here it counts as often as it runs. With
    micro-batches that counts the little outside their loop, the optimizer, as often.
    """
    compiled, seconds = _compile(program.function, program.arguments)
    costs = _costs(compiled)
    if program.before_loop is None:
        costs = [program.trips * cost for cost in costs]
    else:
        before = _costs(_compile(*program.before_loop)[0])
        costs = [
            first + program.trips * (total - first)
            for first, total in zip(before, costs, strict=True)
        ]
    return Compilation(
        seconds=seconds,
        memory=_memory(compiled),
        flops=costs[0],
        bytes_accessed=costs[1],
        collectives=collectives(compiled.as_text()),
    )


def _compile(function: Any, arguments: tuple[Any, ...]) -> tuple[Any, float]:
    lowered = function.lower(*arguments)
    start = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        message = str(error)
        if "RESOURCE_EXHAUSTED" not in message:
            raise
        raise DoesNotFitError(message.split(": ", 1)[-1].splitlines()[0]) from None
    return compiled, time.perf_counter() - start


def _costs(compiled: Any) -> list[float]:
    analysis = compiled.cost_analysis()
    return [float(analysis[name]) for name in ("flops", "bytes accessed")]


def _memory(compiled: Any) -> Memory:
    stats = compiled.memory_analysis()
    return Memory(
        arguments=stats.argument_size_in_bytes,
        output=stats.output_size_in_bytes - stats.alias_size_in_bytes,
        temporaries=stats.temp_size_in_bytes,
        code=stats.generated_code_size_in_bytes,
        peak=stats.peak_memory_in_bytes,
    )
