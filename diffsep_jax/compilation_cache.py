"""Compiled programs on disk: the second start of a command compiles nothing anew."""

import os
import pathlib

import jax


def use_compilation_cache() -> None:
    """Keeps compiled programs in $XDG_CACHE_HOME (or ~/.cache) /diffsep-jax/compiled.

    JAX's own variable JAX_COMPILATION_CACHE_DIR names another folder; set to nothing, it turns the
    cache off.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    jax.config.update(
        "jax_compilation_cache_dir", str(pathlib.Path(home) / "diffsep-jax" / "compiled")
    )
