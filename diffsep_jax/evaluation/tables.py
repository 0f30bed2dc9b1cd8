"""The tables of a result, for a terminal, as Markdown and as csv.

There is one for each group of metrics, whose title names the protocol: utterance SDR and chunk SDR
never share a column.
"""

import csv
import io
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, get_args

import numpy as np
import rich.box
import rich.table
from rich.console import Console
from rich.text import Text

from diffsep_jax.evaluation.protocols import (
    ANCHORS,
    GAIN,
    GROUP_TITLES,
    METRICS,
    MIXTURE,
    OTHER_TRACKS,
    Group,
)
from diffsep_jax.evaluation.scores import Result
from diffsep_jax.evaluation.summary import (
    LEAD,
    Interval,
    Summary,
    over_gain,
    ranked,
    real_time_factor,
    tracks_differ,
)
from diffsep_jax.evaluation.sweep import SHORT_NAMES, cutoff_label, number_label
from diffsep_jax.metrics import LIMIT_DB

INFINITE_DB = LIMIT_DB - 0.01
"""From here on a value is shown as infinite, even if it is a mean of such values."""

# Groups of ratios in dB, whose mean over tracks is reported too.
_RATIOS = ("utterance", "chunk")


class Table(NamedTuple):
    """Text in rows and columns. A row of one cell is the heading of those below it.

    `num_left` is the number of columns that are aligned to the left.
    """

    title: str
    header: list[str]
    rows: list[list[str]]
    caption: str = ""
    num_left: int = 1


def show(console: Console, result: Result, summary: Summary) -> None:
    """Prints the tables of a result, what their numbers mean, and its problems."""
    conditions = list(result.conditions)
    tables = list(metric_tables(result, summary))
    if len(conditions) == 1:
        tables.insert(0, track_table(result, conditions[0]))
    elif len(result.runs) == 1:
        tables.insert(0, sweep_table(result, summary))
    for table in tables:
        console.print(rich_table(table))
    for lines in (
        [line for name in conditions for line in gain_lines(result, name)],
        legend(result, summary),
        dict.fromkeys(result.protocols.values()),
        problem_lines(result),
    ):
        for line in lines:
            console.print(line, markup=False)


def metric_tables(result: Result, summary: Summary) -> Iterator[Table]:
    """One for each group of metrics that the result has.

    Conditions of several runs are ranked by utterance SDR, the best first. Rows of all tracks come
    first, then those of each part with its best constant gain.
    """
    conditions = ranked(result, summary) if len(result.runs) > 1 else list(result.conditions)
    for group in get_args(Group):
        metrics = [name for name in result.protocols if METRICS[name].group == group]
        if not metrics:
            continue
        ratios, repeated = group in _RATIOS, group in _RATIOS and _is_repeated(summary)
        timed = group == "utterance" and _is_timed(result)
        header = ["vocals", "metric", "median", "95% interval", "mean" if ratios else "off by"]
        header += ["repeats"] * repeated + ["n"] + ["RTF"] * timed
        rows = []
        for part in result.parts:
            rows += [[f"{part}:"]] if part else []
            anchors = () if group == "calibration" else (GAIN,) if part else ANCHORS
            for condition in (*anchors, *conditions):
                for metric in metrics:
                    found = summary[part, condition, metric]
                    row = [condition if metric == metrics[0] else "", METRICS[metric].title]
                    row += [decibels(found.median), interval(found.median_interval)]
                    row += [decibels(found.mean if ratios else found.deviation, "")]
                    row += [spread(found.spread)] * repeated + [str(found.tracks)]
                    if timed and metric == metrics[0] and not part:
                        factor = real_time_factor(result, condition)
                        row += ["" if factor is None else f"{factor:.2f}"]
                    rows.append(row + [""] * (len(header) - len(row)))
        unit = ", dB" if ratios else ""
        yield Table(GROUP_TITLES[group] + unit, header, rows, num_left=2)


