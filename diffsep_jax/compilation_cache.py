"""Compiled programs on disk: the second start of a command compiles nothing anew."""

import os
import pathlib

import jax


def use_compilation_cache() -> None:
    """Keeps compiled programs in $XDG_CACHE_HOME (or ~/.cache) /diffsep-jax/compiled.

    All of them: JAX leaves out those that took under a second, but a command has several such. JAX's
    own variables go first: JAX_COMPILATION_CACHE_DIR names another folder, or turns the cache off
    where it is set to nothing; JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS sets the second.
    """
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    jax.config.update(
        "jax_compilation_cache_dir", str(pathlib.Path(home) / "diffsep-jax" / "compiled")
    )


def cache_folder() -> str | None:
    """Where compiled programs are kept; None if they are not."""
    return jax.config.jax_compilation_cache_dir or None
