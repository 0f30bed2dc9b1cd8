"""A run's log: one JSON line per record, and a progress bar on a terminal."""

import contextlib
import json
import os
import pathlib
import time
from collections.abc import Mapping

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from diffsep_jax.errors import UserError
from diffsep_jax.files import write_bytes

FILE_NAME = "log.jsonl"


class RunLog:
    """Writes `workdir/log.jsonl` and shows progress; a context manager.

    Of several processes one `writes`; the others' logs go nowhere. A resumed run drops the lines of
    steps that it will take again, so the log has each step once.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        *,
        start_step: int,
        num_steps: int,
        writes: bool = True,
        console: Console | None = None,
    ) -> None:
        path = workdir / FILE_NAME if writes else pathlib.Path(os.devnull)
        try:
            if writes and path.exists():
                _drop_records_after(path, start_step)
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise UserError(f"{path}: cannot be read and written: {error.strerror}") from None
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
        with contextlib.suppress(OSError):  # a full disk was told of when the record was written
            self._file.close()

    def write(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """Appends a record; without a terminal, prints it too."""
        record = {"step": step, "kind": kind, "time": round(time.time(), 3), **values}
        try:
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()
        except OSError as error:
            raise UserError(f"{self._file.name}: cannot be written: {error.strerror}") from None
        if not self._console.is_terminal or kind != "train":
            self.say(f"step {step} {kind}: {_format(values)}")

    def progress(self, step: int, values: Mapping[str, float] | None = None) -> None:
        """Moves the bar to `step`; `values` replace the line under it."""
        self._progress.update(self._task, completed=step)
        if values is not None:
            self._status.plain = _format(values)

    def say(self, text: str) -> None:
        """A line above the bar."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def _format(values: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in values.items())


def _drop_records_after(path: pathlib.Path, step: int) -> None:
    """Keeps the whole records up to `step`; a line cut off by a crash goes too."""
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, TypeError, LookupError):  # no record
            continue
    write_bytes(path, "".join(kept).encode())
