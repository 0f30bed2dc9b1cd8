"""Training batches by position: batch i is a pure function of (source, config, i).

A run therefore resumes with `dataset[step:]`, whatever the number of hosts, threads or worker
processes, and nothing about the data is stored in a checkpoint. Nothing is filtered while running:
where the voice sings is known in advance (`Source.activity`), and positions are drawn from that.
"""

import ctypes
import dataclasses
import functools
import os
import shutil
from collections.abc import Sequence

import grain
import numpy as np
from jaxtyping import Float

from data_pipelines.augment import AugmentConfig
from data_pipelines.examples import ExamplePlan, draw_plan, render, stretch_of
from data_pipelines.processes import obey_parent
from data_pipelines.source import Source
from diffsep_jax.errors import UserError, check_at_least

Batch = dict[str, Float[np.ndarray, "row time 2"]]
"""`mixture` and `vocals`, float32."""

SHARED_MEMORY = "/dev/shm"

_LAST_EXAMPLE = 2**48


@dataclasses.dataclass(frozen=True, kw_only=True)
class PipelineConfig:
    """What a batch is and how it is drawn.

    Attributes:
        batch_size: examples of a global batch, over all hosts.
        seed: seed of all draws.
        silent_kept: share of the segments with silent vocals that is kept (the paper drops 95%);
            0 where `augment.silent_share` is set.
        augment: the augmentations.
        num_threads: threads that prepare batches, without workers; no effect on the batches.
        num_workers: processes that prepare batches, each on one core; 0: threads of this process.
            No effect on the batches.
        prefetch: batches prepared ahead, by all workers together, but at least two by each. Each
            worker holds up to two more; those of workers are in shared memory (/dev/shm).
    """

    batch_size: int
    seed: int = 0
    silent_kept: float = 0.05
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)
    num_threads: int = 4
    num_workers: int = 0
    prefetch: int = 8

    def __post_init__(self) -> None:
        check_at_least(self, batch_size=1, num_threads=1, prefetch=1, seed=0, num_workers=0)
        if not 0.0 <= self.silent_kept <= 1.0:
            raise UserError(f"silent_kept is {self.silent_kept}; expected 0 to 1")
        if self.silent_kept and self.augment.silent_share:
            raise UserError(
                f"silent_kept is {self.silent_kept} and augment.silent_share is"
                f" {self.augment.silent_share}; expected one of them to be 0: both say how often"
                " vocals are silent"
            )


def batches(
    source: Source,
    config: PipelineConfig,
    *,
    segment: int,
    rows: Sequence[int] | None = None,
) -> grain.MapDataset:
    """The endless data set of batches; element i holds rows of the global batch of step i.

    Args:
        segment: samples of an example, the model's.
        rows: those that this host provides, by default all; a row is the same example whoever
            provides it.

    Raises:
        UserError: a song is too short, or shared memory too small for the workers' batches.
    """
    check_lengths(source, config, segment)
    rows = range(config.batch_size) if rows is None else rows
    _check_shared_memory(config, batch_bytes=len(rows) * segment * 16)
    load = functools.partial(_load, source, config, segment, rows)
    return grain.MapDataset.range(_LAST_EXAMPLE // config.batch_size).map(load)


def check_lengths(source: Source, config: PipelineConfig, segment: int) -> None:
    """Raises `UserError` if a song is shorter than the most that is read for an example."""
    augment = config.augment
    fastest = 1.0 + augment.speed_percent[1] / 100.0
    if augment.remix_probability:
        fastest *= max(1.0, 1.0 + augment.remix_speed_percent[1] / 100.0)
    needed = max(segment, stretch_of(segment, config.augment, fastest).read)
    for song in range(len(source)):
        if source.num_samples(song) < needed:
            more = f", for which up to {needed} are read" if needed > segment else ""
            raise UserError(
                f"{source.name(song)} has {source.num_samples(song)} samples, "
                f"fewer than the segment of {segment}{more}"
            )


def _check_shared_memory(config: PipelineConfig, batch_bytes: int) -> None:
    """Raises UserError if the workers' batches exceed it: writing past its end kills a process."""
    held = max(config.prefetch, 2 * config.num_workers) + 2 * config.num_workers
    if not config.num_workers or not os.path.isdir(SHARED_MEMORY):
        return
    free = shutil.disk_usage(SHARED_MEMORY).free
    if held * batch_bytes > free:
        raise UserError(
            f"num_workers is {config.num_workers}, whose batches take"
            f" {held * batch_bytes / 1e6:.0f} MB of {SHARED_MEMORY}; expected at most"
            f" {free / 1e6:.0f} MB: fewer workers, a lower prefetch, or more shared memory"
            " (docker run --shm-size)"
        )


def plan(source: Source, config: PipelineConfig, segment: int, index: int) -> ExamplePlan:
    """What example number `index` of the endless sequence is made of: a pure function."""
    key = np.random.SeedSequence([config.seed, index])
    rng = np.random.Generator(np.random.Philox(key))
    return draw_plan(rng, source, segment, config.augment, config.silent_kept)


def _load(
    source: Source, config: PipelineConfig, segment: int, rows: Sequence[int], step: int
) -> Batch:
    """A host's rows of a batch; the function of a module, because workers receive it by pickle."""
    mixture, vocals = (np.empty((len(rows), segment, 2), np.float32) for _ in range(2))
    for place, row in enumerate(rows):
        index = step * config.batch_size + row
        stems = render(plan(source, config, segment, index), source)
        vocals[place] = stems.vocals
        np.add(stems.vocals, stems.accompaniment, out=mixture[place])
    return {"mixture": mixture, "vocals": vocals}


def iterate(
    dataset: grain.MapDataset, start_step: int, config: PipelineConfig
) -> grain.DatasetIterator:
    """Iterates over batches from a step on, prepared ahead in threads or in worker processes.

    Worker w of n makes every n-th batch from the w-th on; they come in the order of the steps.
    Close the iterator when done (`.close()`): that ends the workers.
    """
    _keep_freed_memory()
    rest = dataset[start_step:]
    if not config.num_workers:
        return iter(rest.to_iter_dataset(grain.ReadOptions(config.num_threads, config.prefetch)))
    workers = grain.MultiprocessingOptions(
        num_workers=config.num_workers,
        # Grain buffers the same number once more in this process.
        per_worker_buffer_size=max(1, config.prefetch // (2 * config.num_workers)),
    )
    in_worker = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    return iter(rest.to_iter_dataset(in_worker).mp_prefetch(workers, _start_worker))


@functools.cache
def _keep_freed_memory() -> None:
    """Makes glibc keep the memory of one batch for the next; elsewhere does nothing.

    By default it returns large arrays to the kernel, and clearing the pages again took up to half
    of the pipeline's time.
    """
    mmap_threshold, trim_threshold = -3, -1
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(mmap_threshold, 2**25)  # the largest value it accepts
        libc.mallopt(trim_threshold, 2**29)


def _start_worker(worker: int, num_workers: int) -> None:
    """In a new worker process."""
    _keep_freed_memory()
    obey_parent()
