"""What a separation tells while it works: a bar and lines for people, JSON for programs."""

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from typing import Any, Literal, Protocol, runtime_checkable

import rich.console
import rich.progress

from diffsep_jax.inference.files import FileJob, FileResult

Style = Literal["bar", "quiet", "json"]

# Of shorter audio no real-time factor is told.
_SHORTEST_SECONDS = 0.1


@runtime_checkable
class Report(Protocol):
    """Hears of everything that happens, in order. Its seconds count from `begin`."""

    def begin(self, files: int, finished_before: int) -> None: ...
    def progress(self, job: FileJob, done: int, total: int) -> None: ...
    def result(self, result: FileResult) -> None: ...
    def end(self, done: int, failed: int) -> None: ...


@contextlib.contextmanager
def reporting(style: Style) -> Iterator[Report]:
    """A report in this style. Failures and warnings go to stderr in all but JSON."""
    if style == "json":
        yield JsonLines()
        return
    columns = (
        rich.progress.TextColumn("{task.description}", markup=False),
        rich.progress.BarColumn(),
        rich.progress.TaskProgressColumn(),
        rich.progress.TimeRemainingColumn(),
    )
    console = rich.console.Console(stderr=True)
    hidden = style == "quiet" or not console.is_terminal
    with rich.progress.Progress(
        *columns,
        console=console,
        transient=True,
        disable=hidden,
        redirect_stdout=False,
        redirect_stderr=False,
    ) as progress:
        yield Lines(progress, is_quiet=style == "quiet")


class Lines:
    """A line for each file, and a bar where there is a terminal."""

    def __init__(self, progress: rich.progress.Progress, *, is_quiet: bool) -> None:
        self._progress, self._is_quiet = progress, is_quiet
        self._task: rich.progress.TaskID | None = None
        self._files, self._number, self._clock = 0, 0, Clock()

    def begin(self, files: int, finished_before: int) -> None:
        """`files` are to do; the others of the run were `finished_before`."""
        self._files, self._clock = files, Clock()
        if finished_before and not self._is_quiet:
            print(f"{finished_before} finished before, {files} to do", flush=True)

    def progress(self, job: FileJob, done: int, total: int) -> None:
        """Moves the bar."""
        if self._task is None:
            self._task = self._progress.add_task("", total=None)
        name = job.path.name
        if self._files > 1:
            name = f"{self._number + 1}/{self._files} {name}"
        self._progress.update(self._task, description=name, completed=done, total=total)

    def result(self, result: FileResult) -> None:
        """A line on what became of the file, and warnings."""
        self._number += 1
        seconds = self._clock.lap()
        self._progress.stop()
        self._tell(result, seconds)
        self._progress.start()

    def _tell(self, result: FileResult, seconds: float) -> None:
        if result.error is not None:
            print(f"error: {result.error}", file=sys.stderr)
            return
        for line in warnings(result):
            print(f"warning: {line}", file=sys.stderr)
        if not self._is_quiet:
            outputs = ", ".join(str(path) for path in result.job.outputs.values())
            print(
                f"{result.job.path} -> {outputs}: {result.audio_seconds:.1f} s of audio in"
                f" {seconds:.1f} s{real_time_factor(seconds, result.audio_seconds)}",
                flush=True,
            )

    def end(self, done: int, failed: int) -> None:
        """The sum, where there is something to sum up."""
        if failed and self._files > 1:
            print(f"{failed} of {done + failed} files failed", file=sys.stderr)


class JsonLines:
    """An object on a line of its own for each event, on stdout.

    Without an "end" the run was cut short; its exit status and stderr say why.
    """

    def __init__(self) -> None:
        self._clock = Clock()

    def begin(self, files: int, finished_before: int) -> None:
        """{"event": "begin", "files": ..., "finished_before": ...}"""
        self._clock = Clock()
        print_event("begin", files=files, finished_before=finished_before)

    def progress(self, job: FileJob, done: int, total: int) -> None:
        """{"event": "progress", "file": ..., "chunks_done": ..., "chunks": ...}"""
        print_event("progress", file=str(job.path), chunks_done=done, chunks=total)

    def result(self, result: FileResult) -> None:
        """{"event": "done", ...} or {"event": "error", "file": ..., "message": ...}"""
        seconds = self._clock.lap()
        file = str(result.job.path)
        if result.error is not None:
            print_event("error", file=file, message=str(result.error))
            return
        print_event(
            "done",
            file=file,
            outputs={stem: str(path) for stem, path in result.job.outputs.items()},
            audio_seconds=result.audio_seconds,
            seconds=round(seconds, 3),
            clipped=dict(result.clipped),
            peak=result.peak,
        )

    def end(self, done: int, failed: int) -> None:
        """{"event": "end", "done": ..., "failed": ...}"""
        print_event("end", done=done, failed=failed)


class Clock:
    """Seconds since it was made, or since its last lap."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the last lap."""
        last, self._start = self._start, time.perf_counter()
        return self._start - last


def real_time_factor(seconds: float, audio_seconds: float) -> str:
    """Of a separation, behind a comma; nothing where the audio is too short for it to say much."""
    if audio_seconds < _SHORTEST_SECONDS:
        return ""
    return f", real-time factor {seconds / audio_seconds:.2f}"


def warnings(result: FileResult) -> list[str]:
    """What the user should know of the samples past full scale."""
    return [
        f"{result.job.outputs[stem]}: {count} samples past full scale were clipped (the peak is"
        f" {result.peak:.2f}); wav in float32 keeps them"
        for stem, count in result.clipped.items()
        if count
    ]


def print_event(event: str, **values: Any) -> None:
    """A line of JSON on stdout."""
    print(json.dumps({"event": event, **values}), flush=True)
