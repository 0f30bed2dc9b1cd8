"""The embedded songs, rendered from a seed with no download, as a source with a disk cache."""

import dataclasses
import functools

import numpy as np
from jaxtyping import Float

from data_pipelines.cache import cache_folder, cached
from data_pipelines.embedded.production import produce
from data_pipelines.source import SPLITS, Segment, Split, block_rms, check_range, mixture_rms
from diffsep_jax.errors import check_at_least

VERSION = 2
"""Incremented whenever the sound of any song changes; part of every seed and cache file's name."""

MIN_SECONDS = 0.05
"""The shortest song."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddedSongs:
    """Songs composed and rendered from a seed (see `render_song`), kept in a disk cache.

    A song is rendered when it is first read.

    Attributes:
        split: the three splits share no song.
        seconds: length of each song.
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
        check_at_least(self, num_songs=1, seconds=MIN_SECONDS, sample_rate=8000, seed=0)

    def __len__(self) -> int:
        return self.num_songs

    def name(self, song: int) -> str:
        """For instance test-0003."""
        if not 0 <= song < self.num_songs:
            raise IndexError(f"song {song} of {self.num_songs}")
        return f"{self.split}-{song:04d}"

    def num_samples(self, song: int) -> int:
        return round(self.seconds * self.sample_rate)

    def segment(self, song: int, start: int, length: int) -> Segment:
        num_samples = self.num_samples(song)
        check_range(self.name(song), start, length, num_samples)
        # Mapped files keep what was read in memory; one that is read whole is not kept.
        opened = _open if length < num_samples else _open.__wrapped__
        record = opened(self, song)
        vocals, accompaniment = record["audio"][:, start : start + length] * record["scale"]
        return Segment(vocals=vocals, accompaniment=accompaniment)

    def activity(self, song: int) -> Float[np.ndarray, "block"]:
        return np.array(_open(self, song)["activity"])

    def level(self, song: int) -> float:
        return _level(self, song)


@functools.lru_cache(maxsize=256)  # each holds a file descriptor
def _open(source: EmbeddedSongs, song: int) -> np.void:
    """The record of a song, mapped from the cache; rendered first where that lacks it."""
    name = f"v{VERSION}-{source.split}-{source.seed}-{song}-{source.seconds:.12g}s"
    path = cache_folder(source.cache_dir) / f"{name}-{source.sample_rate}.npy"

    def render() -> np.ndarray:
        return render_song(
            split=source.split,
            seed=source.seed,
            song=song,
            seconds=source.seconds,
            sample_rate=source.sample_rate,
        )

    record: np.void = cached(path, render)[0]
    return record


@functools.lru_cache(maxsize=2**16)
def _level(source: EmbeddedSongs, song: int) -> float:
    return mixture_rms(source, song)


def render_song(
    *, split: Split, seed: int, song: int, seconds: float, sample_rate: int = 44100
) -> np.ndarray:
    """Composes and renders song number `song`: a pure function of its arguments and `VERSION`.

    Equal to the bit on one machine; another numpy build or processor may change the last bit of a
    sample.

    Returns:
        One record, as it is stored: `audio`, int16 [vocals and accompaniment, time, channel];
        `scale`, the factor from it to the waveform; `activity`, RMS of the vocals in each block of
        `source.ACTIVITY_BLOCK` samples.
    """
    entropy = [VERSION, SPLITS.index(split), seed, song]
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))
    stems = np.stack(produce(rng, seconds, sample_rate))
    scale = np.float32(max(float(np.abs(stems).max(initial=0.0)), 1e-6) / 32767)
    audio = np.round(stems / scale).astype(np.int16)
    activity = block_rms(audio[0] * scale)
    fields: list[tuple] = [
        ("scale", np.float32),
        ("activity", np.float32, activity.shape),
        ("audio", np.int16, audio.shape),
    ]
    return np.array([(scale, activity, audio)], fields)
