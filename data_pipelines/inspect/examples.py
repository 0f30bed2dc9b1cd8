"""Training examples drawn at random places of a training, with the songs they are made from."""

import dataclasses
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from data_pipelines.inspect.contents import printable, silent_share
from data_pipelines.pipeline import PipelineConfig, example
from data_pipelines.source import Segment, Source, block_rms
from diffsep_jax.errors import UserError

Audio = Float[np.ndarray, "time 2"]

NUM_EXAMPLES = 1_000_000
"""So many of a training's first examples are drawn from."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DrawnExample:
    """A row of a batch, as the model gets it.

    Attributes:
        number: in the order of training, whatever the size of a batch.
        places: (song's name, start in seconds) of each stretch that was read for it, in that order.
        audio: mixture, vocals and accompaniment (mixture - vocals), float32.
        sample_rate: of them, in Hz.
    """

    number: int
    places: tuple[tuple[str, float], ...]
    audio: dict[str, Audio]
    sample_rate: int

    @property
    def active_share(self) -> float:
        """Share of blocks whose vocals have an RMS above `SILENCE`; a song's mixture has 1."""
        return 1.0 - silent_share(block_rms(self.audio["vocals"]), 1.0)


def draw(
    source: Source,
    config: PipelineConfig,
    *,
    segment: int,
    num_examples: int,
    seed: int,
) -> Iterator[DrawnExample]:
    """Draws different examples of a training, in their order, one by one.

    `segment`: samples of an example. Raises `UserError` where a song is too short for it.
    """
    for song in range(len(source)):
        if source.num_samples(song) < segment:
            raise UserError(
                f"{source.name(song)} has {source.num_samples(song)} samples, fewer than the"
                f" segment of {segment}; remove the song or give a shorter --segment"
            )
    chosen = np.random.default_rng(seed).choice(NUM_EXAMPLES, num_examples, replace=False)
    for number in sorted(int(i) for i in chosen):
        watched = _WatchedSource(source)
        pair = example(watched, config, segment, number)
        yield DrawnExample(
            number=number,
            places=tuple(watched.places),
            audio={**pair, "accompaniment": pair["mixture"] - pair["vocals"]},
            sample_rate=source.sample_rate,
        )


class _WatchedSource:
    """A source that notes which songs are read, and where."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.places: list[tuple[str, float]] = []

    @property
    def sample_rate(self) -> int:
        return self._source.sample_rate

    def __len__(self) -> int:
        return len(self._source)

    def name(self, song: int) -> str:
        return self._source.name(song)

    def num_samples(self, song: int) -> int:
        return self._source.num_samples(song)

    def segment(self, song: int, start: int, length: int) -> Segment:
        self.places.append((printable(self.name(song)), start / self.sample_rate))
        return self._source.segment(song, start, length)

    def activity(self, song: int) -> Float[np.ndarray, "block"]:
        return self._source.activity(song)

    def level(self, song: int) -> float:
        return self._source.level(song)
