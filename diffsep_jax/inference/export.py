"""A sampler as a file that JAX runs without this package: `jax.export` for a list of platforms.

The folder is a model directory with two more files:

    sampler.jaxexport   the program in StableHLO for all of the platforms, without parameters
    export.json         its arguments, and the versions that wrote it
    model.safetensors   the parameters: its first argument, by their names in the file
    config.json         the model

`docs/run_exported.py` runs it.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.export
import jaxlib
import numpy as np
from flax.traverse_util import unflatten_dict
from jaxtyping import Array

from diffsep_jax.errors import UserError
from diffsep_jax.files import new_folder, write_bytes
from diffsep_jax.inference import engine
from diffsep_jax.inference.chunks import DEFAULT_OVERLAP, plan
from diffsep_jax.inference.pretrained import WEIGHTS_FILE, save_model, stored_params
from diffsep_jax.inference.settings import DEFAULT_PRESET, PAPER, Preset, SamplerSettings
from diffsep_jax.models.attention import Backend
from diffsep_jax.models.model import Params, SeparationModel
from diffsep_jax.runtime import fixed_flags

FORMAT = "diffsep-jax export 3"
PROGRAM_FILE = "sampler.jaxexport"
ABOUT_FILE = "export.json"

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")

COMPATIBILITY = {
    "newer_jax": "up to 6 months newer than the one that exported",
    "older_jax": "up to 3 weeks older than the one that exported",
    "source": "https://docs.jax.dev/en/latest/export/export.html#compatibility-guarantees",
}


@fixed_flags()
def export_sampler(
    model: SeparationModel,
    params: Params,
    directory: Path,
    *,
    settings: SamplerSettings = PAPER,
    batch_size: int | None = None,
    platforms: Sequence[str] = PLATFORMS,
    default_preset: Preset = DEFAULT_PRESET,
) -> dict[str, Any]:
    """Writes a sampler and its model into a folder; each file appears whole or not at all.

    The program is (params, mixture, start, values) -> vocals, the arguments of
    `engine.sampling_function` without a guess. params is a dict by the names of model.safetensors,
    values one of the settings that the sampler uses.

    Args:
      model, params: as `load_model` gives them. Of `model.compute` only the type is used; attention
        and convolution are the platforms' own.
      directory: created if needed; files of these names in it are replaced.
      settings: the sampler, and the defaults of the values in export.json.
      batch_size: chunks of a call; None leaves it open until the program is compiled.
      platforms: for TPUs alone, attention is their own kernel, which cannot be lowered together
        with other platforms; otherwise it is a backend that all of them have.
      default_preset: default preset of the model directory.

    Returns:
      The content of export.json.

    Raises:
      UserError: an unknown platform, none, or one twice; a batch size below 1; a frequency that is
        too high for the model; a folder that cannot be written.
    """
    check_export(batch_size, platforms)
    settings.check_rate(model.sample_rate)
    stored = stored_params(params)
    batch: Any = jax.export.symbolic_shape("batch")[0] if batch_size is None else batch_size
    arguments: dict[str, Any] = {
        "params": {name: _like(leaf.shape, leaf.dtype) for name, leaf in stored.items()},
        "mixture": _like((batch, model.segment, engine.CHANNELS), np.float32),
        "start": _like((batch,), np.int32),
    }
    values = engine.runtime_values(settings)
    sample = engine.sampling_function(_for_platforms(model, platforms), settings.method)

    @jax.jit
    def program(
        params: dict[str, Array], mixture: Array, start: Array, values: dict[str, Array]
    ) -> Array:
        return sample(unflatten_dict(params, sep="/"), mixture, start, None, values)

    exported = jax.export.export(program, platforms=platforms)(*arguments.values(), values)
    stride = max(model.generator.stride, model.conditioner.stride)
    overlap = max(DEFAULT_OVERLAP, model.min_overlap / model.segment)
    about = {
        "format": FORMAT,
        "sampler": settings.method.name,
        "platforms": list(platforms),
        "sample_rate": model.sample_rate,
        "target_rms": model.target_rms,
        "segment": model.segment,
        "stride": stride,
        "hop": plan(model.segment, model.segment, overlap, stride).hop,
        "batch_size": batch_size,
        "dtype": model.compute.dtype,
        "arguments": [
            {"name": "params", "file": WEIGHTS_FILE},
            *(_describe(name, arguments[name]) for name in ("mixture", "start")),
        ],
        "values": [
            {"name": name, "dtype": str(value.dtype), "default": getattr(settings, name)}
            for name, value in values.items()
        ],
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "calling_convention_version": exported.calling_convention_version,
        "compatibility": COMPATIBILITY,
    }
    with new_folder(directory):
        save_model(directory, model, params, default_preset=default_preset)
        write_bytes(directory / PROGRAM_FILE, bytes(exported.serialize()))
        write_bytes(directory / ABOUT_FILE, (json.dumps(about, indent=2) + "\n").encode())
    return about


def check_export(batch_size: int | None, platforms: Sequence[str]) -> None:
    """Raises UserError for a bad batch size or list of platforms."""
    if batch_size is not None and batch_size < 1:
        raise UserError(f"batch size is {batch_size}; expected at least 1, or None for any")
    if not platforms or len(set(platforms)) < len(platforms) or not set(platforms) <= {*PLATFORMS}:
        raise UserError(
            f"platforms is {' '.join(platforms) or 'empty'}; expected one or more of"
            f" {', '.join(PLATFORMS)}, each once"
        )


def _for_platforms(model: SeparationModel, platforms: Sequence[str]) -> SeparationModel:
    attention: Backend = "portable"
    if "tpu" in platforms and len(platforms) > 1:
        attention = "blockwise"  # Pallas refuses to lower a TPU's kernel for any other platform
    compute = dataclasses.replace(model.compute, attention=attention, convolution="portable")
    return dataclasses.replace(model, compute=compute)


def _like(shape: tuple[Any, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


def _describe(name: str, value: jax.ShapeDtypeStruct) -> dict[str, Any]:
    shape = [size if isinstance(size, int) else str(size) for size in value.shape]
    return {"name": name, "dtype": str(value.dtype), "shape": shape}
