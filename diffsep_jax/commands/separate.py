"""`diffsep separate`: songs in, stems out."""

import contextlib
import dataclasses
import os
import re
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal, NoReturn

import tyro

from diffsep_jax import runtime
from diffsep_jax.arguments import unset
from diffsep_jax.audio.write import OutputFormat
from diffsep_jax.commands.inputs import (
    DEFAULT_NAME,
    find_inputs,
    parse_shard,
    plan_jobs,
    shard_of_job,
)
from diffsep_jax.commands.reporting import JsonLines, Lines, Style, reporting
from diffsep_jax.errors import EXIT_USER_ERROR, PreemptedError, UserError
from diffsep_jax.files import check_writable
from diffsep_jax.inference.chunks import DEFAULT_BATCH_SIZE, DEFAULT_OVERLAP
from diffsep_jax.inference.files import FileJob, FileOptions, open_input
from diffsep_jax.inference.settings import SamplerOptions, check_effect, complete

# Flax and what needs it are imported in the functions, so that help and bad options answer sooner.

Stem = Literal["vocals", "accompaniment"]


def seconds_of(text: str) -> float:
    """Seconds of a time such as "90", "1:30" or "1:01:30.5". ValueError for another text."""
    if not re.fullmatch(r"-?(\d+\.?\d*|\.\d+)|(\d+:)?[0-5]?\d:[0-5]?\d(\.\d*)?", text):
        raise ValueError(f"{text!r} is not a time; expected seconds, or a time such as 1:30")
    return sum(60**i * float(part) for i, part in enumerate(reversed(text.split(":"))))


_TIME: Any = tyro.constructors.PrimitiveConstructorSpec(
    nargs=1,
    metavar="TIME",
    instance_from_str=lambda texts: seconds_of(texts[0]),
    is_instance=lambda value: value is None or isinstance(value, float),
    str_from_instance=lambda value: [str(value)],
)


@dataclasses.dataclass(frozen=True)
class Songs:
    """Which songs to separate, and which part of them."""

    inputs: Annotated[
        tuple[Path, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="INPUT...", help_behavior_hint=""),
    ]
    """Audio files or folders of them: wav, flac, ogg, mp3, m4a and what else FFmpeg reads."""

    start: Annotated[float, _TIME] = 0.0
    """Start of the part to separate: seconds, or as 1:30."""

    duration: Annotated[float | None, _TIME, unset("up to the end")] = None
    """Length of the part to separate: seconds, or as 1:30."""

    stream: Annotated[int | None, unset("the default one")] = None
    """Which audio stream of files that have several, from 0 on."""

    allow_damaged: bool = False
    """Separate what can be read of truncated or damaged files, with a warning."""


@dataclasses.dataclass(frozen=True)
class Quality:
    """How the vocals are drawn."""

    model: str = "small"
    """Name of a model (see `diffsep models`), a model directory, or its URL: hf://user/name."""

    sampling: Annotated[SamplerOptions, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=SamplerOptions
    )

    refine: Annotated[Path | None, unset("none")] = None
    """Vocals to start from, with --start-sigma below 1 or --crossover-hz: a file for one INPUT, or
    an earlier OUT."""

    overlap: float = DEFAULT_OVERLAP
    """Least share of each chunk that is cross-faded with the next, 0 to 0.5."""

    limit_vocals: bool = True
    """Turn the vocals down where they would be over 2 dB louder than the song: in fades, pauses."""


@dataclasses.dataclass(frozen=True)
class Files:
    """What is written, and where."""

    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("separated")
    """Folder for the results; created if needed."""

    stems: Annotated[tuple[Stem, ...], tyro.conf.arg(metavar="STEM...")] = (
        "vocals",
        "accompaniment",
    )
    """Stems to write: vocals, accompaniment or both."""

    output: Annotated[OutputFormat, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=OutputFormat
    )

    sample_rate: Annotated[int | None, unset("each input's own")] = None
    """Sample rate of the results in Hz."""

    name: str = DEFAULT_NAME
    """Names of the results below OUT. {folder} is the file's folder below a folder INPUT, {file}
    its name, {track} its name without the extension."""


@dataclasses.dataclass(frozen=True)
class ManyFiles:
    """A list of songs, done by one run or shared by several."""

    list: Annotated[Path | None, unset("none")] = None
    """A text file with more inputs, one per line; # starts a comment."""

    resume: bool = False
    """Skip inputs whose results all exist."""

    shard: Annotated[str | None, unset("this job's in a SLURM array, otherwise all", "I/N")] = None
    """Every N-th input from number I on (0 to N-1), for N runs that share the inputs."""


@dataclasses.dataclass(frozen=True)
class Machine:
    """What to compute on, and what to print."""

    device: runtime.DeviceOption = "auto"
    """What to compute on; auto: a GPU or TPU where JAX finds one, otherwise the CPU."""

    batch_size: Annotated[int | None, unset("on CPUs one for each core, up to 4; elsewhere 4")] = (
        None
    )
    """Chunks separated at once: changes speed and memory, not the result."""

    dtype: runtime.DtypeOption = "auto"
    """Type in which the networks compute; auto: float32 on CPUs, bfloat16 elsewhere."""

    progress: Style = "bar"
    """bar: for people; quiet: errors and warnings only; json: a line of JSON for each event."""


