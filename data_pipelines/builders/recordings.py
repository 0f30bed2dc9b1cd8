"""What a layout finds in a folder: recordings, each with the files of its stems."""

import dataclasses
from pathlib import Path

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True, order=True)
class StemFile:
    """An audio file, or one of the audio streams of a container."""

    path: Path
    stream: int = 0

    def __str__(self) -> str:
        return f"{self.path} (stream {self.stream})" if self.stream else str(self.path)


@dataclasses.dataclass(frozen=True)
class Recording:
    """A song: what its vocals are summed from, and its accompaniment.

    Attributes:
        name: unique in the data set.
        split: one of `SPLITS`.
        vocals: summed; none: an instrumental, whose vocals are silent.
        others: summed to the accompaniment; none: it is mixture - vocals.
        mixture: as it was released, if there is such a file.
    """

    name: str
    split: str
    vocals: tuple[StemFile, ...]
    others: tuple[StemFile, ...]
    mixture: StemFile | None

    @property
    def files(self) -> tuple[StemFile, ...]:
        """All of them."""
        return (*self.vocals, *self.others, *((self.mixture,) if self.mixture else ()))


@dataclasses.dataclass(frozen=True)
class Findings:
    """The recordings of a folder, and why what looked like one is none.

    Attributes:
        recordings: sorted by name within each split.
        left_out: path below the folder -> reason.
    """

    recordings: tuple[Recording, ...]
    left_out: dict[str, str]
