"""Experiments by name: `configs.get("small")`. Each file documents its experiment.

An experiment of your own is a file like these, given by its path: `configs.get("mine/config.py")`.
"""

import functools
import importlib
import pathlib
import runpy
import traceback

from configs.experiment import DataConfig, Experiment
from diffsep_jax.errors import UserError, describe

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
    """The experiment of that name, in any case, or in the file of that path, which ends in .py.

    Raises UserError for an unknown name, and if the file does not give an experiment.
    """
    if name.endswith(".py"):
        return _from_file(pathlib.Path(name))
    if name.lower() not in NAMES:
        raise UserError(
            f"config is {name!r}; expected one of {', '.join(NAMES)}, or the path of a .py file"
        )
    return importlib.import_module(f"configs.{name.lower()}").get()


@functools.cache
def _from_file(path: pathlib.Path) -> Experiment:
    """What `get()` in the file returns."""
    if not path.is_file():
        raise UserError(f"config is {str(path)!r}; expected the path of a file that exists")
    try:
        experiment = runpy.run_path(str(path)).get("get", lambda: None)()
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(path)]
        place = f"line {lines[-1]}: " if lines else ""
        reason = error if isinstance(error, UserError) else describe(error)
        raise UserError(f"{path}: {place}{reason}") from None
    if not isinstance(experiment, Experiment):
        raise UserError(
            f"{path}: get() is missing or gives {type(experiment).__name__}; expected it to give"
            " an Experiment, as in configs/tiny.py"
        )
    return experiment
