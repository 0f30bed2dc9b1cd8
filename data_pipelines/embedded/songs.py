"""The embedded songs as a source, with their disk cache."""

import contextlib
import dataclasses
import functools
import math
from pathlib import Path

import numpy as np
from jaxtyping import Float

from data_pipelines.cache import cache_folder, write_npy
from data_pipelines.embedded.synthesis import MIN_SECONDS, VERSION, RenderedSong, render_song
from data_pipelines.source import Segment, Split, check_range, mixture_rms
from diffsep_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddedSongs:
    """Songs composed and rendered from a seed (see `synthesis`), kept in a disk cache.

    A song is rendered when it is first read.

    Attributes:
        split: the three splits share no song.
        num_songs: number of songs.
        seconds: length of each song.
        seed: seed of all songs.
        cache_dir: None: a folder in the user's cache.
        sample_rate: Hz.

    Raises:
        UserError: a bad value, or on reading if the cache cannot be written.
    """

    split: Split = "train"
    num_songs: int
    seconds: float = 60.0
    seed: int = 0
    cache_dir: str | None = None
    sample_rate: int = 44100

    def __post_init__(self) -> None:
        smallest = {"num_songs": 1, "seconds": MIN_SECONDS, "sample_rate": 8000, "seed": 0}
        for name, least in smallest.items():
            if not least <= getattr(self, name) < math.inf:  # NaN is not either
                raise UserError(f"{name} is {getattr(self, name)}; expected at least {least}")

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
        # A song that is read whole, as by an evaluation, need not stay in memory.
        stored = self._song(song, keep_open=length < num_samples)
        vocals, accompaniment = stored.audio[:, start : start + length] * np.float32(stored.scale)
        return Segment(vocals=vocals, accompaniment=accompaniment)

    def activity(self, song: int) -> Float[np.ndarray, "block"]:
        """RMS of the vocals in each block of `ACTIVITY_BLOCK` samples."""
        return self._song(song).activity

    def level(self, song: int) -> float:
        """RMS of the whole song's mixture."""
        return _level(self, song)

    def _song(self, song: int, *, keep_open: bool = True) -> RenderedSong:
        """The song from the cache; rendered into it first where it is missing or damaged.

        With `keep_open` its file stays mapped for the next call, and what was read of it in memory.
        Safe among threads and processes: a file appears under its name only when it is whole, and
        every writer writes the same.
        """
        name = f"v{VERSION}-{self.split}-{self.seed}-{song}-{self.seconds:.12g}s"
        path = cache_folder(self.cache_dir) / f"{name}-{self.sample_rate}.npy"
        opened = _open if keep_open else _open.__wrapped__
        # A damaged file is replaced; a folder that cannot be read fails below, in writing.
        with contextlib.suppress(OSError, ValueError):
            return opened(path)
        rendered = render_song(
            split=self.split,
            seed=self.seed,
            song=song,
            seconds=self.seconds,
            sample_rate=self.sample_rate,
        )
        _store(path, rendered)
        return opened(path)


@functools.lru_cache(maxsize=2**16)
def _level(source: EmbeddedSongs, song: int) -> float:
    return mixture_rms(source, song)


def _store(path: Path, rendered: RenderedSong) -> None:
    """One structured record: scale, activity, audio; whole or not at all."""
    record = np.zeros(
        1,
        dtype=[
            ("scale", np.float32),
            ("activity", np.float32, rendered.activity.shape),
            ("audio", np.int16, rendered.audio.shape),
        ],
    )
    record["scale"], record["activity"] = rendered.scale, rendered.activity
    record["audio"] = rendered.audio
    write_npy(path, record)


@functools.lru_cache(maxsize=256)  # each holds a file descriptor
def _open(path: Path) -> RenderedSong:
    record = np.load(path, mmap_mode="r")[0]
    return RenderedSong(
        audio=record["audio"], scale=float(record["scale"]), activity=np.array(record["activity"])
    )
