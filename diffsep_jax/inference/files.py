"""Separation of audio files into files: one or many, in one pass with one compiled program."""

import contextlib
import dataclasses
import functools
import math
import os
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diffsep_jax.audio.read import SAMPLE_RATES, AudioFile
from diffsep_jax.audio.tags import NO_TAGS, read_tags
from diffsep_jax.audio.write import OutputFormat, stems_writer
from diffsep_jax.errors import UserError
from diffsep_jax.inference.settings import SamplerSettings
from diffsep_jax.inference.stream import Progress, SeparatedTrack, separate_tracks
from diffsep_jax.inference.track import STEMS, Track, measure

if TYPE_CHECKING:
    from diffsep_jax.inference.engine import ChunkSeparator


@dataclasses.dataclass(frozen=True)
class FileJob:
    """A file to separate, and where its stems go.

    Attributes:
      path: the audio file.
      outputs: a path for each stem that is wanted, of "vocals" and "accompaniment".
      refine: vocals to start from instead of the direct estimate; either all jobs of a pass have
        some, or none has any.
    """

    path: Path
    outputs: Mapping[str, Path]
    refine: Path | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileOptions:
    """Options that hold for all files of a pass.

    Attributes:
      output: format of the stems.
      sample_rate: rate of the stems in Hz; None keeps that of each file.
      start_seconds: start of the excerpt to separate.
      duration_seconds: length of the excerpt; None is up to the end.
      stream: number of the audio stream of each file, from 0 on; None is the default one.
      allow_damaged: separate what can be read of a damaged file.

    Raises:
      UserError: a value out of range.
    """

    output: OutputFormat = OutputFormat()
    sample_rate: int | None = None
    start_seconds: float = 0.0
    duration_seconds: float | None = None
    stream: int | None = None
    allow_damaged: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.start_seconds < math.inf:
            raise UserError(f"start is {self.start_seconds}; expected 0 seconds or more")
        if self.duration_seconds is not None and not 0 < self.duration_seconds < math.inf:
            raise UserError(f"duration is {self.duration_seconds}; expected more than 0 seconds")
        low, high = SAMPLE_RATES
        if self.sample_rate is not None:
            if not low <= self.sample_rate <= high:
                raise UserError(f"sample rate is {self.sample_rate}; expected {low} to {high} Hz")
            self.output.check(self.sample_rate)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileResult:
    """The outcome of a job.

    Attributes:
      job: the job.
      error: why there are no stems; None if there are.
      audio_seconds: length of what was separated.
      clipped: for each stem, the number of samples past full scale, which were clipped.
      peak: largest magnitude of all stems, before clipping; full scale is 1.
      notes: on the input, as `AudioFile.notes`.
    """

    job: FileJob
    error: UserError | None = None
    audio_seconds: float = 0.0
    clipped: Mapping[str, int] = dataclasses.field(default_factory=dict)
    peak: float = 0.0
    notes: Sequence[str] = ()


def separate_files(
    jobs: Iterable[FileJob],
    model: "ChunkSeparator",
    settings: SamplerSettings,
    options: FileOptions,
    *,
    overlap: float,
    limit_vocals: bool = False,
    on_progress: Callable[[FileJob, int, int], None] | None = None,
) -> Generator[FileResult]:
    """Separates the files in order. A bad one is reported in its result; the others continue.

    Reading begins with this call, so that the model can be compiled meanwhile.

    The stems of a file appear under their names when all of them are whole, and replace earlier
    ones; on an error or an interrupt none of the file's is written.

    `on_progress` is called with (job, chunks done, chunks in all); `overlap` and `limit_vocals` are
    those of `Separator.separate`.
    """
    jobs = list(jobs)
    openers = [functools.partial(_open, job, options) for job in jobs]
    tracks = separate_tracks(openers, model, settings, overlap=overlap, limit_vocals=limit_vocals)
    return _results(jobs, tracks, options.output, on_progress)


def _results(
    jobs: Sequence[FileJob],
    tracks: Generator[SeparatedTrack],
    output: OutputFormat,
    on_progress: Callable[[FileJob, int, int], None] | None,
) -> Generator[FileResult]:
    with contextlib.closing(tracks):
        for job, separated in zip(jobs, tracks, strict=True):
            progress = None if on_progress is None else functools.partial(on_progress, job)
            try:
                result = _write(job, separated, output, progress)
            except UserError as error:
                result = FileResult(job=job, error=error)
            yield result


def open_input(path: Path, options: FileOptions) -> AudioFile:
    """The file to separate. Raises UserError for a bad one."""
    rate = options.sample_rate or (48_000 if options.output.format == "opus" else None)
    return AudioFile(path, options.stream, rate, allow_damaged=options.allow_damaged)


def _open(job: FileJob, options: FileOptions) -> tuple[Track, Track | None]:
    """The job's track and vocals to start from. Raises UserError for bad files."""
    source = open_input(job.path, options)
    options.output.check(source.sample_rate, str(job.path))
    track = measure(
        source,
        start_seconds=options.start_seconds,
        duration_seconds=options.duration_seconds,
    )
    if job.refine is None:
        return track, None
    if not os.path.exists(job.refine):
        raise UserError(f"{job.path}: no vocals to refine; expected {job.refine}")
    return track, measure(AudioFile(job.refine))


def _write(
    job: FileJob, separated: SeparatedTrack, output: OutputFormat, on_progress: Progress | None
) -> FileResult:
    track = separated.track
    with stems_writer(
        job.outputs,
        output,
        sample_rate=track.source.sample_rate,
        num_channels=track.source.num_channels,
        num_frames=track.stop - track.start,
        tags=NO_TAGS if output.format == "wav" else read_tags(job.path),
    ) as writer:
        for blocks in separated.blocks(on_progress):
            for stem, block in zip(STEMS, blocks, strict=True):
                if stem in job.outputs:
                    writer.write(stem, block)
    assert isinstance(track.source, AudioFile)
    return FileResult(
        job=job,
        audio_seconds=track.seconds,
        clipped=writer.clipped,
        peak=writer.peak,
        notes=track.source.notes,
    )
