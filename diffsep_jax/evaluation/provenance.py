"""Where numbers come from: versions, hardware, and which weights exactly."""

import hashlib
import importlib.metadata
import json
import os
import platform
from typing import Any

import jax

from diffsep_jax.inference.pretrained import WEIGHTS_FILE, load_config, model_dir
from diffsep_jax.model_config import model_to_json


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
    """Identifies the model, whatever its default preset. UserError if there is no such model."""
    config = model_to_json(load_config(name_or_dir))
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    with (model_dir(name_or_dir) / WEIGHTS_FILE).open("rb") as file:
        digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]
