"""Checkpoints of the training state, by Orbax V1: nothing else knows about its files.

A save copies the state to the host and writes in the background, under a temporary name until the
checkpoint is complete. A restored state takes the shardings of the run that restores it.
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
from diffsep_jax.files import write_bytes
from diffsep_jax.runtime import is_primary, wait_for_all
from diffsep_jax.training.step import TrainState

# Outcomes of reading a checkpoint, the worst last.
_READ, _DAMAGED, _OUT_OF_REACH = range(3)

_METRICS = "metrics"  # Orbax's name for the folder and for the JSON file in it


class Checkpoints:
    """The checkpoints of one run, in `directory`: the latest `keep`, and the best by `best_by`.

    `best_by` is the name of a number that validations give; "loss" is best low, all others high.
    `keep=None` only reads, without disturbing a run that is saving there. Several processes share
    the folder, and each of them calls every method.
    """

    def __init__(self, directory: pathlib.Path, keep: int | None, best_by: str = "loss") -> None:
        self._directory = directory
        self._best_by = best_by
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
        except ValueError as error:  # a validation's result that is not JSON
            bad = _bad_metrics(directory)
            raise UserError(
                f"{bad or directory}: cannot be read ({_first_line(error)}); a checkpoint can do"
                " without its validation: delete that file's folder and run again"
            ) from None
        self._saving: int | None = None

    @property
    def latest_step(self) -> int | None:
        """Step of the newest checkpoint, also while it is still being written."""
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
                step, state._asdict(), metrics=_finite(metrics or {}) or None
            )
        self._saving = step

    def check(self) -> None:
        """Raises UserError if the save in the background has failed; does not wait."""
        if self._saving is not None and not self._checkpointer.is_saving_in_progress():
            self._wait()

    def close(self) -> None:
        """Waits until everything is written. Raises UserError if that fails."""
        try:
            self._wait()
        finally:
            self._checkpointer.close()

    def is_scored(self, step: int) -> bool:
        """Whether the checkpoint of this step has a validation's result."""
        return any(c.step == step and c.metrics for c in self._checkpointer.checkpoints)

    def score(self, step: int, metrics: Mapping[str, float]) -> None:
        """Adds a validation's result to a checkpoint that was saved without one."""
        folder = self._directory / str(step)
        if is_primary():
            temporary = folder / f"{_METRICS}.tmp"
            write_bytes(temporary / _METRICS, json.dumps(_finite(metrics)).encode())
            try:
                temporary.rename(folder / _METRICS)
            except OSError as error:
                raise UserError(f"{folder}: cannot be written: {error.strerror}") from None
        wait_for_all(f"scored step {step}")
        self._checkpointer.reload()

    def restore(self, abstract_state: TrainState, warn: Callable[[str], None]) -> TrainState | None:
        """The newest readable checkpoint, in the shapes and shardings of `abstract_state`.

        Newer ones that are damaged are renamed STEP.unreadable, with a warning. None if there is no
        checkpoint. Raises UserError, and changes nothing, if all are damaged, or if something else
        than damage keeps the newest from being read: memory, permissions, the network.
        """
        unreadable: dict[int, str] = {}
        for step in [c.step for c in reversed(self._checkpointer.checkpoints)]:
            outcome, problem = _READ, "another process cannot read it"
            try:
                state = self._load(step, abstract_state._asdict())
            except Exception as error:  # Orbax raises many types
                outcome = _DAMAGED if _is_damage(error) else _OUT_OF_REACH
                problem = _first_line(error)
            outcome = _worst_of_all(outcome)
            if outcome == _READ:
                break
            if outcome == _OUT_OF_REACH:
                raise UserError(
                    f"{self._directory / str(step)}: cannot be read now ({problem}); nothing was"
                    " changed, run again when it can"
                )
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
                free = (path.with_name(f"{bad}.unreadable{i or ''}") for i in itertools.count())
                path.rename(next(name for name in free if not name.exists()))
        if unreadable:
            wait_for_all("unreadable checkpoints are renamed")
            self._checkpointer.reload()
        return TrainState(**state)

    def restore_ema(self, abstract_params: Any, *, best: bool = False) -> Any:
        """Only the averaged parameters, of the newest checkpoint or the best.

        Raises UserError if there is none, or it cannot be read.
        """
        step = self.best_step() if best else self.latest_step
        if step is None:
            raise UserError(f"{self._directory}: no checkpoint here; train first")
        try:
            return self._load(step, {"ema": abstract_params}, partial=True)["ema"]
        except Exception as error:
            raise UserError(
                f"{self._directory / str(step)}: cannot be read ({_first_line(error)}); train.py"
                " without --export-only falls back to the checkpoint before"
            ) from None

    def best_step(self) -> int:
        """Step of the best checkpoint. Raises UserError if none has a validation's result."""
        checkpoints = self._checkpointer.checkpoints
        scored = [c for c in checkpoints if self._best_by in (c.metrics or {})]
        if not scored:
            others = sorted({name for c in checkpoints for name in c.metrics or {}})
            raise UserError(
                f"{self._directory}: no checkpoint here has a validation's {self._best_by}; "
                + (f"they have {', '.join(others)}" if others else "none was validated")
            )
        return max(scored, key=lambda c: self._goodness(c.metrics)).step

    def _goodness(self, metrics: Mapping[str, float]) -> float:
        """What is to be high; a checkpoint that was validated without `best_by` is the worst."""
        if self._best_by not in metrics:
            return -math.inf
        value = metrics[self._best_by]
        return -value if self._best_by == "loss" else value

    def _wait(self) -> None:
        if self._saving is not None:
            step, self._saving = self._saving, None
            with self._save_errors(step):
                self._checkpointer.wait()

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


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def _worst_of_all(outcome: int) -> int:
    """The largest outcome of all processes, so that all go on from the same step."""
    if jax.process_count() == 1:
        return outcome
    return int(multihost_utils.process_allgather(np.array(outcome)).max())


