"""The songs of a data set as tables: length, level, how much of them is sung."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import rich.progress
from rich.console import Console
from rich.table import Table
from rich.text import Text

from data_pipelines.source import Source, active_blocks
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


def measure(source: Source) -> list[SongFacts]:
    """Measures every song, with a progress bar on stderr.

    The songs of a folder are read in full the first time, and later found in the cache, by training
    too. Raises `UserError`, naming the file, for one that is damaged.
    """
    console = Console(stderr=True)
    return [
        SongFacts(
            name=printable(source.name(song)),
            seconds=source.num_samples(song) / source.sample_rate,
            level_db=decibels(source.level(song)),
            silent_share=float(1.0 - active_blocks(source.activity(song)).mean()),
        )
        for song in rich.progress.track(
            range(len(source)), "songs", console=console, transient=True
        )
    ]


def summary(songs: Sequence[SongFacts], *, spec: str, sample_rate: int) -> dict[str, str]:
    """The data set in numbers: a heading and a text for each."""
    by_length = sorted(songs, key=lambda song: song.seconds)
    by_level = sorted(songs, key=lambda song: song.level_db)
    seconds = np.array([song.seconds for song in songs])
    silent = np.array([song.silent_share for song in songs])
    return {
        "data set": printable(spec),
        "songs": f"{len(songs):,}",
        "hours": f"{seconds.sum() / 3600:,.3f}",
        "sample rate": f"{sample_rate:,} Hz",
        "shortest song": f"{clock(by_length[0].seconds)}, {by_length[0].name}",
        "longest song": f"{clock(by_length[-1].seconds)}, {by_length[-1].name}",
        "blocks with silent vocals": f"{np.average(silent, weights=seconds):.1%}",
        "median level of a mixture": dbfs(float(np.median([song.level_db for song in songs]))),
        "quietest mixture": f"{dbfs(by_level[0].level_db)}, {by_level[0].name}",
        "loudest mixture": f"{dbfs(by_level[-1].level_db)}, {by_level[-1].name}",
    }


def summary_table(rows: dict[str, str]) -> Table:
    """The summary for the terminal."""
    table = Table(show_header=False)
    for name, value in rows.items():
        table.add_row(name, Text(value))
    return table


def song_table(songs: Sequence[SongFacts], limit: int) -> Table:
    """A line for each song, `limit` of them at most, for the terminal."""
    more = len(songs) - limit
    caption = f"and {more:,} more; --songs-listed shows them" if more > 0 else None
    table = Table("song", caption=caption)
    for heading in ("length", "mixture RMS", "silent vocals"):
        table.add_column(heading, justify="right")
    for song in songs[:limit]:
        name, level = Text(song.name), dbfs(song.level_db)
        table.add_row(name, clock(song.seconds), level, f"{song.silent_share:.1%}")
    return table


def decibels(amplitude: float) -> float:
    """20 log10 of an amplitude, -inf for 0."""
    return 20.0 * math.log10(amplitude) if amplitude > 0.0 else -math.inf


def dbfs(level_db: float) -> str:
    """A level in words: "-12.3 dBFS", or "silence"."""
    return f"{level_db:+.1f} dBFS" if math.isfinite(level_db) else "silence"
