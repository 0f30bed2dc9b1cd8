"""Every track in a line, the worst first, and every problem by its kind."""

import math
from collections.abc import Sequence

from diffsep_jax.evaluation.protocols import METRICS
from diffsep_jax.evaluation.report import strips
from diffsep_jax.evaluation.report.values import (
    LEAD,
    NONE,
    best_condition,
    estimate_value,
    gain,
    number,
    reference_value,
)
from diffsep_jax.evaluation.results import Problem, Result, Score, Track
from diffsep_jax.pages.document import clock, escape

_OPEN_PROBLEMS = 12
_PROTOCOL_NAMES = {
    "utterance": "whole track",
    "spectral": "spectra",
    "chunk": "BSS Eval v4 chunks",
    "calibration": "calibration",
}


def section(result: Result) -> str:
    """The table, for the best condition if there are several."""
    condition = best_condition(result)
    tracks = sorted(result.tracks, key=lambda track: _rank(track, condition))
    axis = strips.Axis.over(
        value
        for track in tracks
        for value in (
            estimate_value(track, condition),
            reference_value(track, "gain"),
            reference_value(track, "mask"),
        )
        if value is not None
    )
    groups = ""
    heads = ""
    for group, name in _PROTOCOL_NAMES.items():
        metrics = [metric for metric in result.protocols if METRICS[metric].group == group]
        if group == "utterance":
            groups += f'<th scope="colgroup" colspan="{len(metrics) + 3}">{name}, dB</th>'
            heads += "".join(
                f'<th scope="col">{each}</th>' for each in ("mixture", "best gain", "over gain")
            )
        elif metrics:
            span = len(metrics) + (group == "chunk")
            unit = ", dB" if group == "chunk" else ""
            groups += f'<th scope="colgroup" colspan="{span}">{name}{unit}</th>'
        heads += "".join(f'<th scope="col">{METRICS[metric].title}</th>' for metric in metrics)
        if group == "chunk" and metrics:
            heads += '<th scope="col">frames</th>'
    one = len(result.conditions) == 1
    of = "" if one else f" of {escape(condition)}, the best of {len(result.conditions)} settings"
    return (
        '<section id="tracks">\n<h2>Every track</h2>\n'
        f"<p>Means over repeats{of}, the lowest utterance SDR first. Ring: the best constant gain,"
        " that is, the mixture times the constant that suits the track best. Dot: the estimate."
        " Tick: the ideal ratio mask.</p>\n"
        '<div class="scroll" tabindex="0" role="region" aria-label="every track">\n'
        '<table class="tracks">\n<thead>\n<tr><td></td><td></td><td></td>'
        f"{groups}<td></td></tr>\n"
        '<tr><th scope="col">track</th><th scope="col">length</th>'
        f'<th scope="col" class="plot" aria-label="utterance SDR">{strips.axis_labels(axis)}</th>'
        f'{heads}<th scope="col">seconds</th></tr>\n</thead>\n<tbody>\n'
        f"{''.join(_line(track, condition, result, axis) for track in tracks)}"
        "</tbody>\n</table>\n</div>\n</section>\n"
    )


def problems(result: Result) -> str:
    """Every problem under its kind, and how many there are of each."""
    found: dict[str, list[Problem]] = {}
    for track in result.tracks:
        for problem in track.problems:
            found.setdefault(problem.kind, []).append(problem)
    if not found:
        body = "<p>None: every track was scored in every condition.</p>\n"
    else:
        body = "".join(
            f"<details{' open' if len(lines) <= _OPEN_PROBLEMS else ''}>"
            f"<summary>{escape(kind)}: {len(lines)}</summary>\n<ul>\n"
            f"{''.join(f'<li>{_told(problem)}</li>' for problem in lines)}\n</ul>\n</details>\n"
            for kind, lines in sorted(found.items())
        )
    return f'<section id="problems">\n<h2>Problems</h2>\n{body}</section>\n'


def _rank(track: Track, condition: str) -> float:
    sdr = estimate_value(track, condition)
    return math.inf if sdr is None else sdr


def _line(track: Track, condition: str, result: Result, axis: strips.Axis) -> str:
    scores = track.estimates.get(condition, ())
    sdr, floor = estimate_value(track, condition), reference_value(track, "gain")
    strip = strips.dumbbell(axis, start=floor, end=sdr, bound=reference_value(track, "mask"))
    over = None if sdr is None or floor is None else sdr - floor
    cells = [number(reference_value(track, "mixture")), number(floor), gain(over)]
    texts = {m: number(estimate_value(track, condition, m)) for m in result.protocols}
    if sdr is None:
        kinds = [
            problem.kind for problem in track.problems if problem.condition in (None, condition)
        ]
        reason = "silent vocals" if track.silent else next(iter(kinds), "undefined")
        texts[LEAD] = f'<span class="soft">{escape(reason)}</span>'
    seconds = [score.seconds for score in scores if score.seconds is not None]
    for group in _PROTOCOL_NAMES:
        of_group = [text for metric, text in texts.items() if METRICS[metric].group == group]
        cells += [*of_group, _frames(scores)] if of_group and group == "chunk" else of_group
    cells += [number(sum(seconds), 1) if seconds else NONE]
    return (
        f'<tr><th scope="row">{escape(track.name)}</th><td>{clock(track.audio_seconds)}</td>'
        f'<td class="plot">{strip}</td>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>\n'
    )


def _frames(scores: Sequence[Score]) -> str:
    """How many seconds the chunk metrics are the medians of, the mean over repeats."""
    counts = [score.chunk_frames for score in scores if score.chunk_frames is not None]
    return number(sum(counts) / len(counts), 0) if counts else NONE


def _told(problem: Problem) -> str:
    if problem.condition is None:
        return escape(problem.message)
    return f'{escape(problem.message)} <span class="soft">({escape(problem.condition)})</span>'
