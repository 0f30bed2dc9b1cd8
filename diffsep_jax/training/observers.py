"""Observers of the training loop: what they are, the watchdog and the profiler."""

import faulthandler
import pathlib
from collections.abc import Callable

import jax

from diffsep_jax.files import check_writable


class Observer:
    """Three calls that the training loop makes; each does nothing unless a subclass overrides it.

    The loop calls the observers in the order in which they were added, and finishes them in the
    reverse order.
    """

    def before(self, step: int) -> None:
        """Called before step number `step`, counted from 1, is prepared."""

    def after(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Called once the step is dispatched; the devices may still be computing `metrics`."""

    def finish(self) -> None:
        """Called when the run ends, also by an exception."""


class Watchdog(Observer):
    """Prints the stacks of all threads on stderr if no step starts for `minutes`; 0 turns it off.

    It runs from its construction on, so restoring and compiling are watched as well.
    """

    def __init__(self, minutes: float) -> None:
        self._seconds = 60 * minutes
        self._restart()

    def _restart(self) -> None:
        if self._seconds:
            faulthandler.dump_traceback_later(self._seconds, repeat=True, file=2)  # stderr

    def before(self, step: int) -> None:
        self._restart()

    def finish(self) -> None:
        faulthandler.cancel_dump_traceback_later()


class Profiler(Observer):
    """Traces the steps `first` to `last` by JAX's profiler into `folder`.

    The first step of a process compiles, so choose later ones. A run that resumes after `first`
    traces nothing. If the run ends before `last`, the trace is written as far as it goes. If the
    trace cannot be written, that is reported and the run continues.

    Args:
      folder: gets `plugins/profile/TIME/HOST.xplane.pb`.
      steps: (first, last), 1 <= first <= last.
      report: called with one line once the profile is written.

    Raises:
      UserError: `folder` cannot be written.
    """

    def __init__(
        self, folder: pathlib.Path, steps: tuple[int, int], report: Callable[[str], None]
    ) -> None:
        check_writable(folder)
        self._folder = folder
        self._first, self._last = steps
        self._report = report
        self._tracing = False

    def before(self, step: int) -> None:
        if step == self._first:
            jax.profiler.start_trace(self._folder)
            self._tracing = True

    def after(self, step: int, metrics: dict[str, jax.Array]) -> None:
        if self._tracing and step == self._last:
            jax.block_until_ready(metrics)
            self.finish()

    def finish(self) -> None:
        if not self._tracing:
            return
        self._tracing = False
        try:
            jax.profiler.stop_trace()
        except RuntimeError as error:
            self._report(f"{self._folder}: the profile cannot be written ({error})")
        else:
            self._report(
                f"wrote the profile; to view it: pip install xprof; xprof --logdir {self._folder}"
            )
