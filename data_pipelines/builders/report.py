"""What a data set holds and what was left out, from its tables of songs: printed, and as JSON."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data_pipelines.builders.shards import MIXTURE_IS_SUM
from data_pipelines.song_table import SongTable
from data_pipelines.source import active_blocks

CLIPPED_SAMPLES = 10
"""A song is listed as clipped from so many samples at full scale on."""

LISTED = 20
"""Songs that are printed by name under each heading; the JSON has all."""


@dataclasses.dataclass(frozen=True)
class SplitReport:
    """A split in numbers, and its songs that deserve a look, name -> what is the matter.

    Attributes:
        songs: how many there are.
        hours: of audio.
        silent_share: share of the time in which the vocals are silent, 0 to 1.
        peak: largest sample of a mixture, 1 is full scale.
        clipped: songs whose files have samples at full scale.
        mended: songs that were changed on reading.
        not_sum: songs whose mixture file is not the sum of their stems; the stems are used.
        silent: songs without vocals.
        left_out: what is not in the data set.
    """

    songs: int
    hours: float
    silent_share: float
    peak: float
    clipped: dict[str, str]
    mended: dict[str, str]
    not_sum: dict[str, str]
    silent: dict[str, str]
    left_out: dict[str, str]


def summarise(table: SongTable, sample_rate: int) -> SplitReport:
    """The report of a split's table."""

    def songs(chosen: np.ndarray, told: str, values: np.ndarray) -> dict[str, str]:
        return {str(table.name[i]): told.format(values[i]) for i in np.flatnonzero(chosen)}

    ends = np.cumsum(table.activity_length)[:-1]
    activities = np.split(table.activity, ends) if len(table) else []
    active = sum(int(active_blocks(each).sum()) for each in activities)
    blocks = len(table.activity)
    with np.errstate(divide="ignore"):
        error_db = 20 * np.log10(table.mixture_error)
    return SplitReport(
        songs=len(table),
        hours=float(table.num_samples.sum()) / sample_rate / 3600,
        silent_share=1 - active / blocks if blocks else math.nan,
        peak=float(table.peak.max(initial=0)),
        clipped=songs(table.clipped >= CLIPPED_SAMPLES, "{} samples at full scale", table.clipped),
        mended=songs(table.note != "", "{}", table.note),
        not_sum=songs(
            table.mixture_error > MIXTURE_IS_SUM,
            "the mixture file has {:.0f} dB beyond its stems",
            error_db,
        ),
        silent=songs(table.vocals_level == 0, "no vocals", table.vocals_level),
        left_out=dict(zip(table.left_out.tolist(), table.reason.tolist(), strict=True)),
    )


def print_report(reports: Mapping[str, SplitReport], console: Console) -> None:
    """A row for each split, then the songs that deserve a look."""
    table = Table("split", "songs", "hours", "silent vocals", "highest peak", "left out")
    for split, report in reports.items():
        share = "" if math.isnan(report.silent_share) else f"{report.silent_share:.0%}"
        table.add_row(
            split,
            str(report.songs),
            f"{report.hours:.2f}",
            share,
            f"{report.peak:.3f}",
            str(len(report.left_out)),
        )
    console.print(table)
    headings = {
        "left_out": "left out",
        "clipped": "clipped",
        "mended": "mended on reading",
        "not_sum": "mixture is not the sum of the stems; the stems' sum is used",
        "silent": "without vocals",
    }
    for field, heading in headings.items():
        named: dict[str, str] = {}
        for split, report in reports.items():
            named |= {f"{split}, {name}": what for name, what in getattr(report, field).items()}
        if not named:
            continue
        console.print(f"[bold]{heading}[/] ({len(named)})")
        for name, what in list(named.items())[:LISTED]:
            console.print(f"  {escape(name)}: {escape(what)}", soft_wrap=True)
        if len(named) > LISTED:
            console.print(f"  and {len(named) - LISTED} more")


def as_json(reports: Mapping[str, SplitReport]) -> dict[str, Any]:
    """For `report.json`."""
    return {split: dataclasses.asdict(report) for split, report in reports.items()}
