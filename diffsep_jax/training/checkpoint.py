"""Checkpoints of the training state, by Orbax V1: no other module knows about their files.

Orbax copies the state to the host, writes it in the background under a temporary name, and renames
the folder once it is complete; it also removes the checkpoints that are not to be kept. A restored
state takes the shardings of the run that restores it.
"""

import contextlib
import functools
import itertools
import json
import logging
import math
import pathlib
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from diffsep_jax.errors import UserError
from diffsep_jax.files import write_bytes, write_errors
from diffsep_jax.models.model import Params, SeparationModel
from diffsep_jax.runtime import is_primary, wait_for_all
from diffsep_jax.training.config import BestMetric
from diffsep_jax.training.run_config import read_model_config
from diffsep_jax.training.sharding import with_shardings
from diffsep_jax.training.step import TrainState

CHECKPOINTS = "checkpoints"
"""Name of the folder in a run's work folder."""

# Orbax finds what it has written by patterns that begin with the folder's path.
_PATTERNS = frozenset("[*?\\")

_METRICS = "metrics"  # Orbax's name for the folder and for the JSON file in it


class Checkpoints:
    """The checkpoints of one run, in `directory`: the latest `keep`, and the best by `best_by`.

    Several processes share the folder, and each of them calls every method.

    Args:
      directory: created if missing.
      keep: None to read only, which does not disturb a run that is saving there.
      best_by: name of a number that validations report; the lowest "loss" is the best, the highest
        of any other.
      on_saved: called when another checkpoint is complete.

    Raises:
      UserError: `directory` cannot be written, or its path is a pattern.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        keep: int | None,
        best_by: str = "loss",
        on_saved: Callable[[], None] = lambda: None,
    ) -> None:
        check_path(directory)
        self._directory = directory
        self._best_by = best_by
        self._on_saved = on_saved
        policies = ocp.training.preservation_policies
        latest = policies.PreserveAll() if keep is None else policies.LatestN(keep)
        best = policies.BestN(
            get_metric_fn=self._goodness, n=1, keep_checkpoints_without_metrics=False
        )
        try:
            self._checkpointer = ocp.training.Checkpointer(
                directory.absolute(),
                save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
                preservation_policy=policies.AnyPreservationPolicy([latest, best]),
                cleanup_tmp_directories=keep is not None,
            )
        except OSError as error:
            raise UserError(
                f"{directory}: cannot write checkpoints here ({error.strerror}); choose another"
                " --workdir"
            ) from None
        except ValueError as error:
            raise UserError(
                f"{directory}/*/{_METRICS}/{_METRICS}: one of these files is not JSON ({error}); a"
                " checkpoint can do without its metrics: delete that folder and run again"
            ) from None
        self._saving: int | None = None

    @property
    def latest_step(self) -> int | None:
        """Step of the newest checkpoint, even while it is still being written."""
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    def save(self, state: TrainState, metrics: Mapping[str, float] | None = None) -> None:
        """Saves in the background; waits only for the copy and for an earlier save to end.

        `metrics` of a validation at this step make it a candidate for the best. Raises UserError
        if this or an earlier save fails.
        """
        self._wait()
        step = int(state.step)
        with self._save_errors(step):
            self._checkpointer.save_async(
                step, state._asdict(), metrics=dict(metrics or {}) or None
            )
        self._saving = step

    def check(self) -> None:
        """Raises UserError if the save in the background has failed; does not wait."""
        if self._saving is not None and not self._checkpointer.is_saving_in_progress():
            self._wait()

    def finish(self) -> None:
        """Waits until everything is written. Raises UserError if that fails."""
        try:
            self._wait()
        finally:
            self._checkpointer.close()

    def is_scored(self, step: int) -> bool:
        """Whether the checkpoint of this step has a validation's result."""
        return any(c.step == step and c.metrics for c in self._checkpointer.checkpoints)

    def add_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Adds a validation's result to a checkpoint that was saved without one."""
        folder = self._directory / str(step)
        if is_primary():
            temporary = folder / f"{_METRICS}.tmp"
            write_bytes(temporary / _METRICS, json.dumps(metrics).encode())
            with write_errors(folder / _METRICS):
                temporary.rename(folder / _METRICS)
        wait_for_all(f"scored step {step}")
        self._checkpointer.reload()

    def restore(self, abstract_state: TrainState, warn: Callable[[str], None]) -> TrainState | None:
        """The newest readable checkpoint, in the shapes and shardings of `abstract_state`.

        Newer ones that cannot be read are renamed to STEP.unreadable with a warning: Orbax would
        keep them in place of newer, good ones. None if there is no checkpoint. Raises UserError,
        and renames nothing, if none can be read.
        """
        unreadable: dict[int, str] = {}
        for step in [c.step for c in reversed(self._checkpointer.checkpoints)]:
            state, problem = None, "another process cannot read it"
            try:
                state = self._load(step, abstract_state._asdict())
            except Exception as error:  # Orbax raises many types
                problem = _first_line(error)
            if multihost_utils.process_allgather(np.array([state is not None])).all():
                break
            unreadable[step] = problem
        else:
            if not unreadable:
                return None
            newest = max(unreadable)
            raise UserError(
                f"{self._directory}: no checkpoint here can be read (step {newest}:"
                f" {unreadable[newest]}); restore one from a copy, or use another --workdir"
            )
        for bad, problem in unreadable.items():
            path = self._directory / str(bad)
            warn(f"{path}: cannot be read ({problem}); falling back to step {step}")
            if is_primary():
                names = (path.with_name(f"{bad}.unreadable{i or ''}") for i in itertools.count())
                path.rename(next(name for name in names if not name.exists()))
        if unreadable:
            wait_for_all("unreadable checkpoints are renamed")
            self._checkpointer.reload()
        assert state is not None
        return TrainState(**state)

    def restore_ema(self, abstract_params: Any, *, best: bool = False) -> Any:
        """Only the averaged parameters, of the newest checkpoint or the best.

        Raises UserError if there is none, or it cannot be read.
        """
        found = [
            checkpoint
            for checkpoint in self._checkpointer.checkpoints
            if not best or self._best_by in (checkpoint.metrics or {})
        ]
        if not found:
            wanted = f"has a validation's {self._best_by}" if best else "was saved"
            raise UserError(f"{self._directory}: no checkpoint here {wanted}; train first")
        step = max(found, key=lambda c: self._goodness(c.metrics) if best else c.step).step
        try:
            return self._load(step, {"ema": abstract_params}, partial=True)["ema"]
        except Exception as error:
            raise UserError(
                f"{self._directory / str(step)}: cannot be read ({_first_line(error)}); train.py"
                " without --export-only falls back to the checkpoint before"
            ) from None

    def _goodness(self, metrics: Mapping[str, float]) -> float:
        """Higher is better; a checkpoint without a finite `best_by` is the worst."""
        value = metrics.get(self._best_by, math.nan)
        if not math.isfinite(value):
            return -math.inf
        return -value if self._best_by == "loss" else value

    def _wait(self) -> None:
        """Waits for the background save and checks that a restart would find it, complete."""
        if self._saving is None:
            return
        step, self._saving = self._saving, None
        with self._save_errors(step):
            self._checkpointer.wait()
            self._checkpointer.reload()
            if not any(c.step == step for c in self._checkpointer.checkpoints):
                raise FileNotFoundError("it is saved, but a listing of the folder lacks it")
            # Raises if its description is missing; describes nothing if its arrays are.
            if self._checkpointer.metadata(step).metadata is None:
                raise FileNotFoundError("it is saved, but without its arrays")
        self._on_saved()

    @contextlib.contextmanager
    def _save_errors(self, step: int) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # a full disk comes as one of many types
            with contextlib.suppress(Exception):  # Orbax still lists this step
                self._checkpointer.reload()
            latest = self.latest_step
            kept = "no step is saved yet" if latest is None else f"step {latest} is saved"
            raise UserError(
                f"{self._directory}: cannot save step {step} ({_first_line(error)}); {kept}; make"
                " room or repair the folder, then run again"
            ) from None

    def _load(self, step: int, abstract: dict[str, Any], partial: bool = False) -> dict[str, Any]:
        _silence_abandoned_reads()
        context = ocp.Context()
        context.pytree.loading.partial_load = partial
        with context:
            return self._checkpointer.load(step, abstract)


