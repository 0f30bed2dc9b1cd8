"""Training batches by position: batch i is a pure function of (source, config, i).

So a run resumes with `dataset[step:]`, whatever the number of hosts, threads or worker processes,
and nothing about the data is stored in a checkpoint. Nothing is filtered while running: where the
voice sings is known in advance (`Source.activity`), and positions are drawn from that.
"""

import ctypes
import dataclasses
import functools
from collections.abc import Sequence

import grain
import numpy as np
from jaxtyping import Float

from data_pipelines.augment import AugmentConfig, augment
from data_pipelines.processes import obey_parent
from data_pipelines.source import Segment, Source
from data_pipelines.stretches import (
    add_layers,
    draw_anywhere,
    draw_song,
    draw_start,
    read_stretch,
    singing_song,
    stretch_of,
    to_unit_level,
    with_voice,
)
from diffsep_jax.errors import UserError

Example = dict[str, Float[np.ndarray, "time 2"]]
"""`mixture` and `vocals`, float32."""

Batch = dict[str, Float[np.ndarray, "row time 2"]]
"""Examples below each other."""

_LAST_EXAMPLE = 2**48


@dataclasses.dataclass(frozen=True, kw_only=True)
class PipelineConfig:
    """What a batch is and how it is drawn."""

    batch_size: int
    """Examples of a global batch, over all hosts."""
    seed: int = 0
    silent_kept: float = 0.05
    """Share of the segments with silent vocals that is kept; the paper drops 95%. 0 where
    `augment.silent_share` is set."""
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)
    num_threads: int = 4
    """Threads that prepare batches ahead, without workers; changes nothing in what comes."""
    num_workers: int = 0
    """Processes that prepare batches ahead, each on one core; 0: threads of this process. Changes
    nothing in what comes."""
    prefetch: int = 8
    """Batches prepared ahead, by all workers together, but at least two by each. Each worker has up
    to two more in its hands; all of theirs are in shared memory (/dev/shm)."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "num_threads", "prefetch"):
            if getattr(self, name) <= 0:
                raise UserError(f"{name}={getattr(self, name)}: expected a positive number")
        for name in ("seed", "num_workers"):
            if getattr(self, name) < 0:
                raise UserError(f"{name}={getattr(self, name)}: expected 0 or more")
        if not 0.0 <= self.silent_kept <= 1.0:
            raise UserError(f"silent_kept={self.silent_kept}: expected 0 to 1")
        if self.silent_kept and self.augment.silent_share:
            raise UserError(
                f"silent_kept={self.silent_kept} and augment.silent_share="
                f"{self.augment.silent_share} both say how often vocals are silent; set one to 0"
            )


def batches(
    source: Source,
    config: PipelineConfig,
    *,
    segment: int,
    rows: Sequence[int] | None = None,
) -> grain.MapDataset:
    """The endless data set of batches; element i holds rows of the global batch of step i.

    `segment`: samples of an example, the model's. `rows`: those that this host provides, all by
    default; a row is the same example whoever provides it. Returns `mixture` and `vocals`, float32.
    Raises `UserError` where a song is too short.
    """
    rows = range(config.batch_size) if rows is None else rows
    _check_lengths(source, config, segment)
    load = functools.partial(_load, source, config, segment, rows)
    return grain.MapDataset.range(_LAST_EXAMPLE // config.batch_size).map(load)


def _check_lengths(source: Source, config: PipelineConfig, segment: int) -> None:
    """Raise `UserError` where a song is shorter than what is read for an example at most."""
    fastest = 1.0 + config.augment.speed_percent[1] / 100.0
    needed = max(segment, stretch_of(segment, config.augment, fastest).read)
    for song in range(len(source)):
        if source.num_samples(song) < needed:
            more = f", for which up to {needed} are read" if needed > segment else ""
            raise UserError(
                f"{source.name(song)} has {source.num_samples(song)} samples, "
                f"fewer than the segment of {segment}{more}"
            )


def _load(
    source: Source, config: PipelineConfig, segment: int, rows: Sequence[int], step: int
) -> Batch:
    """A host's rows of a batch; the function of a module, for workers are sent it."""
    mixture, vocals = (np.empty((len(rows), segment, 2), np.float32) for _ in range(2))
    for place, row in enumerate(rows):
        index = step * config.batch_size + row
        _draw_into(mixture[place], vocals[place], source, config, index)
    return {"mixture": mixture, "vocals": vocals}