def _group(title: str) -> Any:
    """Options of the help screen's box of this title."""
    return tyro.conf.arg(name=f"{title}:", help="")


@dataclasses.dataclass(frozen=True)
class Separate:
    """Separate songs into vocals and accompaniment."""

    songs: Annotated[Songs, _group("What to separate")]
    quality: Annotated[Quality, _group("Quality")] = Quality()
    files: Annotated[Files, _group("Files")] = Files()
    many: Annotated[ManyFiles, _group("Many files")] = ManyFiles()
    machine: Annotated[Machine, _group("Machine")] = Machine()


def separate(command: Separate) -> None:
    """Runs the command. Most bad options are found before the model is loaded.

    A file that turns out to be bad does not stop the others; the exit status is then 2. Ctrl-C and
    SIGTERM leave nothing half-written.
    """
    songs, quality, files = command.songs, command.quality, command.files
    many, machine = command.many, command.machine
    # Checked here, before the model is loaded, and again with the model's own preset.
    settings = complete(quality.sampling, refines=quality.refine is not None)
    check_effect(quality.sampling, settings)
    if not files.stems:
        raise UserError("no stems; expected vocals, accompaniment or both")
    if quality.refine is not None:
        settings.check_refines()
    options = FileOptions(
        output=files.output,
        sample_rate=files.sample_rate,
        start_seconds=songs.start,
        duration_seconds=songs.duration,
        stream=songs.stream,
        allow_damaged=songs.allow_damaged,
    )
    inputs = find_inputs(songs.inputs, many.list, out=files.out)
    jobs = plan_jobs(
        inputs,
        files.out,
        stems=files.stems,
        extension=files.output.format,
        name=files.name,
        refine=quality.refine,
    )
    if many.shard is None and (shard := shard_of_job(os.environ)) is not None:
        if len(jobs) < shard.count:
            raise UserError(
                f"shard is {shard}, from the job array, of {len(jobs)} input(s); expected an array"
                " of at most as many jobs, or --shard 0/1 if each job has its own inputs"
            )
        print(f"note: shard {shard}, from the job array; --shard 0/1 takes all", file=sys.stderr)
    else:
        shard = parse_shard(many.shard or "0/1")
    own = jobs[shard.index :: shard.count]
    jobs = [job for job in own if not (many.resume and _is_finished(job))]
    if len(jobs) == 1:
        open_input(jobs[0].path, options)  # raises UserError for a misspelt name
    check_writable(files.out)
    runtime.use_cores(machine.batch_size or DEFAULT_BATCH_SIZE)
    runtime.check_platform(machine.device)
    if jobs and machine.progress == "bar" and sys.stderr.isatty():
        note = (
            f"{quality.model} on {runtime.describe_devices()}; the first run compiles for a while"
        )
        print(note, file=sys.stderr, flush=True)
    _stop_at_signals()
    with reporting(machine.progress) as report:
        failed = _separate(command, jobs, options, report, len(own) - len(jobs))
    if failed:
        raise SystemExit(EXIT_USER_ERROR)


def _separate(
    command: Separate,
    jobs: Sequence[FileJob],
    options: FileOptions,
    report: Lines | JsonLines,
    finished_before: int,
) -> int:
    """Returns how many files failed. The report begins when the program is compiled."""
    if not jobs:
        report.begin(0, finished_before)
        report.end(0, 0)
        return 0
    from diffsep_jax.inference.separator import Separator

    quality, machine = command.quality, command.machine
    runtime.use_compilation_cache()
    separator = Separator.from_pretrained(
        quality.model, batch_size=machine.batch_size, dtype=machine.dtype
    )
    refines = quality.refine is not None
    settings = complete(quality.sampling, separator.default_preset, refines=refines)
    results = separator.separate_files(
        jobs,
        options,
        overlap=quality.overlap,
        limit_vocals=quality.limit_vocals,
        on_progress=report.progress,
        settings=settings,
    )
    with contextlib.closing(results):
        # The first files are read meanwhile.
        separator.warm_up(overlap=quality.overlap, refines=refines, settings=settings)
        report.begin(len(jobs), finished_before)
        failed, start = 0, time.perf_counter()
        for result in results:
            failed += result.error is not None
            now = time.perf_counter()
            report.result(result, now - start)
            start = now
    report.end(len(jobs) - failed, failed)
    return failed


def _stop_at_signals() -> None:
    """SIGTERM and Ctrl-C end the run in order; while it ends, further ones are ignored."""

    def stop(number: int, _frame: FrameType | None) -> NoReturn:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_IGN)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise PreemptedError("finished files stay; repeat the command with --resume for the rest")

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)


def _is_finished(job: FileJob) -> bool:
    """Whether all results exist; a file gets its name when it is whole."""
    return all(os.path.isfile(path) for path in job.outputs.values())
