"""A result for a terminal: a table for each group of metrics, whose title names the protocol."""

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import get_args

import rich.box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from diffsep_jax.evaluation.protocols import GROUP_TITLES, METRICS, OTHER_TRACKS, REFERENCES, Group
from diffsep_jax.evaluation.results import Result, Statistic
from diffsep_jax.evaluation.summary import speak_of_other_tracks
from diffsep_jax.evaluation.sweep import cutoff_label, number_label
from diffsep_jax.metrics import LIMIT_DB

INFINITE_DB = LIMIT_DB - 0.01
"""From here on a value is shown as infinite, be it a mean of such ones."""

# Groups of ratios in dB, whose mean over tracks is reported too.
_RATIOS = ("utterance", "chunk")


def show(console: Console, result: Result) -> None:
    """Prints the tables of a result, what their numbers mean, and its problems."""
    one = len(result.conditions) == 1
    console.print(track_table(result) if one else sweep_table(result))
    for table in summary_tables(result):
        console.print(table)
    for lines in (
        gain_lines(result, result.summary.conditions),
        legend(result),
        dict.fromkeys(result.protocols.values()),
        problem_lines(result),
    ):
        for line in lines:
            console.print(line, markup=False)


def summary_tables(result: Result) -> Iterator[Table]:
    """One for each group of metrics that the result has.

    Rows of all tracks come first, then those of each part with its best constant gain.
    """
    for group in get_args(Group):
        names = [name for name in result.protocols if METRICS[name].group == group]
        if not names:
            continue
        repeated = _is_repeated(result) and group in _RATIOS
        timed = group == "utterance" and _is_timed(result)
        table = Table(
            title=GROUP_TITLES[group] + (", dB" if group in _RATIOS else ""),
            box=rich.box.SIMPLE_HEAD,
            collapse_padding=True,
            pad_edge=False,
        )
        table.add_column("vocals")
        table.add_column("metric")
        for column in (
            *("median", "95% interval", "mean" if group in _RATIOS else "off by"),
            *(("repeats",) if repeated else ()),
            "n",
            *(("RTF",) if timed else ()),
        ):
            table.add_column(column, justify="right", no_wrap=True)
        for part, summary in {"": result.summary, **result.summary.parts}.items():
            if part:
                table.add_section()
                table.add_row(Text(f"{part}:"))
            for name, scores in summary.references.items():
                if group != "calibration" and (not part or name == "gain"):
                    _add_rows(table, REFERENCES[name], names, scores, repeated)
            if not part:
                table.add_section()
            for name, condition in summary.conditions.items():
                factor = condition.real_time_factor if timed else None
                _add_rows(table, name, names, condition.statistics, repeated, factor)
        yield table


def gain_lines(result: Result, conditions: Iterable[str]) -> Iterator[str]:
    """Whether each condition beats the best constant gain, of all tracks and of each part."""
    for name in conditions:
        for part, summary in {"": result.summary, **result.summary.parts}.items():
            found = summary.conditions[name]
            over = found.over_gain
            if over.median is None:
                continue
            low = over.median if over.median_interval is None else over.median_interval[0]
            verdict = "does NOT clearly beat" if over.median > 0 else "does NOT beat"
            verdict = "beats" if low > 0 else verdict
            yield (
                f"{name}{', ' if part else ''}{part}: {verdict} the best constant gain:"
                f" {over.median:+.2f} dB {interval(over.median_interval)}, better on"
                f" {found.better_than_gain} of {over.tracks} tracks"
            )


def _is_repeated(result: Result) -> bool:
    return any(
        statistic.spread is not None
        for each in result.summary.conditions.values()
        for statistic in each.statistics.values()
    )


def _is_timed(result: Result) -> bool:
    return any(each.real_time_factor for each in result.summary.conditions.values())


def legend(result: Result) -> Iterator[str]:
    """What the columns are that its tables have."""
    yield "median, mean: over the n tracks where the metric is defined"
    yield "95% interval: confidence interval of the median, bootstrap over tracks"
    if any(METRICS[name].best is not None for name in result.protocols):
        yield "off by: median distance from the best value: 0 dB of a level, 1 of a calibration"
    yield "against the best constant gain: median of the differences by track, and its interval"
    if _is_repeated(result):
        yield "repeats: standard deviation of the repeats' medians"
    if _is_timed(result):
        yield "RTF: real-time factor, seconds of work for a second of audio, without compiling"


