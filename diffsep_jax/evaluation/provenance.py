"""Where numbers come from: versions, hardware, and which weights exactly."""

import hashlib
import importlib.metadata
import os
import platform
from typing import Any

import jax

from diffsep_jax.inference.pretrained import CONFIG_FILE, WEIGHTS_FILE, model_dir


def versions() -> dict[str, str]:
    """Of Python and of the packages that compute scores."""
    packages = ("diffsep-jax", "jax", "jaxlib", "numpy", "scipy", "soxr")
    return {"python": platform.python_version()} | {
        name: importlib.metadata.version(name) for name in packages
    }


def hardware() -> dict[str, Any]:
    """What this process computes on, and how many processes there are."""
    device = jax.local_devices()[0]
    return {
        "platform": device.platform,
        "device": device.device_kind,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
        "cpu_cores": os.cpu_count(),
        "machine": platform.machine(),
        "system": platform.system(),
    }


def weights_digest(name_or_dir: str) -> str:
    """Equal for equal models. UserError if there is no such model."""
    digest = hashlib.sha256()
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        with (model_dir(name_or_dir) / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]
