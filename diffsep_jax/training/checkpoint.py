"""Checkpoints of the training state, by Orbax V1: all that is known of its files is here.

A save copies the state to the host and writes in the background, to a temporary name that is
renamed when whole. Restoring always goes into the shardings of the run that restores.
"""

import contextlib
import dataclasses
import functools
import json
import logging
import math
import pathlib
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from diffsep_jax.distributed import is_primary, wait_for_all
from diffsep_jax.errors import UserError
from diffsep_jax.files import write_bytes
from diffsep_jax.training.step import TrainState

DAMAGED = "damaged"

# What came of reading a checkpoint, the worst last: of several processes the worst counts.
_WHOLE, _IS_DAMAGED, _OTHER_FAULT = range(3)

_METRICS = "metrics"  # Orbax's name of the folder and of the JSON file in it


@dataclasses.dataclass(frozen=True)
class BestBy:
    """Which number of a validation tells the best checkpoint, and in which direction."""

    metric: str
    higher_is_better: bool


class Checkpoints:
    """The checkpoints of one run, in `directory`: the latest `keep`, and the best by `metric`.

    `keep=None` only reads: a run that is saving there now is not disturbed. With several processes
    the folder is shared, every process calls every method, and process 0 deletes and renames.
    """

    def __init__(
        self, directory: pathlib.Path, keep: int | None, best: BestBy | None = None
    ) -> None:
        self._directory = directory
        self._best = best
        self._unscored = _damaged_scores(directory)  # Orbax lists no folder with one
        if self._unscored and keep is None:
            raise UserError(
                f"{self._unscored[0].parents[1]}: cannot be read (its validation's result is"
                " damaged); train.py without --export-only goes on from the state or the one before"
            )
        wait_for_all("validations of checkpoints are read")
        for path in self._unscored if is_primary() else ():
            path.parent.rename(path.parent.with_name(f"{_METRICS}.{DAMAGED}"))
        wait_for_all("damaged validations of checkpoints are set aside")
        policies = ocp.training.preservation_policies
        kept: list[Any] = [policies.PreserveAll() if keep is None else policies.LatestN(keep)]
        if best is not None:
            kept.append(
                policies.BestN(
                    get_metric_fn=functools.partial(_rank, best),
                    reverse=not best.higher_is_better,  # the last after sorting are kept
                    n=1,
                    keep_checkpoints_without_metrics=False,
                )
            )
        try:
            self._checkpointer = ocp.training.Checkpointer(
                directory.absolute(),
                save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
                preservation_policy=policies.AnyPreservationPolicy(kept),
                cleanup_tmp_directories=keep is not None,
            )
        except OSError as error:
            raise UserError(
                f"{directory}: cannot write checkpoints here ({error.strerror}); choose another"
                " --workdir"
            ) from None
        self._saving: int | None = None

    @property
    def latest_step(self) -> int | None:
        """Step of the newest checkpoint, also while it is still being written."""
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    def save(self, state: TrainState, metrics: Mapping[str, float] | None = None) -> None:
        """Saves in the background; waits only for the copy and an earlier save that goes on.

        `metrics` of a validation at this step make it a candidate for the best. Raises UserError
        if this or an earlier save fails.
        """
        step = int(state.step)
        if step == self._saving or step == self.latest_step:
            return
        self._wait()
        with self._failing(step):
            self._checkpointer.save_async(
                step, state._asdict(), metrics=_finite(metrics or {}) or None
            )
        self._saving = step

    def is_scored(self, step: int) -> bool:
        """Whether the checkpoint of this step has a validation's result."""
        return any(c.step == step and c.metrics for c in self._checkpointer.checkpoints)

    def score(self, step: int, metrics: Mapping[str, float]) -> None:
        """Gives a checkpoint that was saved without one a validation's result."""
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

    def check(self) -> None:
        """Raises UserError if the save in the background has failed; waits for nothing."""
        if self._saving is not None and not self._checkpointer.is_saving_in_progress():
            self._wait()

    def restore(self, abstract_state: TrainState, warn: Callable[[str], None]) -> TrainState | None:
        """The newest whole checkpoint, in the shapes, types and shardings of `abstract_state`.

        A damaged one is passed over with a warning for the one before, and moved to `damaged/`
        beside the others' folder once that one is read. None if there is no checkpoint. Raises
        UserError if all are damaged, one is of another network, or something else than damage
        keeps it from being read.
        """
        for path in self._unscored:
            warn(f"{path}: cannot be read; this checkpoint counts as not validated")
        damaged: dict[int, str] = {}
        for step in [c.step for c in reversed(self._checkpointer.checkpoints)]:
            outcome, problem = _WHOLE, "another process met the error"
            try:
                state = self._load(step, abstract_state._asdict())
            except UserError:
                raise
            except Exception as error:  # whatever Orbax meets in a damaged file
                outcome = _IS_DAMAGED if _is_damage(error) else _OTHER_FAULT
                problem = _first_line(error)
            outcome = _worst_of_all(outcome)
            if outcome == _WHOLE:
                self._move_aside(damaged, step, warn)
                return TrainState(**state)
            if outcome == _OTHER_FAULT:
                raise UserError(
                    f"{self._directory / str(step)}: cannot be read ({problem}), but may be whole;"
                    " mend that and run again, or move it away to go on from the one before"
                )
            damaged[step] = problem
        if damaged:
            newest = max(damaged)
            raise UserError(
                f"{self._directory}: none of the {len(damaged)} checkpoints here can be read (step"
                f" {newest}: {damaged[newest]}); all is left as it was; restore one from a copy, or"
                " use another --workdir to start anew"
            )
        return None

    def _move_aside(self, damaged: Mapping[int, str], whole: int, warn: Callable) -> None:
        for step, problem in damaged.items():
            path, aside = self._directory / str(step), self._directory.parent / DAMAGED / str(step)
            warn(
                f"{path}: cannot be read ({problem}); moved to {aside}, going on from step {whole}"
            )
            if is_primary():
                try:
                    aside.parent.mkdir(exist_ok=True)
                    shutil.rmtree(aside, ignore_errors=True)
                    path.rename(aside)
                except OSError as error:
                    raise UserError(f"{path}: cannot be moved to {aside}: {error}") from None
        if damaged:
            wait_for_all("damaged checkpoints are moved")
            self._checkpointer.reload()

    def restore_ema(self, abstract_params: Any, *, best: bool = False) -> Any:
        """Only the averaged parameters, of the newest checkpoint or the best by its metric.

        Raises UserError if there is none, or it cannot be read.
        """
        step = self.best_step() if best else self.latest_step
        if step is None:
            raise UserError(f"{self._directory}: no checkpoint here; train first")
        try:
            return self._load(step, {"ema": abstract_params}, partial=True)["ema"]
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"{self._directory / str(step)}: cannot be read ({_first_line(error)});"
                " train.py without --export-only goes on from the checkpoint before"
            ) from None

    def best_step(self) -> int:
        """Step of the best checkpoint. Raises UserError if none has a validation's result."""
        best = self._best
        assert best is not None
        checkpoints = self._checkpointer.checkpoints
        scored = [c for c in checkpoints if best.metric in (c.metrics or {})]
        if not scored:
            others = sorted({name for c in checkpoints for name in c.metrics or {}})
            raise UserError(
                f"{self._directory}: no checkpoint here has a validation's {best.metric}; "
                + (f"they have {', '.join(others)}" if others else "none was validated")
            )
        sign = 1 if best.higher_is_better else -1
        return max(scored, key=lambda c: sign * _rank(best, c.metrics)).step

    def close(self) -> None:
        """Waits until everything is written. Raises UserError if that fails."""
        try:
            self._wait()
        finally:
            self._checkpointer.close()

    def _wait(self) -> None:
        if self._saving is not None:
            step, self._saving = self._saving, None
            with self._failing(step):
                self._checkpointer.wait()

    @contextlib.contextmanager
    def _failing(self, step: int) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # a full disk comes as one of many types
            with contextlib.suppress(Exception):  # Orbax's list has this step, and no older ones
                self._checkpointer.reload()
            whole = self.latest_step
            kept = "none is whole yet" if whole is None else f"step {whole} is whole"
            raise UserError(
                f"{self._directory}: cannot save step {step} ({_first_line(error)}); {kept}; make"
                " room or mend the folder and run again"
            ) from None

    def _load(self, step: int, abstract: dict[str, Any], partial: bool = False) -> dict[str, Any]:
        self._check_shapes(step, abstract)
        _silence_abandoned_reads()
        context = ocp.Context()
        context.pytree.loading.partial_load = partial
        with context:
            return self._checkpointer.load(step, abstract)

    def _check_shapes(self, step: int, abstract: dict[str, Any]) -> None:
        saved = _shapes(self._checkpointer.metadata(step).metadata)
        saved = {name: shape for name, shape in saved.items() if name.split("/")[0] in abstract}
        if not saved:
            raise ValueError("it does not tell what it holds")
        wanted = _shapes(abstract)
        for name in sorted(saved.keys() | wanted.keys()):
            if saved.get(name) != wanted.get(name):
                raise UserError(
                    f"{self._directory / str(step)}: this checkpoint is of another network: {name}"
                    f" is {saved.get(name, 'missing')} there and {wanted.get(name, 'missing')} in"
                    " this config; use the config that the run was started with or another"
                    " --workdir"
                )


