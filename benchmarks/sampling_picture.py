"""The plots of `benchmarks.sampling`: time against steps, and quality against time."""

import json
import pathlib
from typing import Any

from matplotlib.figure import Figure

from diffsep_jax.errors import UserError
from diffsep_jax.files import replacing

Row = dict[str, Any]

SCORE_FIELDS = {"label": str, "sampler": str, "steps": int, "sdr": float, "real_time_factor": float}


def read_scores(path: pathlib.Path) -> list[Row]:
    """The rows of a file of scores. Raises UserError, naming what is wrong with it."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: no readable JSON ({error})") from None
    if not isinstance(rows, list) or not rows:
        raise UserError(f"{path}: a list of scores is expected")
    for number, row in enumerate(rows, 1):
        for name, kind in SCORE_FIELDS.items():
            value = row.get(name) if isinstance(row, dict) else None
            fits = isinstance(value, (int, float) if kind is float else kind)
            if not fits or isinstance(value, bool):
                raise UserError(
                    f"{path}: score {number} has {name} {value!r}; a {kind.__name__} is expected"
                )
    return rows


def draw(path: pathlib.Path, runs: list[Row], scores: list[Row] | None) -> None:
    """A png: seconds for a second of audio against steps; beside it SDR against them, if scored."""
    figure = Figure(figsize=(6 if scores is None else 11, 4), layout="constrained")
    panels = figure.subplots(1, 1 if scores is None else 2, squeeze=False)[0]
    for sampler, batch_size in dict.fromkeys((r["sampler"], r["batch_size"]) for r in runs):
        chosen = sorted(
            (r["steps"], r["real_time_factor"])
            for r in runs
            if (r["sampler"], r["batch_size"]) == (sampler, batch_size)
        )
        panels[0].plot(*zip(*chosen, strict=True), "o-", label=f"{sampler}, batch {batch_size}")
    panels[0].set(xlabel="network calls T", ylabel="seconds for a second of audio", ylim=(0, None))
    panels[0].legend(fontsize=9)
    if scores is not None:
        for sampler in dict.fromkeys(row["sampler"] for row in scores):
            scored = sorted(
                (row for row in scores if row["sampler"] == sampler),
                key=lambda row: row["real_time_factor"],
            )
            points = [(row["real_time_factor"], row["sdr"]) for row in scored]
            panels[1].plot(*zip(*points, strict=True), "o-", label=sampler)
            for row, point in zip(scored, points, strict=True):
                panels[1].annotate(
                    row["label"], point, xytext=(4, 4), textcoords="offset points", fontsize=8
                )
        panels[1].set(xlabel="seconds for a second of audio", ylabel="utterance SDR, dB")
        panels[1].set_xscale("log")
        panels[1].legend(fontsize=9)
    for panel in panels:
        panel.grid(alpha=0.3)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)
