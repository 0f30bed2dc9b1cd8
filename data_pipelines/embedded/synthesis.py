"""Embedded songs: composed, rendered and cached from a seed, with no download.

    python -m data_pipelines.embedded.synthesis --split train --num-songs 100 --workers 2
    python -m data_pipelines.embedded.synthesis --split test --num-songs 3 --write songs/

The first fills the cache ahead of a training, the second writes wav files to listen to.
"""

import contextlib
import dataclasses
import functools
import multiprocessing
from pathlib import Path

import numpy as np
import soundfile
import tyro
from jaxtyping import Float, Int16
from rich.progress import track

from data_pipelines.cache import cache_folder, write_npy
from data_pipelines.embedded.production import produce
from data_pipelines.source import SPLITS, Split, block_rms
from diffsep_jax.errors import UserError, one_line_errors

VERSION = 2
"""Goes up whenever the sound of any song changes; part of every seed and cache file's name."""

MIN_SECONDS = 0.05
"""The shortest song."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RenderedSong:
    """A song as it is stored: 16-bit stems with one scale, and where the voice is loud."""

    audio: Int16[np.ndarray, "2 time channel"]
    """Vocals, then accompaniment; multiply by `scale` for the waveform."""
    scale: float
    activity: Float[np.ndarray, "block"]
    """RMS of the vocals in each block of `source.ACTIVITY_BLOCK` samples."""


def render_song(
    *, split: Split, seed: int, song: int, seconds: float, sample_rate: int = 44100
) -> RenderedSong:
    """Compose and render song number `song`: a pure function of its arguments and `VERSION`.

    Equal to the bit on one machine; another numpy build or processor may change the last bit of a
    sample.
    """
    entropy = [VERSION, SPLITS.index(split), seed, song]
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))
    stems = np.stack(produce(rng, seconds, sample_rate))
    scale = np.float32(max(float(np.abs(stems).max(initial=0.0)), 1e-6) / 32767)
    audio = np.round(stems / scale).astype(np.int16)
    activity = block_rms(audio[0] * scale)
    return RenderedSong(audio=audio, scale=float(scale), activity=activity)


def cached_song(
    cache_dir: str | None,
    *,
    split: Split,
    seed: int,
    song: int,
    seconds: float,
    sample_rate: int = 44100,
    keep_open: bool = True,
) -> RenderedSong:
    """The song from the disk cache, memory-mapped; rendered into it first where it is missing.

    With `keep_open` it stays mapped for the next call, and what was read of it resident.

    Safe among threads and processes: a file appears under its name only when it is whole, and every
    writer writes the same. Raises `UserError` where the cache folder cannot be written.
    """
    folder = cache_folder(cache_dir)
    name = f"v{VERSION}-{split}-{seed}-{song}-{seconds:.12g}s-{sample_rate}.npy"
    path = folder / name
    opened = _open if keep_open else _open.__wrapped__
    # A damaged file is replaced; a folder that cannot be read fails below, in writing.
    with contextlib.suppress(OSError, ValueError):
        return opened(path)
    rendered = render_song(
        split=split, seed=seed, song=song, seconds=seconds, sample_rate=sample_rate
    )
    _store(path, rendered)
    return opened(path)


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Render embedded songs into the cache, or as wav files to listen to."""

    split: Split = "train"
    """Which songs; the three splits share none."""
    num_songs: int = 100
    """Songs 0 to num_songs - 1."""
    seconds: float = 60.0
    """Length of each song."""
    seed: int = 0
    """Seed of the whole collection."""
    cache_dir: str | None = None
    """Cache folder; by default one in the user's cache."""
    workers: int = 1
    """Processes that render side by side."""
    write: str | None = None
    """Also write DIR/<song>/vocals.wav and accompaniment.wav."""

    def __post_init__(self) -> None:
        for name in ("num_songs", "workers"):
            if getattr(self, name) <= 0:
                raise UserError(f"{name}={getattr(self, name)}: expected a positive number")
        if self.seconds < MIN_SECONDS:
            raise UserError(f"seconds={self.seconds}: expected at least {MIN_SECONDS}")
        if self.seed < 0:
            raise UserError(f"seed={self.seed}: expected 0 or more")


def _render(song: int, args: Arguments) -> None:
    rendered = cached_song(
        args.cache_dir, split=args.split, seed=args.seed, song=song, seconds=args.seconds
    )
    if args.write is not None:
        folder = Path(args.write) / f"{args.split}-{song:04d}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for index, stem in enumerate(("vocals", "accompaniment")):
                audio = rendered.audio[index] * np.float32(rendered.scale)
                soundfile.write(folder / f"{stem}.wav", audio, 44100, subtype="FLOAT")
        except (OSError, soundfile.LibsndfileError) as error:
            raise UserError(f"cannot write {folder}: {error}; give a writable folder") from error


def main(args: Arguments) -> None:
    """Render the songs with a progress bar."""
    job = functools.partial(_render, args=args)
    songs = range(args.num_songs)
    if args.workers > 1:
        # Spawned, as forking a process that has threads may hang.
        with multiprocessing.get_context("spawn").Pool(args.workers) as pool:
            for _ in track(pool.imap(job, songs), "rendering", total=args.num_songs):
                pass
    else:
        for song in track(songs, "rendering"):
            job(song)
    print(f"{args.num_songs} songs in {cache_folder(args.cache_dir)}")


if __name__ == "__main__":
    with one_line_errors():
        main(tyro.cli(Arguments, description=__doc__))
