"""Traced programs on disk, beside JAX's compiled ones, so that a second start traces nothing.

JAX looks compiled programs up by their text, and traces the model's Python code to get it: a
fifth of the time to the first chunk. Here the text itself is kept, under a name that depends on
all of this package's code.
"""

import contextlib
import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flax
import jax
import jax.export
import jaxlib

from diffsep_jax.errors import MachineError, UserError
from diffsep_jax.files import write_bytes
from diffsep_jax.models.model import SeparationModel
from diffsep_jax.samplers import Sampler

_CHECKSUM_BYTES = hashlib.sha256().digest_size  # at the start of the file


def kept_trace(
    program: Any, model: SeparationModel, sampler: Sampler, arguments: Sequence[Any]
) -> Any:
    """`program`, which samples from a model, or an equal one that calls its kept trace.

    Reads the trace from JAX's compilation cache folder, or traces the program and writes it there.
    The result accepts only arguments with the shapes, types and devices of `arguments`.

    Returns `program` itself if JAX has no compilation cache; on GPUs and TPUs, where JAX may be
    unable to export attention kernels; and if the model or sampler comes from outside this package.
    """
    folder = jax.config.values["jax_compilation_cache_dir"]
    parts = (type(model), type(model.generator), type(model.conditioner), sampler.function)
    is_ours = all(part is None or part.__module__.startswith("diffsep_jax.") for part in parts)
    if not folder or "://" in folder or jax.default_backend() != "cpu" or not is_ours:
        return program
    # Shapes with their shardings, which name the devices.
    layout = [(leaf.shape, leaf.dtype, leaf.sharding) for leaf in jax.tree.leaves(arguments)]
    identity = repr((model, sampler.name, jax.tree.structure(arguments), layout))
    digest = hashlib.sha256(identity.encode() + _code_digest()).hexdigest()
    path = Path(folder) / f"traced-{digest}"
    try:
        kept = path.read_bytes()
    except OSError:
        kept = b""
    checksum, trace = kept[:_CHECKSUM_BYTES], kept[_CHECKSUM_BYTES:]
    if hashlib.sha256(trace).digest() == checksum:
        exported = jax.export.deserialize(bytearray(trace))
    else:
        exported = jax.export.export(program)(*arguments)
        trace = bytes(exported.serialize())
        with contextlib.suppress(MachineError, UserError):  # JAX, too, runs on without its cache
            write_bytes(path, hashlib.sha256(trace).digest() + trace)
    return jax.jit(exported.call)


@functools.cache
def _code_digest() -> bytes:
    """A hash of this package's code and of the versions of what traces it."""
    digest = hashlib.sha256(repr((jax.__version__, jaxlib.__version__, flax.__version__)).encode())
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.digest()