def iterate(
    dataset: grain.MapDataset, start_step: int, config: PipelineConfig
) -> grain.DatasetIterator:
    """Iterate over batches from a step on, prepared ahead in threads or in worker processes.

    Worker w of n makes every n-th batch from the w-th on; they come in the order of the steps.
    Close the iterator when done (`.close()`): that ends the workers.
    """
    _keep_freed_memory()
    rest = dataset[start_step:]
    if not config.num_workers:
        return iter(rest.to_iter_dataset(grain.ReadOptions(config.num_threads, config.prefetch)))
    workers = grain.MultiprocessingOptions(
        num_workers=config.num_workers,
        # Grain keeps as many once more in this process.
        per_worker_buffer_size=max(1, config.prefetch // (2 * config.num_workers)),
    )
    in_worker = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    return iter(rest.to_iter_dataset(in_worker).mp_prefetch(workers, _start_worker))


@functools.cache
def _keep_freed_memory() -> None:
    """Has glibc keep the memory of one batch for the next.

    By itself it gives large arrays back to the kernel and asks for them anew, and clearing the
    pages again took up to half of the pipeline's time. Elsewhere than on glibc nothing happens.
    """
    mmap_threshold, trim_threshold = -3, -1
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(mmap_threshold, 2**25)  # the largest that it takes
        libc.mallopt(trim_threshold, 2**29)


def _start_worker(worker: int, num_workers: int) -> None:
    """In a new worker process."""
    _keep_freed_memory()
    obey_parent()


def example(source: Source, config: PipelineConfig, segment: int, index: int) -> Example:
    """Example number `index` of the endless sequence: a pure function of its arguments.

    The mixture is exactly vocals + accompaniment after augmentation. Raises `UserError` where a
    song is too short.
    """
    _check_lengths(source, config, segment)
    mixture, vocals = (np.empty((segment, 2), np.float32) for _ in range(2))
    _draw_into(mixture, vocals, source, config, index)
    return {"mixture": mixture, "vocals": vocals}


def _draw_into(
    mixture: Float[np.ndarray, "time 2"],
    vocals: Float[np.ndarray, "time 2"],
    source: Source,
    config: PipelineConfig,
    index: int,
) -> None:
    """Writes example number `index` to the two arrays: most of the time goes into moving memory.

    An augmentation that is turned off changes nothing in what the others draw, nor in what songs
    and places are read.
    """
    segment, augmentation = len(mixture), config.augment
    key = np.random.SeedSequence([config.seed, index])
    rng = np.random.Generator(np.random.Philox(key))
    (added,) = rng.spawn(1)
    silent = added.random() < augmentation.silent_share
    speed = 1.0 + added.uniform(*augmentation.speed_percent) / 100.0
    stretch = stretch_of(segment, augmentation, speed)

    song = draw_song(rng, source)
    if augmentation.silent_share and not silent:
        song = singing_song(added.spawn(1)[0], source, song)
    start = draw_start(rng, source, song, segment, config.silent_kept)
    other, other_start = draw_anywhere(rng, source, segment)
    stems = read_stretch(source, song, with_voice(source, song, start, stretch), stretch)
    gains = [to_unit_level(source, song)] * 2
    # Stem remix: drawn by position, not from the batch, so that hosts need only their own rows.
    if rng.random() < augmentation.remix_probability:
        stems = Segment(
            stems.vocals, read_stretch(source, other, other_start, stretch).accompaniment
        )
        gains[1] = to_unit_level(source, other)
    if silent:
        stems.vocals[:] = 0.0
    add_layers(added, source, stems.accompaniment, gains[1], augmentation, stretch)
    stems = augment(rng, stems, augmentation, source.sample_rate, gains, stretch.made)
    ends = slice(stretch.margin, stretch.margin + segment)
    vocals[:] = stems.vocals[ends]
    np.add(stems.vocals[ends], stems.accompaniment[ends], out=mixture)
