"""What a data set holds and what was left out, from its tables of songs: printed, and as JSON."""

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
"""A song is listed as clipped from this many samples at full scale on."""

LISTED = 20
"""How many songs are printed by name under each heading; the JSON has all of them."""

HEADINGS = {
    "left_out": "left out",
    "clipped": "clipped",
    "mended": "repaired on reading",
    "not_sum": "mixture is not the sum of the stems; accompaniment is mixture - vocals",
    "silent": "without vocals",
}
"""Of the songs that deserve a look, by their key in a report."""


def summarise(table: SongTable, sample_rate: int) -> dict[str, Any]:
    """The report of a split, as in `report.json`.

    Returns:
        `songs`: their number; `hours`; `silent_share`: share of the time with silent vocals, NaN
        without songs; `peak`: largest sample of a mixture, 1 is full scale; and for each key of
        `HEADINGS` the songs concerned, name -> the reason.
    """

    def songs(chosen: np.ndarray, text: str, values: np.ndarray) -> dict[str, str]:
        return {str(table.name[i]): text.format(values[i]) for i in np.flatnonzero(chosen)}

    ends = np.cumsum(table.activity_length)[:-1]
    activities = np.split(table.activity, ends) if len(table) else []
    active = sum(
        int(active_blocks(each, level).sum())
        for each, level in zip(activities, table.level, strict=True)
    )
    blocks = len(table.activity)
    with np.errstate(divide="ignore"):
        error_db = 20 * np.log10(table.mixture_error)
    return {
        "songs": len(table),
        "hours": float(table.num_samples.sum()) / sample_rate / 3600,
        "silent_share": 1 - active / blocks if blocks else math.nan,
        "peak": float(table.peak.max(initial=0)),
        "clipped": songs(
            table.clipped >= CLIPPED_SAMPLES, "{} samples at full scale", table.clipped
        ),
        "mended": songs(table.note != "", "{}", table.note),
        "not_sum": songs(
            table.mixture_error > MIXTURE_IS_SUM,
            "the mixture file has {:.0f} dB beyond its stems",
            error_db,
        ),
        "silent": songs(table.vocals_level == 0, "no vocals", table.vocals_level),
        "left_out": dict(zip(table.left_out.tolist(), table.reason.tolist(), strict=True)),
    }


def print_report(reports: Mapping[str, Mapping[str, Any]], console: Console) -> None:
    """A row for each split, then the songs that deserve a look."""
    table = Table("split", "songs", "hours", "silent vocals", "highest peak", "left out")
    for split, report in reports.items():
        share = report["silent_share"]
        table.add_row(
            split,
            str(report["songs"]),
            f"{report['hours']:.2f}",
            "" if math.isnan(share) else f"{share:.0%}",
            f"{report['peak']:.3f}",
            str(len(report["left_out"])),
        )
    console.print(table)
    for key, heading in HEADINGS.items():
        named = [
            f"{split}, {name}: {what}"
            for split, report in reports.items()
            for name, what in report[key].items()
        ]
        if named:
            console.print(f"[bold]{heading}[/] ({len(named)})")
        for line in named[:LISTED]:
            console.print(f"  {escape(line)}", soft_wrap=True)
        if len(named) > LISTED:
            console.print(f"  and {len(named) - LISTED} more")
