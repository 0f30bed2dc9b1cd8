"""What is in a data set, song by song: length, level, how much of it is sung."""

import dataclasses
import math

import numpy as np
import rich.progress
from jaxtyping import Float
from rich.console import Console
from rich.table import Table
from rich.text import Text

from data_pipelines.source import SILENCE, Source
from diffsep_jax.pages.document import clock, printable


@dataclasses.dataclass(frozen=True, kw_only=True)
class SongFacts:
    """One song.

    Attributes:
        name: as the source gives it, in characters that can be printed.
        seconds: length.
        level_db: RMS of the whole mixture in dBFS, -inf for silence.
        silent_share: share of the blocks of `source.ACTIVITY_BLOCK` samples with silent vocals.
    """

    name: str
    seconds: float
    level_db: float
    silent_share: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contents:
    """One split of a data set: its songs, at least one, and their sample rate in Hz."""

    spec: str
    split: str
    sample_rate: int
    songs: tuple[SongFacts, ...]

    def rows(self) -> list[tuple[str, str]]:
        """The summary: what, and how much of it."""
        shortest, longest = _extremes(self.songs, "seconds")
        quietest, loudest = _extremes(self.songs, "level_db")
        seconds = np.array([song.seconds for song in self.songs])
        silent = np.array([song.silent_share for song in self.songs])
        median_db = float(np.median([song.level_db for song in self.songs]))
        return [
            ("data set", printable(self.spec)),
            ("split", self.split),
            ("songs", f"{len(self.songs):,}"),
            ("hours", f"{seconds.sum() / 3600:,.3f}"),
            ("sample rate", f"{self.sample_rate:,} Hz"),
            ("shortest song", f"{clock(shortest.seconds)}, {shortest.name}"),
            ("longest song", f"{clock(longest.seconds)}, {longest.name}"),
            ("blocks with silent vocals", f"{np.average(silent, weights=seconds):.1%}"),
            ("median level of a mixture", dbfs(median_db)),
            ("quietest mixture", f"{dbfs(quietest.level_db)}, {quietest.name}"),
            ("loudest mixture", f"{dbfs(loudest.level_db)}, {loudest.name}"),
        ]


def measure(source: Source, *, spec: str, split: str) -> Contents:
    """Measures every song, with a progress bar on stderr.

    The first time a folder's songs are read in full; they are in the cache afterwards, for training
    too. Raises `UserError`, naming the file, for one that is damaged.
    """
    songs = []
    console = Console(stderr=True)
    for song in rich.progress.track(range(len(source)), "songs", console=console, transient=True):
        activity = source.activity(song)
        songs.append(
            SongFacts(
                name=printable(source.name(song)),
                seconds=source.num_samples(song) / source.sample_rate,
                level_db=decibels(source.level(song)),
                silent_share=silent_share(activity, float(activity.max(initial=0.0))),
            )
        )
    return Contents(spec=spec, split=split, sample_rate=source.sample_rate, songs=tuple(songs))


def silent_share(activity: Float[np.ndarray, "block"], loudest: float) -> float:
    """Share of the blocks whose RMS is at most `SILENCE` times `loudest`."""
    return float(np.mean(activity <= SILENCE * loudest))


def summary_table(contents: Contents) -> Table:
    """The summary as a table for the terminal."""
    table = Table(show_header=False)
    for name, value in contents.rows():
        table.add_row(name, Text(value))
    return table


def song_table(contents: Contents, limit: int) -> Table:
    """A line for each song, `limit` of them at most."""
    table = Table("song", caption=_left_out(len(contents.songs), limit))
    for heading in ("length", "mixture RMS", "silent vocals"):
        table.add_column(heading, justify="right")
    for song in contents.songs[:limit]:
        name, level = Text(song.name), dbfs(song.level_db)
        table.add_row(name, clock(song.seconds), level, f"{song.silent_share:.1%}")
    return table


def decibels(amplitude: float) -> float:
    """20 log10 of an amplitude, -inf for 0."""
    return 20.0 * math.log10(amplitude) if amplitude > 0.0 else -math.inf


def dbfs(level_db: float) -> str:
    """A level in words: "-12.3 dBFS", or "silence"."""
    return f"{level_db:+.1f} dBFS" if math.isfinite(level_db) else "silence"


def _extremes(songs: tuple[SongFacts, ...], field: str) -> tuple[SongFacts, SongFacts]:
    ranked = sorted(songs, key=lambda song: getattr(song, field))
    return ranked[0], ranked[-1]


def _left_out(num_songs: int, limit: int) -> str | None:
    left_out = num_songs - limit
    return f"and {left_out:,} more; --songs-listed shows them" if left_out > 0 else None