def _add_rows(
    table: Table,
    row: str,
    names: Sequence[str],
    scores: Mapping[str, Statistic],
    repeated: bool,
    factor: float | None = None,
) -> None:
    for name in names:
        each = scores[name]
        is_first = name == names[0]
        table.add_row(
            Text(row if is_first else ""),  # as Text: brackets in a name are no markup
            METRICS[name].title,
            decibels(each.median),
            interval(each.median_interval),
            decibels(each.mean if METRICS[name].group in _RATIOS else each.deviation, ""),
            *((_spread(each.spread),) if repeated else ()),
            str(each.tracks),
            *((f"{factor:.2f}",) if factor is not None and is_first else ()),
        )


def track_table(result: Result) -> Table:
    """Every track of a result of one condition, by utterance SDR."""
    (condition,) = result.conditions
    table = Table(
        title=f"{GROUP_TITLES['utterance']} of each track, dB",
        caption="mixture: taken as the estimate; best gain: the mixture times a constant\n"
        "estimate: the repeats' mean ± spread",
    )
    table.add_column("track")
    for column in ("mixture", "best gain", "estimate", "over gain", "seconds"):
        table.add_column(column, justify="right")
    for track in result.tracks:
        scores = track.estimates[condition.name]
        values = [score.metrics["utterance_sdr"] for score in scores]
        known = [value for value in values if value is not None]
        mixture, gain = (
            track.references[name].metrics["utterance_sdr"] if track.references else None
            for name in ("mixture", "gain")
        )
        cells = [decibels(mixture), decibels(gain)]
        if not known or gain is None:
            cells += ["silent" if track.silent else "problem", ""]
        else:
            mean = statistics.fmean(known)
            spread = f" {_spread(statistics.stdev(known))}" if len(known) > 1 else ""
            cells += [decibels(mean) + spread, f"{mean - gain:+.2f}"]
        seconds = [score.seconds for score in scores if score.seconds is not None]
        cells.append(f"{sum(seconds):.1f}" if seconds else "")
        table.add_row(Text(track.name), *cells)
    return table


_LATER_SETTINGS = {"schedule": 1.0, "temperature": 1.0, "crossover_hz": 0.0}
"""Settings that older result files lack, and what they then were."""


def sweep_table(result: Result) -> Table:
    """The median utterance SDR of each point, as in the paper's ablation: a column for a cutoff."""
    cells: dict[tuple[str, ...], dict[float, str]] = {}
    columns: dict[float, None] = {}
    for condition in result.conditions:
        settings = condition.settings
        row = (
            settings["sampler"],
            "" if settings["sampler"] == "direct" else str(settings["steps"]),
            number_label(settings["eta"]) if settings["sampler"] == "ddim" else "",
            number_label(settings["start_sigma"]),
            *(number_label(settings.get(name, plain)) for name, plain in _LATER_SETTINGS.items()),
            str(settings["ensemble"]),
        )
        column = settings["cutoff_hz"] or 0.0
        columns[column] = None
        statistic = result.summary.conditions[condition.name].statistics["utterance_sdr"]
        cells.setdefault(row, {})[column] = decibels(statistic.median)
    table = Table(title=f"median {GROUP_TITLES['utterance']}, dB", min_width=72)
    titles = ("sampler", "T", "eta", "start", "p", "temperature", "crossover", "ensemble")
    varied = [i for i in range(len(titles)) if len({row[i] for row in cells}) > 1 or 0 < i < 3]
    for i in varied:
        table.add_column(titles[i])
    for column in columns:
        table.add_column(f"fc {cutoff_label(column)}", justify="right")
    for row, values in cells.items():
        table.add_row(*(row[i] for i in varied), *(values.get(column, "") for column in columns))
    return table


def problem_lines(result: Result) -> Iterator[str]:
    """How many problems there are of each kind, and of how many tracks the rest speaks."""
    summary = result.summary
    for kind, count in summary.problems.items():
        yield f"{count} x {kind}"
    if speak_of_other_tracks(result):
        yield OTHER_TRACKS
    if summary.problems:
        yield f"{summary.tracks} tracks in all; the count beside each number says how many it is of"


def decibels(value: float | None, none: str = "-") -> str:
    """Two decimals, a dash or `none` for None; what stands for infinity is called so."""
    if value is None:
        return none
    return f"{value:.2f}" if abs(value) < INFINITE_DB else f"{math.copysign(math.inf, value)}"


def _spread(value: float | None) -> str:
    return "" if value is None else f"±{value:.2f}"


def interval(value: tuple[float, float] | None) -> str:
    """Both ends with two decimals; nothing for None."""
    return "" if value is None else f"[{decibels(value[0])}, {decibels(value[1])}]"
