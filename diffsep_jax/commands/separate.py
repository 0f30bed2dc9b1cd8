"""`diffsep separate`: songs in, stems out."""

import contextlib
import dataclasses
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated, Literal, NoReturn

import tyro

from diffsep_jax import runtime
from diffsep_jax.audio.read import AudioFile
from diffsep_jax.audio.write import OutputFormat
from diffsep_jax.commands.inputs import (
    DEFAULT_NAME,
    find_inputs,
    parse_shard,
    plan_jobs,
    shard_of_job,
)
from diffsep_jax.commands.reporting import Report, Style, reporting
from diffsep_jax.errors import EXIT_USER_ERROR, PreemptedError, UserError
from diffsep_jax.files import check_writable
from diffsep_jax.inference.chunks import DEFAULT_BATCH_SIZE, DEFAULT_OVERLAP, check_overlap
from diffsep_jax.inference.files import FileJob, FileOptions
from diffsep_jax.inference.settings import SamplerOptions, complete

# Flax and what needs it are imported in the functions: help and bad options answer sooner.

Stem = Literal["vocals", "accompaniment"]


@dataclasses.dataclass(frozen=True)
class Separate:
    """Take the singing out of songs.

    Writes OUT/<name of the input>/vocals.wav and accompaniment.wav: float32, with the input's own
    sample rate, length and channels. The two add up to the input. Earlier results are replaced.
    """

    inputs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="INPUT...")]
    """Audio files or folders of them: wav, flac, ogg, mp3, m4a, mp4 and what else FFmpeg reads."""

    out: Path
    """Folder for the results; it is made if it does not exist."""

    model: str = "small"
    """Name of a model (see `diffsep models`) or a model directory."""

    sampling: Annotated[SamplerOptions, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=SamplerOptions
    )

    refine: Path | None = None
    """Vocals to work over, with --start-sigma below 1 or --crossover-hz: a file for one INPUT, or
    an earlier OUT."""

    stems: tuple[Stem, ...] = ("vocals", "accompaniment")
    """Which of the two to write."""

    output: Annotated[OutputFormat, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=OutputFormat
    )

    sample_rate: int | None = None
    """Sample rate of the results in Hz; None: each input's own."""

    name: str = DEFAULT_NAME
    """Names of the results below OUT. {folder} is where below a folder INPUT the file was found,
    {file} its whole name, {track} that without its ending."""

    start: float = 0.0
    """Second of the input at which to start."""

    duration: float | None = None
    """How many seconds to separate; None: up to the end."""

    list: Path | None = None
    """A text file with more inputs, one a line, # starts a comment."""

    resume: bool = False
    """Skip inputs whose results are all there."""

    overlap: float = DEFAULT_OVERLAP
    """Share of each chunk that is cross-faded with the next, 0 to 0.5."""

    batch_size: int = DEFAULT_BATCH_SIZE
    """Chunks separated at once: changes speed and memory, not the result."""

    progress: Style = "bar"
    """bar: for people; quiet: errors and warnings only; json: a line of JSON for each event."""

    shard: str | None = None
    """I/N: every N-th input from number I on, for N runs that share a catalogue; None: the place in
    a SLURM job array, else all."""


def separate(command: Separate) -> None:
    """`diffsep separate`. What can be told of options and headers is, before the model is loaded.

    A file that turns out to be bad does not stop the others. The exit status is then 2.
    Ctrl-C and SIGTERM leave nothing half-written.
    """
    check_overlap(command.overlap)
    settings = complete(command.sampling, refines=command.refine is not None)
    if command.batch_size < 1:
        raise UserError(f"batch size {command.batch_size}, expected at least 1")
    if not command.stems:
        raise UserError("no stems, expected vocals, accompaniment or both")
    if command.refine is not None:
        settings.check_refines()
        if not os.path.isdir(command.refine):
            AudioFile(command.refine)
    options = FileOptions(
        output=command.output,
        sample_rate=command.sample_rate,
        start_seconds=command.start,
        duration_seconds=command.duration,
    )
    inputs = find_inputs(command.inputs, command.list, out=command.out)
    jobs = plan_jobs(
        inputs,
        command.out,
        stems=command.stems,
        extension=command.output.format,
        name=command.name,
        refine=command.refine,
    )
    if command.shard is None and (shard := shard_of_job(os.environ)) is not None:
        if len(jobs) < shard.count:
            raise UserError(
                f"shard is {shard}, by this job's place in its array, of {len(jobs)} input(s);"
                " expected an array of as many jobs at most, or --shard 0/1 if each has inputs of"
                " its own"
            )
        note = f"note: shard {shard}, by this job's place in its array; --shard 0/1 takes all"
        print(note, file=sys.stderr)
    else:
        shard = parse_shard(command.shard or "0/1")
    own = jobs[shard.index :: shard.count]
    jobs = [job for job in own if not (command.resume and _is_finished(job))]
    if len(jobs) == 1:
        AudioFile(jobs[0].path)  # UserError at once
    check_writable(command.out)
    runtime.use_cores(command.batch_size)
    _stop_at_signals()
    with reporting(command.progress) as report:
        failed = _separate(command, jobs, options, report, len(own) - len(jobs))
    if failed:
        raise SystemExit(EXIT_USER_ERROR)


def _separate(
    command: Separate,
    jobs: Sequence[FileJob],
    options: FileOptions,
    report: Report,
    finished_before: int,
) -> int:
    """Separates all and returns how many failed. The report begins when the program is compiled."""
    if not jobs:
        report.begin(0, finished_before)
        report.end(0, 0)
        return 0
    from diffsep_jax.inference.separator import Separator

    runtime.use_compilation_cache()
    separator = Separator.from_pretrained(command.model, batch_size=command.batch_size)
    refines = command.refine is not None
    settings = complete(command.sampling, separator.default_preset, refines=refines)
    separator.warm_up(overlap=command.overlap, refines=refines, settings=settings)
    report.begin(len(jobs), finished_before)
    results = separator.separate_files(
        jobs, options, overlap=command.overlap, on_progress=report.progress, settings=settings
    )
    failed = 0
    with contextlib.closing(results):
        for result in results:
            failed += result.error is not None
            report.result(result)
    report.end(len(jobs) - failed, failed)
    return failed


def _stop_at_signals() -> None:
    """SIGTERM and Ctrl-C end the run in order; once it ends, another of them changes nothing."""

    def stop(number: int, _frame: FrameType | None) -> NoReturn:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_IGN)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise PreemptedError("finished files stay; the same command with --resume does the rest")

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)


def _is_finished(job: FileJob) -> bool:
    """Whether all results are there: they get their names when they are whole."""
    return all(os.path.isfile(path) for path in job.outputs.values())
