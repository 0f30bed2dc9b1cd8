"""Compiles a model's programs ahead of time, for JAX's cache of compiled programs on disk."""

import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax

from diffsep_jax.inference import engine
from diffsep_jax.inference.pretrained import abstract_params
from diffsep_jax.inference.settings import Sampler
from diffsep_jax.separation_model import SeparationModel

_REQUEST = "/jax/compilation_cache/compile_requests_use_cache"
_HIT = "/jax/compilation_cache/cache_hits"


class Compiled(NamedTuple):
    """A program that is in the cache now, if there is one.

    Attributes:
      sampler, refines: which it is; `refines` is one that starts from given vocals.
      seconds: to trace it and to compile it or find it.
      from_cache: it was there before.
    """

    sampler: Sampler
    refines: bool
    seconds: float
    from_cache: bool


def compile_ahead(
    model: SeparationModel, *, batch_size: int, samplers: Sequence[Sampler], refine: bool
) -> Iterator[Compiled]:
    """Compiles what `ChunkSeparator` runs on this process's devices, program by program.

    Args:
      model: its parameters are not needed.
      batch_size: chunks of a call; each size is a program of its own.
      samplers: `ddim` and `ab2` are one program each, or two with `refine`; `direct` is one.
      refine: also the programs that start from given vocals.
    """
    devices = jax.local_devices()
    mesh = engine.chunk_mesh(devices)
    batch_size = engine.whole_batch(batch_size, devices)
    arguments = engine.abstract_arguments(model, mesh, batch_size, abstract_params(model))
    params, mixture, start, _, *values = arguments
    for sampler in samplers:
        if sampler == "direct":
            program = engine.direct_program(model, mesh)
            yield Compiled(sampler, False, *_compile(program, (params, mixture, start)))
            continue
        program = engine.sampling_program(model, mesh, sampler)
        yield Compiled(sampler, False, *_compile(program, arguments))
        if refine:
            with_guess = (params, mixture, start, mixture, *values)
            yield Compiled(sampler, True, *_compile(program, with_guess))


def _compile(program: Any, arguments: tuple[Any, ...]) -> tuple[float, bool]:
    """Seconds, and whether the cache had it."""
    events: list[str] = []

    def note(event: str, **_: Any) -> None:
        events.append(event)

    start = time.perf_counter()
    jax.monitoring.register_event_listener(note)
    try:
        program.lower(*arguments).compile()
    finally:
        jax.monitoring.unregister_event_listener(note)
    requests, hits = events.count(_REQUEST), events.count(_HIT)
    return time.perf_counter() - start, requests > 0 and hits == requests
