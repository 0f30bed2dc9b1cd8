"""A run's log: one JSON line per record, TensorBoard, and a progress bar on a terminal."""

import contextlib
import json
import os
import pathlib
import time
from collections.abc import Iterator, Mapping

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from diffsep_jax.errors import UserError
from diffsep_jax.files import write_bytes
from diffsep_jax.training.tensorboard import TensorBoard

FILE_NAME = "log.jsonl"


class RunLog:
    """Writes `workdir/log.jsonl` and to `board`, and shows progress; a context manager.

    Of several processes only one `writes`. A resumed run drops the records of steps that it will
    take again, so the log has each step once.

    Raises:
      UserError: the file cannot be read or written (also by `write`).
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        *,
        start_step: int,
        num_steps: int,
        writes: bool = True,
        board: TensorBoard | None = None,
        console: Console | None = None,
    ) -> None:
        path = workdir / FILE_NAME if writes else pathlib.Path(os.devnull)
        try:
            if writes and path.exists():
                _drop_records_after(path, start_step)
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise UserError(f"{path}: cannot be read and written: {error.strerror}") from None
        self._board = board
        self._console = console or Console(quiet=not writes)
        self._progress = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=20),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._task = self._progress.add_task("", total=num_steps, completed=start_step)
        self._status = Text("compiling")
        self._live = Live(
            Group(self._progress, self._status), console=self._console, refresh_per_second=2
        )

    def __enter__(self) -> "RunLog":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()
        with contextlib.suppress(OSError):  # a full disk was reported when the record was written
            self._file.close()

    def write(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """Appends a record and prints it, that of a training step below the bar if there is one."""
        record = {"step": step, "kind": kind, "time": round(time.time(), 3), **values}
        try:
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()
        except OSError as error:
            raise UserError(f"{self._file.name}: cannot be written: {error.strerror}") from None
        if self._board is not None:
            self._board.scalars(step, kind, values)
        line = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        if self._console.is_terminal and kind == "train":
            self._status.plain = line
        else:
            self.say(f"step {step} {kind}: {line}")

    def progress(self, step: int) -> None:
        """Moves the bar to `step`."""
        self._progress.update(self._task, completed=step)

    def say(self, text: str) -> None:
        """Prints a line above the bar."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


class Meter:
    """Examples per second, waiting and utilisation since the last reading."""

    def __init__(
        self, step: int, batch_size: int, example_seconds_at_peak: float | None = None
    ) -> None:
        """`example_seconds_at_peak`: of one example's model FLOPs on all of the run's chips."""
        self._batch_size = batch_size
        self._example_seconds_at_peak = example_seconds_at_peak
        self._restart(step)

    def _restart(self, step: int) -> None:
        self._step, self._since = step, time.perf_counter()
        self._seconds = {"data_wait": 0.0, "save_wait": 0.0, "validation": 0.0}

    @contextlib.contextmanager
    def timing(self, name: str) -> Iterator[None]:
        """Adds the time inside to data_wait, save_wait or validation."""
        start = time.perf_counter()
        yield
        self._seconds[name] += time.perf_counter() - start

    def rates(self, step: int) -> dict[str, float]:
        """The figures since the last call. Validation does not count as time.

        `model_flops_utilisation` is a share of the chips' bfloat16 peak, where that is known.
        """
        seconds = time.perf_counter() - self._since - self._seconds["validation"]
        per_second = (step - self._step) * self._batch_size / max(seconds, 1e-9)
        rates = {
            "examples_per_second": per_second,
            "data_wait_seconds": self._seconds["data_wait"],
            "save_wait_seconds": self._seconds["save_wait"],
        }
        if self._example_seconds_at_peak is not None:
            rates["model_flops_utilisation"] = per_second * self._example_seconds_at_peak
        self._restart(step)
        return rates


def _drop_records_after(path: pathlib.Path, step: int) -> None:
    """Keeps the records up to `step`, without a last line that a crash cut off."""
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
    write_bytes(path, "".join(kept).encode())
