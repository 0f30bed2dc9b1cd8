"""The summary: for each group of metrics its protocol, and for each metric numbers and box plots.

The numbers stand beside the boxes that they are of. Utterance and chunk SDR never share a table.
"""

from collections.abc import Iterator
from typing import NamedTuple, get_args

from diffsep_jax.evaluation.protocols import GROUP_TITLES, METRICS, REFERENCES, Group
from diffsep_jax.evaluation.report import strips
from diffsep_jax.evaluation.report.values import (
    MANY,
    NONE,
    best_condition,
    estimate_value,
    interval,
    metric_title,
    number,
    reference_value,
)
from diffsep_jax.evaluation.results import Result, Statistic
from diffsep_jax.evaluation.summary import comparable_tracks
from diffsep_jax.pages.document import escape

_EMPTY = ' class="none"'


class _Row(NamedTuple):
    kind: str
    name: str
    statistic: Statistic
    values: dict[str, float]
    real_time_factor: float | None


def sections(result: Result) -> Iterator[str]:
    """A section for each group of metrics that the result has."""
    for group in get_args(Group):
        metrics = [metric for metric in result.protocols if METRICS[metric].group == group]
        if metrics:
            title = GROUP_TITLES[group]
            heading, _, detail = title.removesuffix(")").partition(" (")
            meanings = "".join(
                f"<dt>{escape(METRICS[metric].title)}</dt>"
                f"<dd>{escape(result.protocols[metric])}</dd>\n"
                for metric in metrics
            )
            tables = "".join(_tables(result, metric) for metric in metrics)
            yield (
                f'<section id="{group}">\n<h2>{_sentence(heading)}</h2>\n'
                f"<p class='soft'>{_sentence(detail)}</p>\n"
                f"{tables}<details><summary>What the numbers mean</summary>\n"
                f"<dl class='meanings'>\n{meanings}</dl>\n</details>\n</section>\n"
            )


def _sentence(text: str) -> str:
    return escape(text[:1].upper() + text[1:])


def _tables(result: Result, metric: str) -> str:
    """The table; of many conditions the best alone, and a second table of all to be unfolded."""
    rows = list(_rows(result, metric))
    protocol = result.protocols[metric].partition(": ")[0]
    if len(result.conditions) <= MANY:
        return _table(rows, metric, protocol)
    best = best_condition(result)
    shown = {best, *(f"{part}: {best}" for part in result.summary.parts)}
    short = [row for row in rows if row.kind == "reference" or row.name in shown]
    summary = f"{METRICS[metric].title} of all {len(result.conditions)} settings"
    return (
        f"{_table(short, metric, protocol)}<details><summary>{summary}</summary>\n"
        f"{_table(rows, metric, protocol)}</details>\n"
    )


def _table(rows: list[_Row], metric: str, protocol: str) -> str:
    axis = strips.Axis.over(value for row in rows for value in row.values.values())
    group, has_best = METRICS[metric].group, METRICS[metric].best is not None
    repeated = group != "calibration" and any(row.statistic.spread is not None for row in rows)
    timed = group == "utterance" and any(row.real_time_factor for row in rows)
    headings = ["median", "95% interval"]
    headings += ["off by"] if has_best else ["mean", "95% interval"]
    headings += ["tracks"]
    headings += ["repeats"] * repeated + ["RTF"] * timed
    cells = "".join(f'<th scope="col" role="columnheader">{each}</th>' for each in headings)
    body = "".join(_line(row, axis, headings) for row in rows)
    name = escape(metric_title(metric))
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{name}">\n'
        f'<table class="metric" role="table">\n<caption><span>{name}</span>'
        f"<span class='protocol'>{escape(protocol)}</span></caption>\n"
        '<thead role="rowgroup"><tr role="row"><th scope="col" role="columnheader">vocals</th>'
        '<th scope="col" role="columnheader" class="plot" aria-label="box plot over tracks">'
        f"{strips.axis_labels(axis)}</th>{cells}</tr></thead>\n"
        f'<tbody role="rowgroup">\n{body}</tbody>\n</table>\n</div>\n'
    )


def _rows(result: Result, metric: str) -> Iterator[_Row]:
    """Of all tracks, then of those of each part, in which the best constant gain stands alone."""
    for part, summary in {"": result.summary, **result.summary.parts}.items():
        tracks = [track for track in result.tracks if part in ("", track.part)]
        start = f"{part}: " if part else ""
        for name, found in summary.conditions.items():
            values = {track.name: estimate_value(track, name, metric) for track in tracks}
            yield _Row(
                "estimate",
                start + name,
                found.statistics[metric],
                _known(values),
                found.real_time_factor,
            )
        if METRICS[metric].group == "calibration":
            continue
        comparable = comparable_tracks(tracks, result.conditions, metric)
        for name in ["gain"] if part else REFERENCES:
            values = {track.name: reference_value(track, name, metric) for track in comparable}
            statistic = summary.references[name][metric]
            yield _Row("reference", start + REFERENCES[name], statistic, _known(values), None)


def _known(values: dict[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}


def _line(row: _Row, axis: strips.Axis, headings: list[str]) -> str:
    statistic = row.statistic
    texts = [
        number(statistic.median),
        interval(statistic.median_interval),
        *(
            [number(statistic.deviation)]
            if "off by" in headings
            else [number(statistic.mean), interval(statistic.mean_interval)]
        ),
        str(statistic.tracks),
    ]
    if "repeats" in headings:
        texts.append(NONE if statistic.spread is None else f"± {number(statistic.spread)}")
    if "RTF" in headings:
        texts.append(number(row.real_time_factor))
    cells = "".join(
        f'<td role="cell" data-label="{heading}"{_EMPTY if text == NONE else ""}>{text}</td>'
        for heading, text in zip(headings, texts, strict=True)
    )
    strip = strips.box(axis, row.values, statistic.median, name=row.name)
    return (
        f'<tr role="row" class="{row.kind}"><th scope="row" role="rowheader">{escape(row.name)}'
        f'</th><td role="cell" class="plot">{strip}</td>{cells}</tr>\n'
    )
