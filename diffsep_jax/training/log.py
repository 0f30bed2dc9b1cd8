"""A run's log: one JSON line per record, TensorBoard events, and a progress bar on a terminal."""

import contextlib
import json
import math
import os
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from diffsep_jax.errors import UserError, describe
from diffsep_jax.files import make_folder, write_bytes, write_errors
from diffsep_jax.runtime import is_primary
from diffsep_jax.training.config import TrainConfig
from diffsep_jax.training.optimizer import learning_rate_schedule
from diffsep_jax.training.tracker import Tracker
from diffsep_jax.training.validation import Validation

FILE_NAME = "log.jsonl"
TENSORBOARD = "tensorboard"

REFERENCE_PEAK = 0.5
"""Peak of the mixtures that TensorBoard plays; full scale is 1."""


class RunLog:
    """Writes WORKDIR/log.jsonl and WORKDIR/tensorboard, and shows progress.

    Process 0 alone writes and prints. A resumed run drops the records of steps that it will take
    again, so the log has each step once.

    Attributes:
        example_seconds_at_peak: time in which all of the run's chips at their peak compute one
            example; None if unknown, and then no utilisation is logged.

    Raises:
      UserError: the file cannot be read or written (also by the methods).
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        config: TrainConfig,
        *,
        start_step: int,
        batch_size: int,
        console: Console | None = None,
    ) -> None:
        self.example_seconds_at_peak: float | None = None
        self._config = config
        self._batch_size = batch_size
        self._schedule = learning_rate_schedule(config.optimizer, config.num_steps)
        self._unread: tuple[int, dict[str, jax.Array]] | None = None
        self._start_step = start_step
        self._restart_clock(start_step)
        path = workdir / FILE_NAME if is_primary() else pathlib.Path(os.devnull)
        with write_errors(path):
            if is_primary() and path.exists():
                _drop_records_after(path, start_step)
            self._file = path.open("a", encoding="utf-8")
        self._tracker: Tracker | None = None
        self._events = None
        if config.tensorboard and is_primary():
            self._events = TensorBoard(workdir / TENSORBOARD, start_step=start_step)
        self._console = console or Console(quiet=not is_primary())
        self._progress = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=20),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._task = self._progress.add_task("", total=config.num_steps, completed=start_step)
        self._status = Text("compiling")
        self._live = Live(
            Group(self._progress, self._status), console=self._console, refresh_per_second=2
        )
        if self._console.is_terminal:
            self._live.start()

    def track(self, tracker: Tracker, config: dict[str, Any]) -> None:
        """Starts a tracker, which gets each record from now on.

        Raises UserError if it does not start. If it fails later, that is printed each time, and
        the run goes on.
        """
        try:
            tracker.start(config)
        except Exception as error:
            raise UserError(
                f"the tracker does not start: {describe(error)}; repair it, or train without one"
            ) from None
        self._tracker = tracker

    def before(self, step: int) -> None:
        """Call it before step number `step`, counted from 1, is prepared."""
        if step == self._start_step + 1:  # after compiling
            self._restart_clock(self._start_step)

    def after(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Checks the metrics of the step before, and logs this step's if a record is due.

        Call it once the step is dispatched: reading the step before while this one runs keeps a
        step queued on the devices.
        """
        if self._unread is not None:
            read_metrics(*self._unread)
        self._unread = (step, metrics)
        self._progress.update(self._task, completed=step)
        if step % self._config.log_every == 0 or step == self._config.num_steps:
            values = read_metrics(step, metrics)
            self._unread = None
            values["learning_rate"] = float(self._schedule(step - 1))
            self.write(step, "train", values | self._rates(step))

    def finish(self) -> None:
        """Call it when the run ends, also by an exception."""
        self._live.stop()
        if self._tracker is not None:
            with self._failure_printed():
                self._tracker.finish()
        with contextlib.suppress(OSError):  # a full disk was reported when the record was written
            self._file.close()
        if self._events is not None:
            with contextlib.suppress(OSError):
                self._events.file.close()

    def write(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """Appends a record and prints it, that of a training step below the bar if there is one."""
        record = {"step": step, "kind": kind, "time": round(time.time(), 3), **values}
        with write_errors(pathlib.Path(self._file.name)):
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()
        if self._events is not None:
            self._events.scalars(step, kind, values)
        if self._tracker is not None:
            with self._failure_printed():
                self._tracker.log(step, {f"{kind}/{name}": value for name, value in values.items()})
        line = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        if self._console.is_terminal and kind == "train":
            self._status.plain = line
        else:
            self.say(f"step {step} {kind}: {line}")

    def write_validation(self, step: int, validation: Validation, sample_rate: int) -> None:
        """Appends a validation's record, and its segments to TensorBoard."""
        self.write(step, "validation", validation.report)
        if self._events is not None:
            self._events.segments(step, validation.segments, sample_rate)

    def say(self, text: str) -> None:
        """Prints a line above the bar."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    @contextlib.contextmanager
    def _failure_printed(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.say(f"the tracker failed, the run goes on: {describe(error)}")

    @contextlib.contextmanager
    def timing(self, name: str) -> Iterator[None]:
        """Adds the time inside to `data_wait`, `save_wait` or `validation`."""
        start = time.perf_counter()
        yield
        self._seconds[name] += time.perf_counter() - start

    def _restart_clock(self, step: int) -> None:
        self._clock_step, self._clock_start = step, time.perf_counter()
        self._seconds = {"data_wait": 0.0, "save_wait": 0.0, "validation": 0.0}

    def _rates(self, step: int) -> dict[str, float]:
        """Examples per second, waiting and utilisation since the last call, without validation.

        `model_flops_utilisation` is a share of the chips' bfloat16 peak.
        """
        seconds = time.perf_counter() - self._clock_start - self._seconds["validation"]
        per_second = (step - self._clock_step) * self._batch_size / max(seconds, 1e-9)
        rates = {
            "examples_per_second": per_second,
            "data_wait_seconds": self._seconds["data_wait"],
            "save_wait_seconds": self._seconds["save_wait"],
        }
        if self.example_seconds_at_peak is not None:
            rates["model_flops_utilisation"] = per_second * self.example_seconds_at_peak
        self._restart_clock(step)
        return rates


def read_metrics(step: int, metrics: Mapping[str, jax.Array]) -> dict[str, float]:
    """Waits for a step's metrics. Raises UserError, naming the step, if the loss is not finite."""
    values = {name: float(value) for name, value in metrics.items()}
    if not (math.isfinite(values["loss"]) and math.isfinite(values["gradient_norm"])):
        raise UserError(
            f"step {step}: the loss is {values['loss']} and the gradient norm"
            f" {values['gradient_norm']}; expected finite numbers. The state was not saved, the"
            " checkpoints are good: lower the learning rate or look at the data"
        )
    return values


def _drop_records_after(path: pathlib.Path, step: int) -> None:
    """Keeps the records up to `step`, without a last line that a crash cut off."""
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
    write_bytes(path, "".join(kept).encode())


class TensorBoard:
    """Writes an event file into `folder`.

    TensorBoard hides what earlier runs wrote there about steps after `start_step`. Events are
    written at once: tensorboardX's SummaryWriter writes in a thread, and hangs on a full disk.

    Raises:
      UserError: the file cannot be written (also by the methods).
    """

    def __init__(self, folder: pathlib.Path, *, start_step: int) -> None:
        from tensorboardX import summary
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2

        self._summary, self._event_pb2, self._folder = summary, event_pb2, folder
        make_folder(folder)
        with write_errors(folder):
            # Without the suffix, a restart within a second would overwrite the earlier file.
            self.file = EventsWriter(f"{folder}/events", f".{time.time_ns()}")
        restart = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(start_step + 1, session_log=restart)

    def scalars(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """Numbers of one step, named KIND/NAME."""
        for name, value in values.items():
            self._write(step, summary=self._summary.scalar(f"{kind}/{name}", value))

    def segments(
        self,
        step: int,
        rows: Mapping[str, Float[np.ndarray, "segment time channel=2"]],
        sample_rate: int,
    ) -> None:
        """Audio of each row of each segment.

        `rows` maps a name to audio at any scale; the first row, the mixture, is the reference. One
        gain per segment brings the reference's peak to half of full scale, so that the loudness of
        rows and of steps can be compared; an estimate beyond full scale is clipped.
        """
        for index, segment in enumerate(zip(*rows.values(), strict=True)):
            peak = float(np.abs(segment[0]).max())
            gain = np.float32(REFERENCE_PEAK / peak if peak > 0 else 1.0)
            for name, audio in zip(rows, segment, strict=True):
                heard = np.clip(np.nan_to_num(gain * audio), -1, 1)
                summary = self._summary.audio(f"segment_{index}/{name}", heard, sample_rate)
                self._write(step, summary=summary)

    def _write(self, step: int, **content: Any) -> None:
        event = self._event_pb2.Event(wall_time=time.time(), step=step, **content)
        with write_errors(self._folder):
            self.file.write_event(event)
            self.file.flush()