def _is_damage(error: BaseException) -> bool:
    """Whether the checkpoint is to blame, not memory, permissions, the disk or the network."""
    cause = _cause(error)
    if isinstance(cause, FileNotFoundError | NotADirectoryError | IsADirectoryError):
        return True
    passing = ("RESOURCE_EXHAUSTED", "PERMISSION_DENIED", "UNAVAILABLE", "DEADLINE_EXCEEDED")
    return not (isinstance(cause, OSError | MemoryError) or any(p in str(cause) for p in passing))


def _bad_metrics(directory: pathlib.Path) -> pathlib.Path | None:
    """The first result of a validation that is not JSON."""
    for path in sorted(directory.glob(f"*/{_METRICS}/{_METRICS}")):
        try:
            json.loads(path.read_bytes())
        except ValueError:
            return path
    return None


@functools.cache
def _silence_abandoned_reads() -> None:
    """From now on, Python does not report the reads that Orbax abandons when one of them fails.

    They end later, hundreds of them, each in a traceback of its own.
    """

    def is_abandoned(error: BaseException | None) -> bool:
        return str(error).startswith(
            ("Event loop is closed", "Encountered error while reading array index", never_awaited)
        )

    never_awaited = "coroutine '_read_array_index_and_device_put' was never awaited"
    warnings.filterwarnings("ignore", message=never_awaited)
    report = sys.unraisablehook

    def report_others(unraisable: Any) -> None:
        if not is_abandoned(unraisable.exc_value):
            report(unraisable)

    sys.unraisablehook = report_others
    logging.getLogger("asyncio").addFilter(
        lambda record: not (record.exc_info and is_abandoned(record.exc_info[1]))
    )


def _cause(error: BaseException) -> BaseException:
    """What an error began with."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error


def _first_line(error: BaseException) -> str:
    """The first line of what an error began with."""
    cause = _cause(error)
    lines = str(cause).strip().splitlines()
    return f"{type(cause).__name__}: {lines[0][:300]}" if lines else type(cause).__name__