def track_table(result: Result, condition: str, metrics: Sequence[str] = (LEAD,)) -> Table:
    """Every track of a condition, those with the lowest utterance SDR first, means over repeats."""
    values = {metric: result.values(condition, metric) for metric in metrics}
    mixture, gain = (result.values(name, LEAD) for name in (MIXTURE, GAIN))
    chunked = any(METRICS[metric].group == "chunk" for metric in metrics)
    titles = [METRICS[metric].full_title for metric in metrics]
    header = ["track", "mixture", "best gain", titles[0], "over gain", *titles[1:]]
    header += ["frames"] * chunked + ["seconds"]

    def rank(track: str) -> float:
        sdr = _mean(values[LEAD], track)
        return math.inf if sdr is None else sdr

    rows = []
    for track in sorted(result.tracks, key=rank):
        repeats = result.repeats(condition, track)
        row = [track, *(decibels(_mean(each, track)) for each in (mixture, gain))]
        for metric in metrics:
            found = values[metric].get(track)
            cell = decibels(_mean(values[metric], track), "")
            if metric != LEAD:
                row.append(cell)
            elif found is None:
                row += [_reason(result, condition, track), ""]
            else:
                stdev = statistics.stdev(found.tolist()) if len(found) > 1 else None
                floor = _mean(gain, track)
                over = "" if floor is None else f"{found.mean() - floor:+.2f}"
                row += [f"{cell} {spread(stdev)}".rstrip(), over]
        if chunked:
            frames = [each["chunk_frames"] for each in repeats if "chunk_frames" in each]
            row.append(f"{statistics.fmean(frames):.0f}" if frames else "")
        seconds = [each["seconds"] for each in repeats if each["seconds"] is not None]
        rows.append([*row, f"{sum(seconds):.1f}" if seconds else ""])
    return Table(
        f"{GROUP_TITLES['utterance']} of each track, dB",
        header,
        rows,
        "mixture: as the estimate; best gain: the mixture times a constant\n"
        f"{titles[0]}: the repeats' mean ± spread",
    )


def sweep_table(result: Result, summary: Summary) -> Table:
    """The median utterance SDR of each point, as in the paper's ablation: a column for a cutoff."""
    cells: dict[tuple[str, ...], dict[float, str]] = {}
    columns: dict[float, None] = {}
    for name, settings in result.conditions.items():
        sampler = str(settings["sampler"])
        row = (
            sampler,
            "" if sampler == "direct" else str(settings["steps"]),
            number_label(settings["eta"]) if settings["eta"] or sampler == "ddim" else "",
            *(number_label(settings[field]) for field in SHORT_NAMES),
        )
        column = settings["cutoff_hz"] or 0.0
        columns[column] = None
        cells.setdefault(row, {})[column] = decibels(summary["", name, LEAD].median)
    titles = ("sampler", "T", "eta", *SHORT_NAMES.values())
    varied = [i for i in range(len(titles)) if len({row[i] for row in cells}) > 1 or 0 < i < 3]
    return Table(
        f"median {GROUP_TITLES['utterance']}, dB",
        [titles[i] for i in varied] + [f"fc {cutoff_label(column)}" for column in columns],
        [
            [row[i] for i in varied] + [values.get(column, "") for column in columns]
            for row, values in cells.items()
        ],
    )


def gain_lines(result: Result, condition: str) -> Iterator[str]:
    """Whether a condition beats the best constant gain, on all tracks and on those of each part."""
    for part in result.parts:
        over, better = over_gain(result, condition, part)
        if over.median is None:
            continue
        low = over.median if over.median_interval is None else over.median_interval[0]
        verdict = "does NOT clearly beat" if over.median > 0 else "does NOT beat"
        verdict = "beats" if low > 0 else verdict
        yield (
            f"{condition}{', ' if part else ''}{part}: {verdict} the best constant gain:"
            f" {over.median:+.2f} dB {interval(over.median_interval)}, better on"
            f" {better} of {over.tracks} tracks"
        )


