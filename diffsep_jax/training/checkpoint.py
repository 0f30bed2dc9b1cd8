"""Checkpoints of the training state, by Orbax V1: the only file that knows Orbax.

A save copies the state to the host and writes in the background, to a temporary name that is
renamed when whole. Restoring always goes into the shardings of the run that restores.
"""

import contextlib
import dataclasses
import functools
import logging
import pathlib
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from diffsep_jax.errors import UserError
from diffsep_jax.training.step import TrainState

DAMAGED = "damaged"


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
        self._reads_only = keep is None
        self._best = best
        policies = ocp.training.preservation_policies
        kept: list[Any] = [policies.PreserveAll() if keep is None else policies.LatestN(keep)]
        if best is not None:
            kept.append(
                policies.BestN(
                    get_metric_fn=lambda metrics: metrics[best.metric],
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
        self._saved = self.latest_step

    @property
    def latest_step(self) -> int | None:
        """Step of the newest complete checkpoint."""
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
        if self._best is not None and metrics is not None:
            # No SDR where all segments were silent.
            metrics = {k: v for k, v in metrics.items() if k == self._best.metric} or None
        with self._failing(step):
            self._checkpointer.save_async(step, state._asdict(), metrics=metrics)
        self._saving = step

    def check(self) -> None:
        """Raises UserError if the save in the background has failed; waits for nothing."""
        if self._saving is not None and not self._checkpointer.is_saving_in_progress():
            self._wait()

    def restore(self, abstract_state: TrainState, warn: Callable[[str], None]) -> TrainState | None:
        """The newest whole checkpoint, in the shapes, types and shardings of `abstract_state`.

        One that cannot be read is moved to `damaged/` beside the others' folder, with a warning,
        and the one before is taken. None if there is none. Raises UserError if it is of another
        network.
        """
        while (step := self.latest_step) is not None:
            try:
                state = self._load(step, abstract_state._asdict())
                problem = None
            except UserError:
                raise
            except Exception as error:  # whatever Orbax meets in a damaged file
                problem = _first_line(error)
            if not _any_process(problem is not None):
                return TrainState(**state)
            aside = self._directory.parent / DAMAGED / str(step)
            warn(
                f"{self._directory / str(step)}: cannot be read"
                f" ({problem or 'another process met the error'}); moved to {aside}, going on from"
                " the checkpoint before"
            )
            if jax.process_index() == 0:
                _move_aside(self._directory / str(step), aside)
            _any_process(False)  # all wait for the move
            self._checkpointer.reload()
        return None

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
        scored = [c for c in self._checkpointer.checkpoints if c.metrics]
        if not scored:
            raise UserError(
                f"{self._directory}: no checkpoint here has a validation's {best.metric}"
            )
        sign = 1 if best.higher_is_better else -1
        return max(scored, key=lambda c: sign * c.metrics[best.metric]).step

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
            self._saved = step

    @contextlib.contextmanager
    def _failing(self, step: int) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # a full disk comes as one of many types
            kept = "none is whole yet" if self._saved is None else f"step {self._saved} is whole"
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


def _any_process(flag: bool) -> bool:
    """Whether it is so in any process; all of them come here before one goes on."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.array(flag))))


def _move_aside(path: pathlib.Path, aside: pathlib.Path) -> None:
    aside.parent.mkdir(exist_ok=True)
    shutil.rmtree(aside, ignore_errors=True)
    path.rename(aside)


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
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        "/".join(str(getattr(k, "key", getattr(k, "idx", getattr(k, "name", k)))) for k in path): (
            tuple(leaf.shape)
        )
        for path, leaf in leaves
    }
