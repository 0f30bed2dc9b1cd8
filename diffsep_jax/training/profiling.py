"""A profile of chosen training steps, by JAX's profiler."""

import pathlib
from collections.abc import Callable
from typing import Any

import jax

from diffsep_jax.files import check_writable


class StepProfiler:
    """A context that traces the steps `first` to `last` of a run into `folder`.

    Steps count from 1; the first one a process takes is the one that compiles, so choose later
    ones. A run that resumes from `first` or later traces nothing. The trace ends with the last
    step, or where the context is left, and is written as far as it goes. If it cannot be written,
    that is reported, and the run goes on.

    Args:
      folder: gets `plugins/profile/TIME/HOST.xplane.pb`; give processes of one host folders of
        their own.
      steps: (first, last), 1 <= first <= last; None for no profile.
      report: takes one line when the profile is written.

    Raises:
      UserError: `folder` cannot be written.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        steps: tuple[int, int] | None,
        report: Callable[[str], None],
    ) -> None:
        if steps is not None:
            check_writable(folder)
        self._folder = folder
        self._steps = steps
        self._report = report
        self._tracing = False

    def __enter__(self) -> "StepProfiler":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def before_step(self, step: int) -> None:
        """To be called before step number `step` is started."""
        if self._steps is not None and step == self._steps[0]:
            jax.profiler.start_trace(self._folder)
            self._tracing = True

    def after_step(self, step: int, outputs: Any) -> None:
        """To be called when `step` was started; waits for its outputs if it is the last one."""
        if self._tracing and self._steps is not None and step == self._steps[1]:
            jax.block_until_ready(outputs)
            self._stop()

    def _stop(self) -> None:
        if not self._tracing:
            return
        self._tracing = False
        try:
            jax.profiler.stop_trace()
        except RuntimeError as error:
            self._report(f"{self._folder}: the profile cannot be written ({error})")
        else:
            self._report(
                "wrote the profile; to look at it: pip install xprof;"
                f" xprof --logdir {self._folder}"
            )