def legend(result: Result, summary: Summary) -> Iterator[str]:
    """Explains the columns that its tables have."""
    yield "median, mean: over the n tracks where the metric is defined"
    yield "95% interval: confidence interval of the median, bootstrap over tracks"
    if any(METRICS[name].group not in _RATIOS for name in result.protocols):
        yield "off by: median distance from the best value: 0 dB of a level, 1 of a calibration"
    yield "against the best constant gain: median of the differences by track, and its interval"
    if _is_repeated(summary):
        yield "repeats: standard deviation of the repeats' medians"
    if _is_timed(result):
        yield "RTF: real-time factor, seconds of work per second of audio, without compiling"


def problem_lines(result: Result) -> Iterator[str]:
    """The number of problems of each kind, and whether the rows are of the same tracks."""
    kinds = [problem["kind"] for problem in result.problems]
    for kind in sorted(set(kinds)):
        yield f"{kinds.count(kind)} x {kind}"
    if tracks_differ(result):
        yield OTHER_TRACKS


def rich_table(table: Table) -> rich.table.Table:
    """For a terminal."""
    shown = rich.table.Table(
        title=Text(table.title),  # as Text: brackets in a name are no markup
        caption=Text(table.caption) if table.caption else None,
        box=rich.box.SIMPLE_HEAD,
        min_width=72,
        collapse_padding=True,
        pad_edge=False,
    )
    for i, name in enumerate(table.header):
        is_left = i < table.num_left
        shown.add_column(Text(name), justify="left" if is_left else "right", no_wrap=not is_left)
    for row in table.rows:
        if len(row) == 1:
            shown.add_section()
        shown.add_row(*map(Text, row))
    return shown


def markdown(table: Table) -> str:
    """As Markdown, after the title; headings of rows are in their first cell."""

    def line(cells: Sequence[str]) -> str:
        padded = [*cells, *[""] * (len(table.header) - len(cells))]
        return "| " + " | ".join(cell.replace("|", r"\|") for cell in padded) + " |"

    lines = [line(table.header), "|" + "---|" * len(table.header), *map(line, table.rows)]
    return f"{table.title}\n\n" + "\n".join(lines) + "\n"


def csv_text(result: Result, summary: Summary) -> str:
    """Everything in one table: a row for each part and condition, columns for each metric."""
    fields = ("median", "median_low", "median_high", "mean", "spread", "deviation", "tracks")
    names = ["part", "vocals", "real_time_factor"]
    names += [f"{metric}_{field}" for metric in result.protocols for field in fields]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(names)
    for part in result.parts:
        for condition in (*ANCHORS, *result.conditions):
            row = [part, condition, None if part else real_time_factor(result, condition)]
            for metric in result.protocols:
                found = summary[part, condition, metric]
                row += [found.median, *(found.median_interval or (None, None)), found.mean]
                row += [found.spread, found.deviation, found.tracks]
            writer.writerow(row)
    return file.getvalue()


def decibels(value: float | None, none: str = "-") -> str:
    """With two decimals, and ±inf for what stands for infinity; `none` for None."""
    if value is None:
        return none
    return f"{value:.2f}" if abs(value) < INFINITE_DB else f"{math.copysign(math.inf, value)}"


def interval(value: Interval | None) -> str:
    """Both ends with two decimals; nothing for None."""
    return "" if value is None else f"[{decibels(value[0])}, {decibels(value[1])}]"


def spread(value: float | None) -> str:
    """Formatted as "±0.12"; nothing for None."""
    return "" if value is None else f"±{value:.2f}"


def _mean(values: Mapping[str, np.ndarray], track: str) -> float | None:
    return float(values[track].mean()) if track in values else None


def _reason(result: Result, condition: str, track: str) -> str:
    """Why a track has no score, in a word or two."""
    rows = [*result.repeats(MIXTURE, track), *result.repeats(condition, track)]
    return next((each["kind"] for row in rows for each in row.get("problems", ())), "undefined")


def _is_repeated(summary: Summary) -> bool:
    return any(each.spread is not None for each in summary.values())


def _is_timed(result: Result) -> bool:
    return any(real_time_factor(result, name) for name in result.conditions)
