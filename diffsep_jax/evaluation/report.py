"""Results as one HTML page, or ranked in tables:  python -m diffsep_jax.evaluation.report A [B ...]

The page loads nothing from anywhere; its template is report.html.jinja.
"""

import base64
import dataclasses
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import soundfile
import tyro
from jaxtyping import Float32
from rich.console import Console

from diffsep_jax import pages
from diffsep_jax.arguments import arguments
from diffsep_jax.errors import UserError, one_line_errors
from diffsep_jax.evaluation import tables
from diffsep_jax.evaluation.compare import compare, comparison_lines, difference_table
from diffsep_jax.evaluation.protocols import (
    ANCHORS,
    GROUP_TITLES,
    METRICS,
    MIXTURE,
    OTHER_TRACKS,
    Group,
)
from diffsep_jax.evaluation.scores import REPORT_FILE, Result, Row, merge, read_result
from diffsep_jax.evaluation.summary import (
    LEAD,
    Summary,
    over_gain,
    ranked,
    real_time_factor,
    summarise,
    tracks_differ,
)
from diffsep_jax.evaluation.sweep import line_and_steps, number_label
from diffsep_jax.files import write_bytes

MANY = 6
"""With more conditions than these, the tables of all of them are folded."""

MOST_TRACKS, MOST_HEARD = 3, 3
"""How many worst and best tracks, and estimates of each. A sound and its picture take 0.2 MB."""

PLAYBACK_PEAK_DB = -1.0

