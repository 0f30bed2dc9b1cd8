"""`diffsep compile`: a model's programs into the cache, so that later commands start quickly."""

import dataclasses
from typing import get_args

from diffsep_jax.errors import UserError
from diffsep_jax.inference.chunks import DEFAULT_BATCH_SIZE
from diffsep_jax.inference.settings import Sampler


@dataclasses.dataclass(frozen=True)
class Compile:
    """Compile ahead of time what `diffsep separate` runs on this machine.

    Compiled programs are kept on disk; a later `diffsep separate` with the same model, batch size
    and devices takes them from there. They last until JAX or this package is updated.
    """

    model: str = "small"
    """Name of a model (see `diffsep models`) or a model directory."""

    batch_size: int = DEFAULT_BATCH_SIZE
    """As of `diffsep separate`: each size has programs of its own."""

    samplers: tuple[Sampler, ...] = get_args(Sampler)
    """Which to compile."""

    refine: bool = False
    """Also the programs of `diffsep separate --refine`."""


def compile_programs(command: Compile) -> None:
    """Runs the command: a line for each program, then where they are."""
    if command.batch_size < 1:
        raise UserError(f"batch size {command.batch_size}, expected at least 1")
    if not command.samplers:
        raise UserError(f"no sampler, expected one or more of {', '.join(get_args(Sampler))}")

    import jax

    from diffsep_jax.inference.ahead import compile_ahead
    from diffsep_jax.inference.pretrained import load_config
    from diffsep_jax.runtime import use_compilation_cache, use_cores

    use_cores(command.batch_size)
    use_compilation_cache()
    folder = jax.config.values["jax_compilation_cache_dir"]
    if not folder:
        raise UserError(
            "JAX_COMPILATION_CACHE_DIR is set to nothing, which turns the cache off; unset it, or"
            " name a folder"
        )
    model = load_config(command.model)
    for compiled in compile_ahead(
        model,
        batch_size=command.batch_size,
        samplers=tuple(dict.fromkeys(command.samplers)),
        refine=command.refine,
    ):
        name = f"{compiled.sampler}{' --refine' if compiled.refines else ''}"
        how = "was in the cache" if compiled.from_cache else "compiled"
        print(f"{name:16} {compiled.seconds:6.1f} s, {how}", flush=True)
    print(f"cache: {folder}")