def _rank(best: BestBy, metrics: Mapping[str, float]) -> float:
    """The number that is compared; a checkpoint that was validated without it is the worst."""
    return metrics.get(best.metric, -math.inf if best.higher_is_better else math.inf)


def _damaged_scores(directory: pathlib.Path) -> list[pathlib.Path]:
    """Files of validations' results that are not JSON."""
    damaged = []
    for path in sorted(directory.glob(f"*/{_METRICS}/{_METRICS}")):
        try:
            json.loads(path.read_bytes())
        except FileNotFoundError:  # deleted just now by a run that goes on
            continue
        except ValueError:
            damaged.append(path)
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    return damaged


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def _worst_of_all(outcome: int) -> int:
    """The largest of all processes; all of them come here before one goes on."""
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


@functools.cache
def _silence_abandoned_reads() -> None:
    """From now on Python is silent about the reads that Orbax abandons when one of them fails.

    They end later, by the hundred, each as an ignored exception or a message of asyncio with a
    traceback, while the failure itself is told in one line.
    """

    def is_abandoned(error: BaseException | None) -> bool:
        texts = ("Event loop is closed", "Encountered error while reading array index")
        return error is not None and str(error).startswith(texts)

    report = sys.unraisablehook

    def report_others(unraisable: Any) -> None:
        if not is_abandoned(unraisable.exc_value):
            report(unraisable)

    sys.unraisablehook = report_others
    logging.getLogger("asyncio").addFilter(
        lambda record: not (record.exc_info and is_abandoned(record.exc_info[1]))
    )


def _first_line(error: BaseException) -> str:
    """The first line of what an error began with."""
    cause = _cause(error)
    lines = str(cause).strip().splitlines()
    return f"{type(cause).__name__}: {lines[0][:300]}" if lines else type(cause).__name__


def _cause(error: BaseException) -> BaseException:
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        "/".join(str(getattr(k, "key", getattr(k, "idx", getattr(k, "name", k)))) for k in path): (
            tuple(leaf.shape)
        )
        for path, leaf in leaves
    }
