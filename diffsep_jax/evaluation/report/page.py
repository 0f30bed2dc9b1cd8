"""The page of a result, from its first number to its command line."""

import importlib.resources
import pathlib

from diffsep_jax.evaluation.protocols import OTHER_TRACKS
from diffsep_jax.evaluation.report import (
    listening,
    metric_tables,
    provenance,
    quality,
    track_table,
)
from diffsep_jax.evaluation.report.strips import LIMIT_DB
from diffsep_jax.evaluation.report.values import (
    LEAD,
    LEAD_TITLE,
    best_condition,
    gain,
    interval,
    number,
)
from diffsep_jax.evaluation.results import Result
from diffsep_jax.evaluation.summary import speak_of_other_tracks
from diffsep_jax.evaluation.tables import gain_lines
from diffsep_jax.files import write_bytes
from diffsep_jax.pages.document import document, escape

_BOXES = (
    "Boxes hold the middle half of the tracks and whiskers all of them; a dot is a track, the mean"
    " over its repeats; the line is the median, and an arrow points to what is"
    f" beyond {LIMIT_DB:.0f} dB. Intervals are 95% bootstraps over tracks: how much a number hangs"
    " on which songs were chosen. “Off by” is the median distance from the best value."
)


def write_report(path: pathlib.Path, result: Result, out: pathlib.Path) -> None:
    """Writes the page of a result, one HTML file that loads nothing; equal results, equal bytes.

    `out` is the result's folder, which has the excerpts. Raises UserError if one of the excerpts
    that the page plays is missing or damaged, or `path` cannot be written.
    """
    write_bytes(path, render(result, out).encode())


def render(result: Result, out: pathlib.Path) -> str:
    """The whole page as HTML. Raises UserError as `write_report` does."""
    estimates, data = _estimates(result), str(result.settings.get("data", "unnamed data"))
    repeats = result.settings.get("repeats", 1)
    repeated = (
        f" “Repeats” is the spread of the median over {repeats} seeds." if repeats != 1 else ""
    )
    told = f"<p class='note'>{OTHER_TRACKS}.</p>\n" if speak_of_other_tracks(result) else ""
    body = (
        f"{_header(result, estimates, data)}"
        f"{quality.section(result)}"
        f"{''.join(metric_tables.sections(result))}"
        f"{told}<p class='soft note'>{_BOXES}{repeated} RTF is the real-time factor, seconds of"
        " work for a second of audio.</p>\n"
        f"{listening.section(result, out)}"
        f"{track_table.section(result)}"
        f"{track_table.problems(result)}"
        f"{provenance.section(result)}"
    )
    style = importlib.resources.files(__package__).joinpath("style.css").read_text("utf-8")
    return document(title=f"{estimates} on {data}", style=style, body=body)


def _estimates(result: Result) -> str:
    return str(result.settings.get("model") or result.settings.get("estimates") or "estimates")


def _header(result: Result, estimates: str, data: str) -> str:
    summary = result.summary
    best = best_condition(result)
    found = summary.conditions[best]
    sdr = found.statistics[LEAD]
    num_problems = sum(summary.problems.values())
    split = str(result.settings.get("split", "all"))
    which = "all tracks" if split == "all" else f"the {escape(split)} tracks"
    facts = [
        ("over the best gain", gain(found.over_gain.median), "dB"),
        ("tracks scored", f"{sdr.tracks} of {summary.tracks}", ""),
        ("of audio", f"{summary.audio_seconds / 60:.1f}", "min"),
        ("problem" if num_problems == 1 else "problems", str(num_problems), ""),
    ]
    if found.real_time_factor is not None:
        facts.insert(1, ("real-time factor", number(found.real_time_factor), ""))
    cells = "".join(
        f"<div><dt>{name}</dt><dd>{value} <small>{unit}</small></dd></div>\n"
        for name, value, unit in facts
    )
    lines = [f"<p class='soft'>{escape(line)}</p>\n" for line in gain_lines(result, [best])]
    several = len(result.conditions) > 1
    setting = f"{escape(best)}, the best of {len(result.conditions)} settings: " if several else ""
    return (
        f"<header>\n<p class='kicker'>Vocals, scored on {which} of {escape(data)}</p>\n"
        f"<h1>{escape(estimates)}</h1>\n"
        f"<p class='lead'><strong>{number(sdr.median)} dB</strong>"
        f"<span>{setting}median {escape(LEAD_TITLE)}; 95% interval"
        f" {interval(sdr.median_interval)}</span></p>\n<dl class='key-facts'>\n{cells}</dl>\n"
        f"{''.join(lines)}</header>\n"
    )
