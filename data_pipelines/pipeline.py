"""Training batches by position: batch i is a pure function of (source, config, i).

So a run resumes with `dataset[step:]`, whatever the number of hosts or threads, and nothing about
the data is stored in a checkpoint. Nothing is filtered while running: where the voice sings is
known in advance (`Source.activity`), and positions are drawn from that.
"""

import dataclasses
from collections.abc import Sequence

import grain
import numpy as np
from jaxtyping import Float
from numpy.random import Generator

from data_pipelines.augment import AugmentConfig, augment
from data_pipelines.segments import ACTIVITY_BLOCK, Segment, Source
from diffsep_jax.errors import UserError

Example = dict[str, Float[np.ndarray, "time 2"]]
"""`mixture` and `vocals`, float32; a batch has one more dimension in front."""

_LAST_EXAMPLE = 2**48
_SILENCE = 0.03
"""A block is silent when its RMS is under this share of the song's loudest block."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PipelineConfig:
    """What a batch is and how it is drawn."""

    batch_size: int
    """Examples of a global batch, over all hosts."""
    seed: int = 0
    anywhere_share: float = 0.05
    """Share of examples drawn anywhere in a song; the others hold a block with active vocals."""
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)
    num_threads: int = 4
    """Threads that prepare batches ahead; changes nothing in what comes."""
    prefetch: int = 8
    """Batches prepared ahead."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "num_threads", "prefetch"):
            if getattr(self, name) <= 0:
                raise UserError(f"{name}={getattr(self, name)}: expected a positive number")
        if self.seed < 0:
            raise UserError(f"seed={self.seed}: expected 0 or more")
        if not 0.0 <= self.anywhere_share <= 1.0:
            raise UserError(f"anywhere_share={self.anywhere_share}: expected 0 to 1")


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

    def load(position: int) -> Example:
        step, row = divmod(position, len(rows))
        return example(source, config, segment, step * config.batch_size + rows[row])

    size = _LAST_EXAMPLE // config.batch_size * len(rows)
    return grain.MapDataset.range(size).map(load).batch(len(rows), drop_remainder=True)


def iterate(
    dataset: grain.MapDataset, start_step: int, config: PipelineConfig
) -> grain.DatasetIterator:
    """Iterate over batches from a step on, prepared ahead in threads.

    Close the iterator when done (`.close()`).
    """
    options = grain.ReadOptions(
        num_threads=config.num_threads, prefetch_buffer_size=config.prefetch
    )
    return iter(dataset[start_step:].to_iter_dataset(options))


def example(source: Source, config: PipelineConfig, segment: int, index: int) -> Example:
    """Example number `index` of the endless sequence: a pure function of its arguments.

    The mixture is exactly vocals + accompaniment after augmentation.
    """
    key = np.random.SeedSequence([config.seed, index])
    rng = np.random.Generator(np.random.Philox(key))
    song, start = _draw_singing(rng, source, config, segment)
    other = _draw_anywhere(rng, source, segment)
    stems = _at_unit_level(source, song, start, segment)
    # Stem remix: drawn by position, not from the batch, so that hosts need only their own rows.
    if rng.random() < config.augment.remix_probability:
        stems = Segment(stems.vocals, _at_unit_level(source, *other, segment).accompaniment)
    vocals, accompaniment = augment(rng, stems, config.augment)
    return {"mixture": vocals + accompaniment, "vocals": vocals}


def _draw_anywhere(rng: Generator, source: Source, segment: int) -> tuple[int, int]:
    """A song, and a start that is uniform in it."""
    song = int(rng.integers(len(source)))
    return song, int(rng.integers(source.num_samples(song) - segment + 1))


def _draw_singing(
    rng: Generator, source: Source, config: PipelineConfig, segment: int
) -> tuple[int, int]:
    """A song, and the start of a segment that holds an active block; rarely, any start."""
    song, start = _draw_anywhere(rng, source, segment)
    anywhere, choice, offset = rng.random(3)
    activity = source.activity(song)
    active = np.flatnonzero(activity > _SILENCE * activity.max(initial=0.0))
    if anywhere >= config.anywhere_share and len(active):
        block = int(active[int(choice * len(active))])
        start = block * ACTIVITY_BLOCK - int(offset * max(segment - ACTIVITY_BLOCK, 1))
        start = min(max(start, 0), source.num_samples(song) - segment)
    return song, start


def _at_unit_level(source: Source, song: int, start: int, segment: int) -> Segment:
    """A segment, both stems by the one gain that brings the whole song's mixture to unit RMS.

    As in separation: quiet places of a song stay quiet.
    """
    gain = np.float32(1.0 / (source.level(song) or 1.0))
    vocals, accompaniment = source.segment(song, start, segment)
    return Segment(vocals * gain, accompaniment * gain)
