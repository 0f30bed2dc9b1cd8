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
from numpy.random import Generator

from data_pipelines.augment import AugmentConfig, augment
from data_pipelines.combined import CombinedSongs
from data_pipelines.processes import obey_parent
from data_pipelines.segments import ACTIVITY_BLOCK, Segment, Source, active_blocks
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
    """Share of the segments with silent vocals that is kept; the paper drops 95%."""
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
    for song in range(len(source)):
        if source.num_samples(song) < segment:
            raise UserError(
                f"{source.name(song)} has {source.num_samples(song)} samples, "
                f"fewer than the segment of {segment}"
            )

    load = functools.partial(_load, source, config, segment, rows)
    return grain.MapDataset.range(_LAST_EXAMPLE // config.batch_size).map(load)


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

    The mixture is exactly vocals + accompaniment after augmentation.
    """
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
    """Writes example number `index` to the two arrays: most of the time goes into moving memory."""
    segment = len(mixture)
    key = np.random.SeedSequence([config.seed, index])
    rng = np.random.Generator(np.random.Philox(key))
    song = draw_song(rng, source)
    start = draw_start(rng, source, song, segment, config.silent_kept)
    other = draw_song(rng, source)
    other_start = int(rng.integers(source.num_samples(other) - segment + 1))
    stems = source.segment(song, start, segment)
    gains = [_to_unit_level(source, song)] * 2
    # Stem remix: drawn by position, not from the batch, so that hosts need only their own rows.
    if rng.random() < config.augment.remix_probability:
        stems = Segment(stems.vocals, source.segment(other, other_start, segment).accompaniment)
        gains[1] = _to_unit_level(source, other)
    stems = augment(rng, stems, config.augment, source.sample_rate, gains)
    vocals[:] = stems.vocals
    np.add(stems.vocals, stems.accompaniment, out=mixture)


def draw_song(rng: Generator, source: Source) -> int:
    """Any song; of several data sets, first the data set by its weight."""
    if isinstance(source, CombinedSongs):
        return source.draw(rng)
    return int(rng.integers(len(source)))


def draw_start(rng: Generator, source: Source, song: int, segment: int, silent_kept: float) -> int:
    """The start of a segment; `start_weights` says where, uniform inside a block."""
    weights = start_weights(source.activity(song), source.num_samples(song), segment, silent_kept)
    cumulative = np.cumsum(weights)
    choice, offset = rng.random(2)
    block = int(np.searchsorted(cumulative, choice * cumulative[-1], side="right"))
    first = block * ACTIVITY_BLOCK
    last = min(first + ACTIVITY_BLOCK - 1, source.num_samples(song) - segment)
    return first + int(offset * (last - first + 1))


def start_weights(
    activity: Float[np.ndarray, "block"], num_samples: int, segment: int, silent_kept: float
) -> Float[np.ndarray, "start_block"]:
    """How often a segment starts in each block of a song, up to a factor.

    As drawing starts uniformly and dropping all but the share `silent_kept` of those with silent
    vocals: the number of starts in the block, times `silent_kept` where a segment from the block's
    first sample on touches no active block. Where that is so everywhere, any start is as good: how
    often a song is drawn does not depend on its vocals.
    """
    first = np.arange(0, num_samples - segment + 1, ACTIVITY_BLOCK)
    starts = np.minimum(ACTIVITY_BLOCK, num_samples - segment + 1 - first)
    active_before = np.append(0, np.cumsum(active_blocks(activity)))
    end_block = np.minimum(-(-(first + segment) // ACTIVITY_BLOCK), len(activity))
    sings = active_before[end_block] > active_before[first // ACTIVITY_BLOCK]
    return starts * np.where(sings, 1.0, silent_kept if sings.any() else 1.0)


def _to_unit_level(source: Source, song: int) -> float:
    """The gain that brings the whole song's mixture to unit RMS.

    As in separation: quiet places of a song stay quiet.
    """
    return 1.0 / (source.level(song) or 1.0)
