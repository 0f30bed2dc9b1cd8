"""A profile of chosen training steps, by JAX's profiler."""

import pathlib
from collections.abc import Callable
from typing import Any

import jax

from diffsep_jax.errors import UserError
from diffsep_jax.files import check_writable


def check_profile_steps(steps: tuple[int, int] | None) -> None:
    """Raises UserError unless `steps` is None or (first, last) with 1 <= first <= last."""
    if steps is not None and not 1 <= steps[0] <= steps[1]:
        raise UserError(
            f"profile_steps is {steps[0]} {steps[1]}; the first and the last step are expected,"
            " 1 <= first <= last"
        )


class StepProfiler:
    """A context that traces the steps `first` to `last` of a run into `folder`.

    Steps count from 1; the first one a process takes is the one that compiles, so choose later
    ones. A run that goes on from `first` or later traces nothing. The trace ends with the last
    step, or where the context is left: what there is of it is written. A profile that cannot be
    written is reported, and the run goes on.

    Args:
      folder: gets `plugins/profile/TIME/HOST.xplane.pb`; give processes of one host folders of
        their own.
      steps: (first, last), or None for no profile.
      report: takes one line when the profile is written.

    Raises:
      UserError: the steps are not 1 <= first <= last, or `folder` cannot be written.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        steps: tuple[int, int] | None,
        report: Callable[[str], None],
    ) -> None:
        check_profile_steps(steps)
        if steps is not None:
            check_writable(folder)
        self._folder = folder
        self._steps = steps
        self._report = report
        self._started: int | None = None
        self._current = 0
        self._annotation: jax.profiler.StepTraceAnnotation | None = None

    def __enter__(self) -> "StepProfiler":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def before_step(self, step: int) -> None:
        """To be called before step number `step` is started."""
        if self._steps is None:
            return
        if step == self._steps[0]:
            jax.profiler.start_trace(self._folder)
            self._started = step
        if self._started is not None:
            self._current = step
            self._annotation = jax.profiler.StepTraceAnnotation("train", step_num=step)
            self._annotation.__enter__()

    def after_step(self, step: int, outputs: Any) -> None:
        """To be called when `step` was started; waits for its outputs if it is the last one."""
        if self._started is None:
            return
        self._end_annotation()
        if self._steps is not None and step == self._steps[1]:
            jax.block_until_ready(outputs)
            self.close()

    def close(self) -> None:
        """Ends a trace that is going on; more than once does no harm."""
        if self._started is None:
            return
        self._end_annotation()
        steps = f"steps {self._started} to {self._current}"
        self._started = None
        try:
            jax.profiler.stop_trace()
        except RuntimeError as error:
            self._report(f"{self._folder}: the profile of {steps} is lost ({error})")
        else:
            self._report(
                f"wrote the profile of {steps}; to look at it: pip install xprof;"
                f" xprof --logdir {self._folder}"
            )

    def _end_annotation(self) -> None:
        if self._annotation is not None:
            self._annotation.__exit__(None, None, None)
            self._annotation = None