Waveform = Float32[np.ndarray, "time channel"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """Writes an HTML page of results, or prints them ranked, the best first.

    Attributes:
        folders: results to show: folders that eval.py wrote, of the same songs.
        conditions: names of the conditions to show, such as two points of a sweep; unset: all.
        html: file to write the page to; unset: report.html in the folder, if there is only one
            folder and no table is printed.
        table: format of the tables to print; unset: terminal, if several folders or conditions are
            given.
    """

    folders: tyro.conf.Positional[tuple[Path, ...]]
    conditions: tuple[str, ...] = ()
    html: Path | None = None
    table: Literal["terminal", "csv", "markdown"] | None = None


def main(args: Sequence[str]) -> None:
    """Runs the command. Raises UserError if there is no result, or the page cannot be written."""
    command = tyro.cli(Report, args=arguments(args), prog="python -m diffsep_jax.evaluation.report")
    if not command.folders:
        raise UserError("folders is empty; expected at least one folder that eval.py wrote")
    several = len(command.folders) > 1 or bool(command.conditions)
    table = command.table or ("terminal" if several else None)
    html = command.html or (command.folders[0] / REPORT_FILE if table is None else None)
    result = read_results(command.folders)
    if unknown := set(command.conditions) - result.conditions.keys():
        raise UserError(
            f"conditions has {min(unknown)}; expected some of {', '.join(result.conditions)}"
        )
    if command.conditions:
        result = result.renamed({name: name for name in command.conditions})
    everything = {metric for run in result.runs.values() for metric in run["protocols"]}
    if alone := sorted(everything - result.protocols.keys()):
        print(f"left out, as not all results have it: {', '.join(alone)}", file=sys.stderr)
    summary = summarise(result)
    if html is not None:
        if html.is_dir():
            raise UserError(f"html is {html}, a folder; expected the name of an HTML file")
        write_report(html, result, summary)
        size = html.stat().st_size / 1e6
        print(f"wrote {html} ({size:.1f} MB); open it in a browser", file=sys.stderr)
    if table == "csv":
        print(tables.csv_text(result, summary), end="")
    elif table == "markdown":
        print("\n".join(map(tables.markdown, tables.metric_tables(result, summary))), end="")
    elif table == "terminal":
        console = Console(highlight=False)
        tables.show(console, result, summary)
        if len(result.conditions) == 2 and (found := compare(result, *result.conditions)):
            console.print(tables.rich_table(difference_table(found)))
        for line in comparison_lines(result, ranked(result, summary)):
            console.print(line, markup=False)


def read_results(folders: Sequence[Path]) -> Result:
    """The results of the folders as one; conditions that share a name are named by their folders.

    Raises UserError if one cannot be read, or they are not of the same songs.
    """
    results = [read_result(folder) for folder in folders]
    names = [name for result in results for name in result.conditions]
    if len(set(names)) < len(names):
        results = [
            result.renamed(
                {
                    name: str(folder) if len(result.conditions) == 1 else f"{folder}: {name}"
                    for name in result.conditions
                }
            )
            for folder, result in zip(folders, results, strict=True)
        ]
    return merge(results)


def write_report(path: Path, result: Result, summary: Summary) -> None:
    """Writes the page, one file; equal results give equal bytes.

    Raises UserError if an excerpt that the page plays is missing or damaged, a package is missing,
    or `path` cannot be written.
    """
    write_bytes(path, render(result, summary).encode())


def render(result: Result, summary: Summary) -> str:
    """The whole page as HTML. Raises UserError as `write_report` does."""
    order = ranked(result, summary)
    best = order[0]
    shown = result if len(order) <= MANY else result.renamed({best: best})
    return pages.render(
        "diffsep_jax.evaluation",
        "report.html.jinja",
        result=result,
        estimates=_setting(result, "name", "model", "estimates"),
        data=_setting(result, "data"),
        best=best,
        order=order,
        lead=summary["", best, LEAD],
        over_gain=over_gain(result, best)[0].median,
        real_time_factor=real_time_factor(result, best),
        gain_lines=list(tables.gain_lines(result, best)),
        cards=_cards(result, order),
        comparisons=list(comparison_lines(result, order)),
        quality=_quality(result, summary),
        groups=_groups(shown, summary),
        folded=list(tables.metric_tables(result, summary)) if shown is not result else [],
        other_tracks=OTHER_TRACKS if tracks_differ(result) else "",
        tracks=tables.track_table(result, best, list(result.protocols)),
        anchors=ANCHORS,
        decibels=tables.decibels,
        interval=tables.interval,
        text=_text,
        sha256=_sha256,
        players=pages.players_script(),
    )


def _sha256(text: str) -> str:
    """The hash by which the page's content security policy allows its one script."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _setting(result: Result, *names: str) -> str:
    """The distinct values, over the runs, of the first of these settings that each run has."""
    found = [
        next((str(run["settings"][name]) for name in names if name in run["settings"]), "")
        for run in result.runs.values()
    ]
    return ", ".join(dict.fromkeys(found))


def _cards(result: Result, order: Sequence[str]) -> list[dict[str, Any]]:
    """The worst and the best tracks of the best condition, each with its sounds and its picture."""
    kept = {row["condition"] for row in result.rows if "excerpt" in row}
    heard = [name for name in order if name in kept][:MOST_HEARD]
    if not heard:
        return []
    ranks, values = result.values(order[0], LEAD), result.values(heard[0], LEAD)
    tracks = [
        track
        for track in ranks
        if track in values and _excerpt(result, heard[0], track) is not None
    ]
    tracks.sort(key=lambda track: ranks[track].mean())
    if len(tracks) > 2 * MOST_TRACKS:
        tracks = tracks[:MOST_TRACKS] + tracks[-MOST_TRACKS:]
    return [_card(result, track, heard) for track in tracks]


def _excerpt(result: Result, condition: str, track: str) -> Row | None:
    rows = result.repeats(condition, track)
    return next((row["excerpt"] for row in rows if "excerpt" in row), None)


def _card(result: Result, track: str, conditions: Sequence[str]) -> dict[str, Any]:
    from diffsep_jax import plots

    mixture = _excerpt(result, MIXTURE, track)
    assert mixture is not None  # it is kept with each estimate
    reference = mixture | {"file": str(Path(mixture["file"]).with_name("vocals.flac"))}
    excerpts = {"mixture": mixture, "reference": reference}
    scores = {}
    for name in conditions:
        values = result.values(name, LEAD)
        if (found := _excerpt(result, name, track)) and track in values:
            label = "estimate" if len(conditions) == 1 else f"estimate: {name}"
            excerpts[label] = found
            scores[label] = float(values[track].mean())
    sounds: dict[str, Waveform] = {}
    for label, each in excerpts.items():
        sounds[label], rate = _read(Path(each["file"]), each["gain"])
        if sounds[label].shape != sounds["mixture"].shape or not sounds[label].size:
            raise UserError(
                f"{each['file']}: shape is {sounds[label].shape}; expected that of the mixture's"
                f" excerpt, {sounds['mixture'].shape}. Score again into another folder"
            )
    first = next(iter(scores))
    sounds[first.replace("estimate", "error", 1)] = sounds["reference"] - sounds[first]
    peak = max(float(np.abs(audio).max()) for audio in sounds.values())
    volume = np.float32(10 ** (PLAYBACK_PEAK_DB / 20) / peak if peak > 0 else 1.0)
    start, seconds = mixture["start_seconds"], len(sounds["mixture"]) / rate
    span = (start, start + seconds, result.audio_seconds[track])
    return {
        "track": track,
        "scores": scores,
        "span": [pages.clock(time) for time in span],
        "sounds": [
            {"label": label, "uri": pages.audio_uri(audio * volume, rate, "mp3")}
            for label, audio in sounds.items()
        ],
        "picture": pages.data_uri("image/png", plots.spectrograms(sounds, rate)),
    }


def _read(path: Path, gain: float) -> tuple[Waveform, int]:
    try:
        audio, sample_rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, soundfile.LibsndfileError):
        raise UserError(
            f"{path} is missing or damaged; expected the excerpt that eval.py wrote. Copy the whole"
            " result folder, or score again into another one"
        ) from None
    return audio / np.float32(gain), sample_rate


def _quality(result: Result, summary: Summary) -> str | None:
    """The plot of quality against time, if at least two conditions have a time and a score."""
    from diffsep_jax import plots

    points = []
    for name, settings in result.conditions.items():
        median, factor = summary["", name, LEAD].median, real_time_factor(result, name)
        if median is not None and factor is not None:
            points.append(plots.Point(*line_and_steps(name, settings), factor, median))
    if len(points) < 2:
        return None
    return pages.data_uri("image/svg+xml", plots.quality_against_time(points))


def _groups(result: Result, summary: Summary) -> list[dict[str, Any]]:
    """For each group of metrics its table and what the numbers mean."""
    found = []
    metrics = [METRICS[name] for name in result.protocols]
    groups = [group for group in get_args(Group) if any(m.group == group for m in metrics)]
    for group, table in zip(groups, tables.metric_tables(result, summary), strict=True):
        ours = [metric for metric in metrics if metric.group == group]
        found.append(
            {
                "group": group,
                "title": GROUP_TITLES[group].partition(" (")[0],
                "table": table,
                "meanings": [(each.full_title, result.protocols[each.name]) for each in ours],
            }
        )
    return found


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')} {_text(each)}" for name, each in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    if isinstance(value, float):
        return number_label(value)
    return "none" if value is None else str(value)


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])
