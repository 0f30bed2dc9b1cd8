"""Says why a run stands still: one line when no step was finished for some minutes."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Literal

import jax

from diffsep_jax.errors import UserError

Phase = Literal[
    "restoring",
    "compiling",
    "waiting for data",
    "waiting for the devices",
    "validating",
    "saving",
]

ADVICE: dict[Phase, str] = {
    "restoring": "a large checkpoint may take this long; if not, look at the work folder's disk",
    "compiling": "a large network may take this long, and is compiled only once",
    "waiting for data": "look at the data's workers and its disk",
    "waiting for the devices": "look whether a device is lost or shared with another program",
    "validating": "it may take this long; fewer or smaller validation batches take less",
    "saving": "look at the work folder's disk",
}

# A step, a checkpoint and a validation are of all processes together.
SHARED: frozenset[Phase] = frozenset(
    {"restoring", "waiting for the devices", "validating", "saving"}
)

# Packages whose lines tell more than those of the libraries that they call.
OURS = frozenset({"diffsep_jax", "data_pipelines"})

_LONGEST_LOOK_SECONDS = 5.0


class Watchdog:
    """A context in which `report` gets a line when no step was finished for `stall_minutes`.

    Another line follows after each further such period, and one when steps finish again. Lines
    come from a thread of the watchdog's own, within a tenth of the period or 5 s. It watches the
    thread that made it, which a mark costs an assignment. `stall_minutes=0` turns it off.

    Args:
      report: takes one line; called from another thread.
      stall_minutes: the period; fractions are fine.
      num_processes: of the run; with several, another process may be the one that stopped.
      clock: seconds; for tests.

    Raises:
      UserError: `stall_minutes` is negative or not a number.
    """

    def __init__(
        self,
        report: Callable[[str], None],
        stall_minutes: float,
        *,
        num_processes: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not stall_minutes >= 0:
            raise UserError(
                f"stall_minutes is {stall_minutes}; 0 (off) or a number of minutes is expected"
            )
        self._report = report
        self._period = 60.0 * stall_minutes
        self._num_processes = num_processes
        self._clock = clock
        self._watched = threading.get_ident()
        # Each of the two is replaced whole, which is atomic: no lock.
        self._last: tuple[int | None, float] = (None, clock())
        self._phase: tuple[Phase | None, float] = (None, clock())
        self._seen: tuple[int | None, float] = self._last
        self._periods_told = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "Watchdog":
        if self._period > 0:
            self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    @contextlib.contextmanager
    def phase(self, phase: Phase) -> Iterator[None]:
        """Marks what the run does inside; may be nested, the inner one counts."""
        outer = self._phase
        self._phase = (phase, self._clock())
        try:
            yield
        finally:
            self._phase = outer

    def step_done(self, step: int) -> None:
        """Marks that `step` is known to be finished; also the step that a run goes on from."""
        self._last = (step, self._clock())

    def check(self) -> None:
        """One look, which reports if there is something to say; the watchdog's thread calls it."""
        now = self._clock()
        last = self._last
        if last != self._seen:
            if self._periods_told:
                stood = _length(last[1] - self._seen[1])
                self._report(f"the run goes on: step {last[0]} is finished, after about {stood}")
            self._seen, self._periods_told = last, 0
        periods = int((now - last[1]) / self._period)
        if periods > self._periods_told:
            self._periods_told = periods
            self._report(self._stall(last, now))

    def _watch(self) -> None:
        while not self._stop.wait(min(self._period / 10, _LONGEST_LOOK_SECONDS)):
            self.check()

    def _stall(self, last: tuple[int | None, float], now: float) -> str:
        step, finished = last
        since = "the start" if step is None else f"step {step}"
        phase, entered = self._phase
        text = f"no step finished in the {_length(now - finished)} since {since}"
        if phase is not None:
            text += f": {phase} for {_length(now - entered)}"
            if phase == "waiting for the devices" and step is not None:
                text += f", step {step + 1} is running"
        place = _place(sys._current_frames().get(self._watched))
        if place:
            text += f", at {place}"
        if phase is not None:
            text += f"; {ADVICE[phase]}"
        if self._num_processes > 1 and phase in SHARED:
            text += (
                f"; it needs all {self._num_processes} processes, another of which may have"
                " stopped or be late: see what they say last"
            )
        return text


def to_stderr(line: str) -> None:
    """Prints a line, after the process's number where there are several."""
    of = f"process {jax.process_index()}: " if jax.process_count() > 1 else ""
    print(of + line, file=sys.stderr, flush=True)


def _place(frame: FrameType | None) -> str:
    """Module and line of the innermost frame, after that of the innermost frame of ours."""
    innermost, ours = "", ""
    while frame is not None and not ours:
        module = frame.f_globals.get("__name__", "?")
        line = f"{module}:{frame.f_lineno}"
        innermost = innermost or line
        if module.split(".")[0] in OURS:
            ours = line
        frame = frame.f_back
    return f"{ours} in {innermost}" if ours and ours != innermost else innermost


def _length(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} minutes"
