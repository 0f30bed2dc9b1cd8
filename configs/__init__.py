"""Experiments by name: `configs.get("small")`. Each file documents its experiment."""

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
    """The experiment of that name, in any case. Raises UserError for an unknown one."""
    if name.lower() not in NAMES:
        raise UserError(f"config is {name!r}; expected one of {', '.join(NAMES)}.")
    return importlib.import_module(f"configs.{name.lower()}").get()
