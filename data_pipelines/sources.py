"""Sources of songs: embedded ones rendered from a seed, data sets of records, folders of files.

A source gives random access to any segment of any song; what is drawn from it, and how it is
augmented, is the pipeline's business.
"""

import dataclasses
import functools
import math
from pathlib import Path

import numpy as np
from jaxtyping import Float

from data_pipelines.embedded import synthesis
from data_pipelines.folders import FolderSongs
from data_pipelines.record_format import find_data_set
from data_pipelines.source import ACTIVITY_BLOCK, Segment, Source, Split, check_range, mixture_rms
from diffsep_jax.errors import UserError

__all__ = [
    "ACTIVITY_BLOCK",
    "EmbeddedSongs",
    "FolderSongs",
    "Segment",
    "Source",
    "available_split",
    "open_source",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddedSongs:
    """Songs composed and rendered from a seed (see `synthesis`), kept in a disk cache.

    A song is rendered when it is first asked for. Raises `UserError` for bad values and where the
    cache cannot be written.
    """

    split: Split = "train"
    """The three splits share no song."""
    num_songs: int
    seconds: float = 60.0
    """Length of each song."""
    seed: int = 0
    cache_dir: str | None = None
    """By default a folder in the user's cache."""
    sample_rate: int = 44100

    def __post_init__(self) -> None:
        for name, least in (
            ("num_songs", 1),
            ("seconds", synthesis.MIN_SECONDS),
            ("sample_rate", 8000),
            ("seed", 0),
        ):
            if not least <= getattr(self, name) < math.inf:  # which NaN is not either
                raise UserError(f"{name}={getattr(self, name)}: expected at least {least}")

    def __len__(self) -> int:
        return self.num_songs

    def name(self, song: int) -> str:
        """For instance test-0003."""
        if not 0 <= song < self.num_songs:
            raise IndexError(f"song {song} of {self.num_songs}")
        return f"{self.split}-{song:04d}"

    def num_samples(self, song: int) -> int:
        """Length of a song, the same for all."""
        return round(self.seconds * self.sample_rate)

    def segment(self, song: int, start: int, length: int) -> Segment:
        """Samples start to start + length. Raises `ValueError` beyond the song's ends."""
        num_samples = self.num_samples(song)
        check_range(self.name(song), start, length, num_samples)
        # Who reads a whole song, as an evaluation does, has no use for it in memory after that.
        stored = self._song(song, keep_open=length < num_samples)
        vocals, accompaniment = stored.audio[:, start : start + length] * np.float32(stored.scale)
        return Segment(vocals=vocals, accompaniment=accompaniment)

    def activity(self, song: int) -> Float[np.ndarray, "block"]:
        """RMS of the vocals in each block of `ACTIVITY_BLOCK` samples."""
        return self._song(song).activity

    def level(self, song: int) -> float:
        """RMS of the whole song's mixture."""
        return _level(self, song)

    def _song(self, song: int, *, keep_open: bool = True) -> synthesis.RenderedSong:
        return synthesis.cached_song(
            self.cache_dir,
            split=self.split,
            seed=self.seed,
            song=song,
            seconds=self.seconds,
            sample_rate=self.sample_rate,
            keep_open=keep_open,
        )


@functools.lru_cache(maxsize=2**16)
def _level(source: EmbeddedSongs, song: int) -> float:
    return mixture_rms(source, song)


def open_source(
    spec: str,
    *,
    split: Split = "train",
    num_songs: int = 100,
    seconds: float = 60.0,
    seed: int = 0,
    cache_dir: str | None = None,
    sample_rate: int = 44100,
) -> Source:
    """The source that a command's `--data` names: "embedded", or the path of a folder.

    A folder that `python -m data_pipelines.build` wrote has its own splits; one that it lacks is
    taken from train. In any other folder there is one folder for each song. If it has a sub-folder
    named like the split, the songs are in there; MUSDB18-HQ has train and test, and what it lacks
    is taken from train. Otherwise its songs are the same for every split. `num_songs`, `seconds`
    and `seed` are for embedded songs. Raises `UserError` for bad input.
    """
    if spec == "embedded":
        return EmbeddedSongs(
            split=split,
            num_songs=num_songs,
            seconds=seconds,
            seed=seed,
            cache_dir=cache_dir,
            sample_rate=sample_rate,
        )
    found = available_split(spec, split)
    if (data_set := find_data_set(Path(spec))) is not None:
        from data_pipelines.records import RecordSongs  # imports TFDS

        return RecordSongs(path=str(data_set), split=found or "train", sample_rate=sample_rate)
    folder = Path(spec) / (found or "")
    return FolderSongs(path=str(folder), cache_dir=cache_dir, sample_rate=sample_rate)


def available_split(spec: str, wanted: Split) -> Split | None:
    """What `open_source` takes for a split: `wanted` or, where that is missing, train.

    None for a folder without splits. Raises `UserError` for a damaged data set.
    """
    if spec == "embedded":
        return wanted
    if (data_set := find_data_set(Path(spec))) is not None:
        from data_pipelines.records import split_names  # imports TFDS

        return wanted if wanted in split_names(data_set) else "train"
    either: tuple[Split, Split] = (wanted, "train")
    return next((split for split in either if (Path(spec) / split).is_dir()), None)
