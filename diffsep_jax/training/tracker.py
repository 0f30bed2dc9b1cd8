"""Trackers of experiments, such as Weights & Biases: a hook of three functions."""

import pkgutil
from typing import Any, Protocol, runtime_checkable

from diffsep_jax.errors import UserError, describe


@runtime_checkable
class Tracker(Protocol):
    """What process 0 of a run calls."""

    def start(self, config: dict[str, Any]) -> None:
        """Called before the first step, also of a run that goes on.

        `config` is the content of WORKDIR/run_config.json, and `workdir`.
        """

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Called for each record of the log: "train/loss", "validation/loss" and the like.

        A run that goes on repeats the steps after its newest checkpoint.
        """

    def finish(self) -> None:
        """Called when the run ends, also by an exception."""


def load_tracker(name: str) -> Tracker:
    """The tracker `module:attribute`: an object with the three functions, or a class of such.

    Raises UserError if it does not exist, or if importing or constructing it fails.
    """
    try:
        tracker = pkgutil.resolve_name(name)
        if isinstance(tracker, type):
            tracker = tracker()
    except Exception as error:
        raise UserError(f"tracker {name} cannot be loaded: {describe(error)}") from None
    if not isinstance(tracker, Tracker):
        raise UserError(
            f"tracker {name} is a {type(tracker).__name__}; expected functions start(config),"
            " log(step, metrics) and finish()"
        )
    return tracker
