"""`diffsep export`: a sampler as a file that JAX runs without this package."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from diffsep_jax.arguments import unset
from diffsep_jax.files import check_writable
from diffsep_jax.inference.settings import SamplerOptions, check_effect, complete
from diffsep_jax.runtime import DtypeOption, inference_dtype


@dataclasses.dataclass(frozen=True)
class Export:
    """Write a sampler and its model as files that JAX runs without this package.

    The files are sampler.jaxexport, the program for all given platforms; export.json, its
    arguments; and the model directory's model.safetensors and config.json. See docs/export.md.
    """

    out: Path
    """Folder for the files; created if needed."""

    model: str = "small"
    """Name of a model (see `diffsep models`), a model directory, or its URL: hf://user/name."""

    sampling: Annotated[SamplerOptions, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=SamplerOptions
    )
    """The sampler, and the defaults of the exported program's other settings."""

    batch_size: Annotated[int | None, unset("left open until the program is compiled")] = None
    """Chunks of a call."""

    dtype: DtypeOption = "auto"
    """Type in which the networks compute; auto: float32 if cpu is a platform, else bfloat16."""

    platforms: Annotated[
        tuple[Literal["cpu", "cuda", "rocm", "tpu"], ...], tyro.conf.arg(metavar="PLATFORM...")
    ] = ("cpu", "cuda", "rocm", "tpu")
    """Platforms to support: cpu, cuda, rocm, tpu. tpu alone has the TPU's own attention."""


def export(command: Export) -> None:
    """Runs the command and prints a line about what was written."""
    check_writable(command.out)

    from diffsep_jax.inference.export import PROGRAM_FILE, check_export, export_sampler
    from diffsep_jax.inference.pretrained import load_default_preset, load_model

    check_export(command.batch_size, command.platforms)
    preset = load_default_preset(command.model)
    settings = complete(command.sampling, preset)
    check_effect(command.sampling, settings)
    model, params = load_model(command.model)
    dtype = inference_dtype(command.dtype, command.platforms)
    model = dataclasses.replace(model, compute=dataclasses.replace(model.compute, dtype=dtype))
    export_sampler(
        model,
        params,
        command.out,
        settings=settings,
        batch_size=command.batch_size,
        platforms=command.platforms,
        default_preset=preset,
    )
    size = (command.out / PROGRAM_FILE).stat().st_size
    print(
        f"{command.model} -> {command.out}: {settings.sampler} for {', '.join(command.platforms)},"
        f" {size / 1e6:.1f} MB without parameters"
    )
