"""Time and memory of a conditioner's forward pass on one chunk.

    python -m benchmarks.conditioner diff_dmx_rt_musdb [--dtype float32] [--repeats 1]

Prints seconds (the best of the repeats), the compiled program's temporaries and the peak resident
memory of this process, parameters and compiler included.
"""

import dataclasses
import resource
import time

import jax
import jax.numpy as jnp
import tyro

import configs
from diffsep_jax.errors import one_line_errors
from diffsep_jax.models.compute import Dtype


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """One conditioner on this machine's default device."""

    config: tyro.conf.Positional[str]
    dtype: Dtype = "float32"
    repeats: int = 1


def main(options: Options) -> None:
    """Compiles, runs, prints."""
    model = configs.get(options.config).model
    compute = dataclasses.replace(model.compute, dtype=options.dtype)
    model = dataclasses.replace(model, compute=compute)
    params = {"conditioner": jax.jit(model.init)(jax.random.key(0))["conditioner"]}
    mixture = jax.random.normal(jax.random.key(1), (1, model.segment, 2))
    condition = jax.jit(model.condition).lower(params, mixture).compile()
    seconds = []
    for _ in range(options.repeats):
        start = time.perf_counter()
        conditioning = jax.block_until_ready(condition(params, mixture))
        seconds.append(time.perf_counter() - start)
    memory = condition.memory_analysis()
    temporaries = memory.temp_size_in_bytes / 2**30 if memory is not None else float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    assert bool(jnp.isfinite(conditioning.estimate).all())
    print(
        f"{options.config}, {model.segment} samples, {options.dtype}, {jax.default_backend()}:"
        f" {min(seconds):.1f} s, {temporaries:.2f} GiB of temporaries,"
        f" {peak:.2f} GiB peak resident memory"
    )


if __name__ == "__main__":
    with one_line_errors():
        main(tyro.cli(Options))
