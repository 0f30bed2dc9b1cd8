"""Separation of audio files into files: one or many, in one pass with one compiled program."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Generator, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from diffsep_jax.audio.read import SAMPLE_RATES, AudioFile
from diffsep_jax.audio.write import OutputFormat, stems_writer
from diffsep_jax.errors import UserError
from diffsep_jax.inference.catalogue import Separating, separate_tracks
from diffsep_jax.inference.settings import SamplerSettings
from diffsep_jax.inference.track import STEMS, Track, check_excerpt, measure

if TYPE_CHECKING:
    from diffsep_jax.inference.engine import ChunkSeparator


@dataclasses.dataclass(frozen=True)
class FileJob:
    """A file, and where its stems go.

    Attributes:
      path: the audio file.
      outputs: a path for each of the stems that are wanted, of "vocals" and "accompaniment".
      refine: vocals to start from instead of the direct estimate; all jobs of a pass have some, or
        none.
    """

    path: Path
    outputs: Mapping[str, Path]
    refine: Path | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileOptions:
    """What all files of a pass have in common.

    Attributes:
      output: format of the stems.
      sample_rate: of the stems in Hz; None is that of each file.
      start_seconds: where the part to separate starts.
      duration_seconds: how long it is; None is up to the end.

    Raises:
      UserError: a value out of range.
    """

    output: OutputFormat = OutputFormat()
    sample_rate: int | None = None
    start_seconds: float = 0.0
    duration_seconds: float | None = None

    def __post_init__(self) -> None:
        check_excerpt(self.start_seconds, self.duration_seconds)
        low, high = SAMPLE_RATES
        if self.sample_rate is not None:
            if not low <= self.sample_rate <= high:
                raise UserError(f"sample rate {self.sample_rate}, expected {low} to {high} Hz")
            self.output.check(self.sample_rate)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileResult:
    """What became of a job.

    Attributes:
      job: the job.
      error: why there are no stems, if there are none.
      audio_seconds: length of the separated part.
      clipped: samples of each stem that were past full scale, and were cut off there.
      peak: the largest sample of all stems; full scale is 1.
    """

    job: FileJob
    error: UserError | None = None
    audio_seconds: float = 0.0
    clipped: Mapping[str, int] = dataclasses.field(default_factory=dict)
    peak: float = 0.0


def open_job(job: FileJob, options: FileOptions) -> tuple[Track, Track | None]:
    """Reads the job's files through. UserError if one is bad or the output format can't hold it."""
    source = AudioFile(job.path, sample_rate=options.sample_rate)
    options.output.check(source.sample_rate, str(job.path))
    track = measure(
        source,
        start_seconds=options.start_seconds,
        duration_seconds=options.duration_seconds,
    )
    if job.refine is None:
        return track, None
    if not os.path.exists(job.refine):
        raise UserError(f"{job.path}: no vocals to refine, expected {job.refine}")
    return track, measure(AudioFile(job.refine))


def separate_files(
    jobs: Iterable[FileJob],
    model: "ChunkSeparator",
    settings: SamplerSettings,
    options: FileOptions,
    *,
    overlap: float,
    on_progress: Callable[[FileJob, int, int], None] | None = None,
) -> Generator[FileResult]:
    """Separates the files one after another; a bad one is told by its result, the others go on.

    The stems of a file appear under their names when all of them are whole, and replace earlier
    ones; on an error or an interrupt none of the file's is written.

    Args:
      jobs: the files.
      model: separates the chunks.
      settings: how.
      options: the same for all.
      overlap: share of a chunk that is cross-faded with the next, in [0, 0.5].
      on_progress: called with (job, chunks done, chunks in all).
    """
    jobs = list(jobs)
    current = jobs[0] if jobs else None

    def report(done: int, total: int) -> None:
        if on_progress is not None and current is not None:
            on_progress(current, done, total)

    openers = ((lambda job=job: open_job(job, options)) for job in jobs)
    tracks = separate_tracks(openers, model, settings, overlap=overlap, on_progress=report)
    with contextlib.closing(tracks):
        for current, separating in zip(jobs, tracks, strict=True):
            try:
                yield _write(current, separating, options.output)
            except UserError as error:
                yield FileResult(job=current, error=error)


def _write(job: FileJob, separating: Separating, output: OutputFormat) -> FileResult:
    track = separating.track
    with stems_writer(
        job.outputs,
        output,
        sample_rate=track.source.sample_rate,
        num_channels=track.source.num_channels,
        num_frames=track.end - track.start,
    ) as writer:
        for blocks in separating.blocks():
            for stem, block in zip(STEMS, blocks, strict=True):
                if stem in job.outputs:
                    writer.write(stem, block)
    return FileResult(
        job=job,
        audio_seconds=track.seconds,
        clipped=writer.clipped,
        peak=writer.peak,
    )
