"""Experiments by name: `configs.get("small")`. One file each; the file is its document."""

import importlib

from configs.experiment import DataConfig, Experiment
from diffsep_jax.errors import UserError

NAMES = (
    "tiny",
    "tiny_spectral",
    "small",
    "medium",
    "large",
    "diff_dmx_rt_musdb",
    "diff_dmx_extra",
    "diff_dmx_rt_extra",
)

__all__ = ["NAMES", "DataConfig", "Experiment", "get"]


def get(name: str) -> Experiment:
    """The experiment of that name. Raises UserError with the known names."""
    if name not in NAMES:
        raise UserError(f"unknown config {name!r}; the known ones are {', '.join(NAMES)}")
    return importlib.import_module(f"configs.{name}").get()
