"""`diffsep info` and `diffsep models`: what this installation runs on, and its models."""

import dataclasses
import importlib.metadata
import importlib.resources
import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path

# Those that decide what is computed and which files can be read.
_PACKAGES = ("jax", "jaxlib", "flax", "numpy", "scipy", "soundfile", "soxr", "av")


@dataclasses.dataclass(frozen=True)
class Info:
    """Print versions, devices, caches and which extras are installed, for a bug report."""


@dataclasses.dataclass(frozen=True)
class Models:
    """List the models that come with the package."""


def list_models(_: Models) -> None:
    """Prints a line for each model: its name, and the first line of its card's text."""
    from diffsep_jax.inference.pretrained import known_models

    for name in known_models():
        card = importlib.resources.files("diffsep_jax") / "pretrained" / name / "README.md"
        print(f"{name:12} {_first_sentence(card.read_text())}" if card.is_file() else name)


def _first_sentence(card: str) -> str:
    """The first line of text of a model card, past its front matter and headings."""
    if card.startswith("---\n"):
        card = card.split("\n---\n", 1)[-1]
    lines = (line.strip() for line in card.splitlines())
    return next((line for line in lines if line and not line.startswith("#")), "")


def show_info(_: Info) -> None:
    """Prints a line for each subject."""
    for name, text in _facts():
        print(f"{name:10} {text}")


def _facts() -> Iterator[tuple[str, str]]:
    import jax

    from diffsep_jax.errors import MachineError
    from diffsep_jax.files import user_cache
    from diffsep_jax.inference.pretrained import known_models
    from diffsep_jax.runtime import check_platform

    yield "diffsep", f"{importlib.metadata.version('diffsep-jax')} in {Path(__file__).parents[1]}"
    yield "python", f"{platform.python_version()} on {platform.platform()}"
    yield "packages", ", ".join(f"{name} {_version(name)}" for name in _PACKAGES)
    check_platform()
    for device in jax.local_devices():
        limit = (device.memory_stats() or {}).get("bytes_limit")
        memory = f", {limit / 2**30:.1f} GiB for JAX" if limit else ""
        cores = f", {os.cpu_count()} cores" if device.platform == "cpu" else ""
        yield "device", f"{device.platform}: {device.device_kind}{cores}{memory}"
    yield "models", ", ".join(known_models())
    for name in ("compiled", "songs", "models", "runs"):
        try:
            folder = user_cache(name)
        except MachineError as error:
            yield "cache", str(error)
            break
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        yield "cache", f"{folder}, {size / 1e6:.0f} MB"
    for extra, packages in _extras().items():
        missing = [name for name in packages if _version(name) == "missing"]
        yield "extra", f"{extra}: lacks {', '.join(missing)}" if missing else f"{extra}: installed"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _extras() -> dict[str, list[str]]:
    """The packages that each extra adds. JAX's own (CUDA, TPU) show in the devices."""
    extras: dict[str, list[str]] = {}
    for requirement in importlib.metadata.requires("diffsep-jax") or ():
        # Without those for some machines only.
        if found := re.match(r"([\w-]+)[^\[;]*; extra == .([\w-]+)", requirement):
            extras.setdefault(found[2], []).append(found[1])
    return extras
