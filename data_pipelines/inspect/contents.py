"""A data set in numbers: how much there is, how loud it is, how much of it is sung."""

import math

import numpy as np
import rich.progress
from rich.console import Console

from data_pipelines.source import Source, active_blocks
from diffsep_jax.errors import printable
from diffsep_jax.pages import clock


def measure(source: Source, spec: str) -> dict[str, str]:
    """Measures every song, with a progress bar on stderr; returns a text for each heading.

    The songs of a folder are read in full the first time, and later found in the cache, by training
    too. A block of vocals is silent as `source.active_blocks` says.

    Raises:
        UserError: naming the file, for one that is damaged.
    """
    numbers = rich.progress.track(
        range(len(source)), "songs", console=Console(stderr=True), transient=True
    )
    rows = [
        (
            source.num_samples(song) / source.sample_rate,
            decibels(source.level(song)),
            1.0 - active_blocks(source.activity(song), source.level(song)).mean(),
        )
        for song in numbers
    ]
    seconds, level_db, silent = np.array(rows).T

    def song(number: np.intp) -> str:
        return printable(source.name(int(number)))

    shortest, longest = np.argmin(seconds), np.argmax(seconds)
    quietest, loudest = np.argmin(level_db), np.argmax(level_db)
    return {
        "data set": printable(spec),
        "songs": f"{len(source):,}",
        "hours": f"{seconds.sum() / 3600:,.3f}",
        "sample rate": f"{source.sample_rate:,} Hz",
        "shortest song": f"{clock(seconds[shortest])}, {song(shortest)}",
        "longest song": f"{clock(seconds[longest])}, {song(longest)}",
        "blocks with silent vocals": f"{np.average(silent, weights=seconds):.1%}",
        "median level of a mixture": dbfs(np.median(level_db)),
        "quietest mixture": f"{dbfs(level_db[quietest])}, {song(quietest)}",
        "loudest mixture": f"{dbfs(level_db[loudest])}, {song(loudest)}",
    }


def decibels(amplitude: float) -> float:
    """20 log10 of an amplitude, -inf for 0."""
    return 20.0 * math.log10(amplitude) if amplitude > 0.0 else -math.inf


def dbfs(level_db: float) -> str:
    """A level in words: "-12.3 dBFS", or "silence"."""
    return f"{level_db:+.1f} dBFS" if math.isfinite(level_db) else "silence"
