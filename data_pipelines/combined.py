"""Several sources as one; each is drawn from in proportion to its weight."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy.random import Generator

from data_pipelines.source import Segment, Source
from diffsep_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class CombinedSongs:
    """The songs of several sources, one source after the other.

    Attributes:
        names: name of each source, which prefixes the names of its songs.
        weights: how often each source is drawn from, as parts of their sum; unset: its number of
            songs.
        ends: number of songs up to and including each source.

    Raises:
        UserError: the sources differ in sample rate, a name is given twice, or the weights are not
            one positive number for each source.
    """

    names: tuple[str, ...]
    sources: tuple[Source, ...]
    weights: tuple[float, ...] | None = None
    ends: tuple[int, ...] = dataclasses.field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_weights(self.weights, self.names)
        first, *others = zip(self.names, self.sources, strict=True)
        for name, source in others:
            if source.sample_rate != first[1].sample_rate:
                raise UserError(
                    f"{name}: sample rate is {source.sample_rate} Hz; expected"
                    f" {first[1].sample_rate} Hz, as in {first[0]}"
                )
        ends = np.cumsum([len(source) for source in self.sources])
        object.__setattr__(self, "ends", tuple(ends.tolist()))

    @property
    def sample_rate(self) -> int:
        return self.sources[0].sample_rate

    def __len__(self) -> int:
        return self.ends[-1]

    def draw(self, rng: Generator) -> int:
        """A song: its source by weight, then any of the source's songs."""
        sizes = [len(source) for source in self.sources]
        cumulative = np.cumsum(self.weights or sizes)
        chosen, inside = rng.random(2)
        number = int(np.searchsorted(cumulative, chosen * cumulative[-1], side="right"))
        return self.ends[number] - sizes[number] + int(inside * sizes[number])

    def name(self, song: int) -> str:
        """The source's name / the song's name in it."""
        number, inside = self._locate(song)
        return f"{self.names[number]}/{self.sources[number].name(inside)}"

    def num_samples(self, song: int) -> int:
        number, inside = self._locate(song)
        return self.sources[number].num_samples(inside)

    def segment(self, song: int, start: int, length: int) -> Segment:
        number, inside = self._locate(song)
        return self.sources[number].segment(inside, start, length)

    def activity(self, song: int) -> Float[np.ndarray, "block"]:
        number, inside = self._locate(song)
        return self.sources[number].activity(inside)

    def level(self, song: int) -> float:
        number, inside = self._locate(song)
        return self.sources[number].level(inside)

    def _locate(self, song: int) -> tuple[int, int]:
        """The source of a song, and its number there."""
        if not 0 <= song < len(self):
            raise IndexError(f"song {song} of {len(self)}")
        number = int(np.searchsorted(self.ends, song, side="right"))
        return number, song - self.ends[number] + len(self.sources[number])


def check_weights(weights: Sequence[float] | None, names: Sequence[str]) -> None:
    """Raises `UserError` unless the names differ, and each has a positive weight or none has."""
    if not names or len(set(names)) < len(names):
        raise UserError(f"source is {' '.join(names) or 'empty'}; expected data sets, each once")
    if weights is None:
        return
    if len(weights) != len(names) or not all(w > 0 and math.isfinite(w) for w in weights):
        raise UserError(
            f"weights is {' '.join(map(str, weights)) or 'empty'}; expected a positive number for"
            f" each of the {len(names)} data sets ({', '.join(names)})"
        )