def check_path(folder: pathlib.Path) -> None:
    """Raises UserError if Orbax would take the path for a pattern and lose what it saves there."""
    if patterns := sorted(_PATTERNS.intersection(str(folder.absolute()))):
        raise UserError(
            f"{folder}: its path contains {' '.join(patterns)}, which Orbax treats as a pattern;"
            " choose another --workdir"
        )


def has_checkpoint(workdir: pathlib.Path) -> bool:
    """Whether a run in `workdir` resumes from a checkpoint."""
    return any(path.name.isdigit() for path in (workdir / CHECKPOINTS).glob("*"))


def load_trained(
    workdir: pathlib.Path, best_by: BestMetric | None = None
) -> tuple[SeparationModel, Params]:
    """A run's model and the averaged parameters of its newest checkpoint, on one device.

    With `best_by`, those of the best checkpoint by that metric. Raises UserError without one.
    """
    model = read_model_config(workdir)
    abstract = jax.eval_shape(model.init, jax.random.key(0))
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    checkpoints = Checkpoints(workdir / CHECKPOINTS, keep=None, best_by=best_by or "loss")
    try:
        wanted = with_shardings(abstract, jax.tree.map(lambda _: device, abstract))
        return model, checkpoints.restore_ema(wanted, best=best_by is not None)
    finally:
        checkpoints.finish()


def _first_line(error: BaseException) -> str:
    """The first line of the error that caused this one."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


@functools.cache
def _silence_abandoned_reads() -> None:
    """Stops Python from reporting the reads that Orbax abandons after one of them failed.

    Hundreds of them end later, each with a traceback of its own.
    """

    never_awaited = (
        "coroutine '_read_array_index_and_device_put' was never awaited",
        "coroutine 'Store._get_array_metadatas' was never awaited",
    )
    for message in never_awaited:
        warnings.filterwarnings("ignore", message=message)

    def is_abandoned(error: BaseException | None) -> bool:
        failed = ("Event loop is closed", "Encountered error while reading array index")
        return str(error).startswith(failed + never_awaited)

    report = sys.unraisablehook

    def report_others(unraisable: Any) -> None:
        if not is_abandoned(unraisable.exc_value):
            report(unraisable)

    sys.unraisablehook = report_others
    logging.getLogger("asyncio").addFilter(
        lambda record: not (record.exc_info and is_abandoned(record.exc_info[1]))
    )
