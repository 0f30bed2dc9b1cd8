"""Speed of the attention backends that run here, and of PyTorch's attention beside them.

    python -m benchmarks.attention [--batch 2 --time 2048 --heads 8 --dim 32] [--json FILE]

The comparison needs PyTorch (the `bench` extra); without it only ours are timed. All take turns on
the same inputs, so that whatever else the machine does falls on all of them, and all have all
cores. Prints the median and the best time of each, forward and both passes, the ratio of
its median to PyTorch's, and the temporary memory of the compiled program.
"""

import dataclasses
import functools
import importlib.util
import json
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from diffsep_jax.errors import UserError, one_line_errors
from diffsep_jax.models.attention import Backend, attention, choose_backend

PASSES = ("forward", "both")
TORCH = "PyTorch"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Time attention over all positions."""

    batch: int = 2
    """Examples."""
    time: int = 2048
    """Positions."""
    heads: int = 8
    """Heads."""
    dim: int = 32
    """Width of a head."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the inputs."""
    backends: tuple[Backend, ...] = ()
    """Which to time; none given: plain, and what `auto` takes."""
    repeats: int = 20
    """Turns that each takes."""
    json: pathlib.Path | None = None
    """Where to write the figures too."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contestant:
    """One implementation, ready to run: a function for each pass, and its temporaries in bytes."""

    run: dict[str, Callable[[], Any]]
    temporaries: dict[str, int | None]


def main(args: Arguments) -> None:
    """Print a table of all contestants."""
    for name in ("batch", "time", "heads", "dim", "repeats"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} is {getattr(args, name)}; 1 or more is expected")
    figures = measure(args)
    title = f"{args.batch} x {args.time} positions, {args.heads} heads x {args.dim}, {args.dtype}"
    table = Table(title=f"{title}, {jax.default_backend()} with {os.cpu_count()} cores")
    columns = ("pass", "backend", "median ms", "best ms", f"to {TORCH}", "temporaries MiB")
    for column in columns:
        table.add_column(column, justify="left" if column in columns[:2] else "right")
    for row in figures:
        table.add_row(*(f"{x:.2f}" if isinstance(x, float) else str(x or "") for x in row.values()))
    Console().print(table)
    if args.json is not None:
        versions = {"jax": jax.__version__, "python": platform.python_version()}
        settings = dataclasses.asdict(args) | {"json": None, "cores": os.cpu_count()} | versions
        report = json.dumps({"settings": settings, "figures": figures}, indent=2)
        args.json.write_text(report + "\n", encoding="utf-8")


def measure(args: Arguments) -> list[dict[str, str | float | None]]:
    """One row for each pass and contestant."""
    rng = np.random.default_rng(0)
    shape = (args.batch, args.time, args.heads, args.dim)
    inputs = [rng.standard_normal(shape, dtype=np.float32) for _ in range(3)]
    auto = choose_backend(jax.default_backend(), args.time, args.dtype)
    backends = dict.fromkeys(args.backends or ("plain", auto))
    contestants: dict[str, Contestant] = {}
    for name in backends:
        contestants[name] = _ours(name, inputs, args.dtype)
    if importlib.util.find_spec("torch") is not None:
        contestants[TORCH] = _torch(inputs, args.dtype)
    figures: list[dict[str, str | float | None]] = []
    for direction in PASSES:
        runs = {label: one.run[direction] for label, one in contestants.items()}
        seconds = _take_turns(runs, args.repeats)
        of_torch = statistics.median(seconds[TORCH]) if TORCH in seconds else None
        for label, times in seconds.items():
            median = statistics.median(times)
            size = contestants[label].temporaries[direction]
            figures.append(
                {
                    "pass": direction,
                    "backend": label,
                    "median_ms": 1e3 * median,
                    "best_ms": 1e3 * min(times),
                    "ratio_to_torch": median / of_torch if of_torch else None,
                    "temporaries_mib": None if size is None else size / 2**20,
                }
            )
    return figures


def _take_turns(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 2):  # two turns to warm up
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if turn >= 2:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def _ours(backend: Backend, inputs: list[np.ndarray], dtype: str) -> Contestant:
    arrays = [jnp.asarray(x, dtype) for x in inputs]
    forward = functools.partial(attention, backend=backend)

    def backward(*arrays: jax.Array) -> tuple[jax.Array, Any]:
        out, pull_back = jax.vjp(forward, *arrays)
        return out, pull_back(out)

    functions: tuple[Callable, ...] = (forward, backward)
    run: dict[str, Callable[[], Any]] = {}
    temporaries: dict[str, int | None] = {}
    for direction, function in zip(PASSES, functions, strict=True):
        try:
            compiled = jax.jit(function).lower(*arrays).compile()
        except (ValueError, NotImplementedError, RuntimeError) as error:
            reason = str(error).partition("\n")[0]
            raise UserError(f"{backend} attention does not run here: {reason}") from error
        run[direction] = functools.partial(lambda f: jax.block_until_ready(f(*arrays)), compiled)
        analysis = compiled.memory_analysis()
        temporaries[direction] = None if analysis is None else analysis.temp_size_in_bytes
    return Contestant(run=run, temporaries=temporaries)


def _torch(inputs: list[np.ndarray], dtype: str) -> Contestant:
    """PyTorch's fused attention of the same inputs, on a GPU if it finds one."""
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tensors = [
        torch.from_numpy(x).to(device, getattr(torch, dtype)).requires_grad_() for x in inputs
    ]

    def attend() -> torch.Tensor:
        query, key, value = (x.transpose(1, 2) for x in tensors)  # heads before time
        out = torch.nn.functional.scaled_dot_product_attention(query, key, value)
        return out.transpose(1, 2)

    def finish() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    def forward() -> None:
        with torch.no_grad():
            attend()
        finish()

    def backward() -> None:
        out = attend()
        torch.autograd.grad(out, tensors, out.detach())
        finish()

    run = dict(zip(PASSES, (forward, backward), strict=True))
    return Contestant(run=run, temporaries=dict.fromkeys(PASSES))


if __name__ == "__main__":
    with one_line_errors():
        main(tyro.cli(Arguments, description=__doc__))
