"""Progress and results of a separation: a bar and lines for people, JSON for programs."""

import contextlib
import datetime
import json
import sys
from collections.abc import Iterator
from typing import Any, Literal

import rich.console
import rich.progress
import rich.table

from diffsep_jax.errors import printable
from diffsep_jax.inference.files import FileJob, FileResult

Style = Literal["bar", "quiet", "json"]

# The real-time factor of shorter audio says little.
_SHORTEST_SECONDS = 0.1


@contextlib.contextmanager
def reporting(style: Style) -> Iterator["Lines | JsonLines"]:
    """A report in this style. Failures and warnings go to stderr in all but JSON."""
    if style == "json":
        yield JsonLines()
        return
    columns = (
        rich.progress.TextColumn(
            "{task.description}",
            markup=False,
            table_column=rich.table.Column(no_wrap=True, overflow="ellipsis", max_width=22),
        ),
        rich.progress.BarColumn(16),
        rich.progress.TaskProgressColumn(),
        rich.progress.TextColumn("{task.fields[done]}"),
        rich.progress.TimeRemainingColumn(),
    )
    console = rich.console.Console(stderr=True)
    with rich.progress.Progress(
        *columns,
        console=console,
        transient=True,
        disable=style == "quiet" or not console.is_terminal,
        redirect_stdout=False,
        redirect_stderr=False,
    ) as progress:
        yield Lines(progress, is_quiet=style == "quiet")


class Lines:
    """A line for each file, and a bar over all of them where there is a terminal."""

    def __init__(self, progress: rich.progress.Progress, *, is_quiet: bool) -> None:
        self._bar, self._is_quiet = progress, is_quiet
        self._task = progress.add_task("compiling", total=None, done="")
        self._files, self._number = 0, 0
        self._seconds, self._audio_seconds = 0.0, 0.0

    def begin(self, files: int, finished_before: int) -> None:
        """`files` remain to be separated; `finished_before` were in an earlier run."""
        self._files = files
        self._bar.update(self._task, description="reading", total=files)
        if finished_before and not self._is_quiet:
            print(f"{finished_before} finished before, {files} to do", flush=True)

    def progress(self, job: FileJob, done: int, total: int) -> None:
        """Moves the bar to `done` of `total` chunks of the job."""
        number = f"{self._number + 1}/{self._files} " if self._files > 1 else ""
        audio = datetime.timedelta(seconds=int(self._audio_seconds))
        self._bar.update(
            self._task,
            description=number + printable(job.path.name),
            completed=self._number + done / total,  # lengths are not known in advance
            done=f"{audio} of audio, left:" if self._files > 1 else "",
        )

    def result(self, result: FileResult, seconds: float) -> None:
        """A line on the file's outcome, and warnings."""
        self._number += 1
        if result.error is None:
            self._seconds += seconds
            self._audio_seconds += result.audio_seconds
        self._bar.stop()
        if result.error is not None:
            print(f"error: {printable(result.error)}", file=sys.stderr)
        for note in result.notes:
            print(f"warning: {printable(result.job.path)}: {note}", file=sys.stderr)
        for stem, count in result.clipped.items():
            if count:
                print(
                    f"warning: {printable(result.job.outputs[stem])}: {count} samples past full"
                    f" scale were clipped (the peak is {result.peak:.2f}); wav in float32 keeps"
                    " them",
                    file=sys.stderr,
                )
        if result.error is None and not self._is_quiet:
            outputs = ", ".join(str(path) for path in result.job.outputs.values())
            line = f"{printable(result.job.path)} -> {printable(outputs)}:"
            print(line, _speed(result.audio_seconds, seconds), flush=True)
        self._bar.start()

    def end(self, done: int, failed: int) -> None:
        """The speed, and the number of failures, if there were several files."""
        if done > 1 and not self._is_quiet:
            print(f"{done} files:", _speed(self._audio_seconds, self._seconds), flush=True)
        if failed and self._files > 1:
            print(f"{failed} of {done + failed} files failed", file=sys.stderr)


def _speed(audio_seconds: float, seconds: float) -> str:
    line = f"{audio_seconds:.1f} s of audio in {seconds:.1f} s"
    if audio_seconds >= _SHORTEST_SECONDS:
        line += f", real-time factor {seconds / audio_seconds:.2f}"
    return line


class JsonLines:
    """A JSON object on a line of its own for each event, on stdout.

    Without an "end" the run was cut short; its exit status and stderr say why.
    """

    def begin(self, files: int, finished_before: int) -> None:
        """{"event": "begin", "files": ..., "finished_before": ...}"""
        _print_event("begin", files=files, finished_before=finished_before)

    def progress(self, job: FileJob, done: int, total: int) -> None:
        """{"event": "progress", "file": ..., "chunks_done": ..., "chunks": ...}"""
        _print_event("progress", file=str(job.path), chunks_done=done, chunks=total)

    def result(self, result: FileResult, seconds: float) -> None:
        """{"event": "done", ...} or {"event": "error", "file": ..., "message": ...}"""
        file = str(result.job.path)
        if result.error is not None:
            _print_event("error", file=file, message=str(result.error))
            return
        _print_event(
            "done",
            file=file,
            outputs={stem: str(path) for stem, path in result.job.outputs.items()},
            audio_seconds=result.audio_seconds,
            seconds=round(seconds, 3),
            clipped=dict(result.clipped),
            peak=result.peak,
            notes=list(result.notes),
        )

    def end(self, done: int, failed: int) -> None:
        """{"event": "end", "done": ..., "failed": ...}"""
        _print_event("end", done=done, failed=failed)


def _print_event(event: str, **values: Any) -> None:
    print(json.dumps({"event": event, **values}), flush=True)
