"""Compiled programs on disk: the second start of a command compiles nothing anew."""

import os
import pathlib

import jax

MIN_COMPILE_SECONDS = 0.1
"""JAX's second would leave out the direct estimate of a small model."""


def use_compilation_cache() -> None:
    """Keeps compiled programs in $XDG_CACHE_HOME (or ~/.cache) /diffsep-jax/compiled.

    Those that took `MIN_COMPILE_SECONDS` or more. JAX's own variables go first:
    JAX_COMPILATION_CACHE_DIR names another folder, or turns the cache off where it is set to
    nothing; JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS sets the time.
    """
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_COMPILE_SECONDS)
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    jax.config.update(
        "jax_compilation_cache_dir", str(pathlib.Path(home) / "diffsep-jax" / "compiled")
    )
