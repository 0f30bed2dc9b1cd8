"""Is B better than A?  python -m diffsep_jax.evaluation.compare A B

A and B are folders that eval.py wrote, of the same songs. Prints the difference of every track.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from diffsep_jax.errors import one_line_errors
from diffsep_jax.evaluation.paired import Comparison, compare
from diffsep_jax.evaluation.protocols import GROUP_TITLES, METRICS
from diffsep_jax.evaluation.result_files import read_result
from diffsep_jax.evaluation.tables import interval
from diffsep_jax.pages.document import printable

_MOST_NAMES = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compare:
    """Says whether result B is better than result A, and whether that is more than chance.

    Attributes:
        a: folder that eval.py wrote.
        b: another, of the same songs.
        condition_a: name of A's condition, where it has several, as a sweep has.
        condition_b: likewise of B.
    """

    a: tyro.conf.Positional[Path]
    b: tyro.conf.Positional[Path]
    condition_a: str | None = None
    condition_b: str | None = None


def main(args: Sequence[str]) -> None:
    """Prints the comparison: utterance SDR track by track, the other metrics in a line each."""
    command = tyro.cli(Compare, args=args, prog="python -m diffsep_jax.evaluation.compare")
    console = Console(highlight=False)
    a, b = read_result(command.a), read_result(command.b)
    compared = compare(a, b, condition_a=command.condition_a, condition_b=command.condition_b)
    for name, folder, condition in (
        ("A", command.a, command.condition_a),
        ("B", command.b, command.condition_b),
    ):
        told = "" if condition is None else f", {condition}"
        console.print(f"{name}: {folder}{told}", markup=False)
    for name, ours, others in (("A", a, b), ("B", b, a)):
        if alone := [metric for metric in ours.protocols if metric not in others.protocols]:
            console.print(f"only in {name}, so not compared: {', '.join(alone)}", markup=False)
    for comparison in compared:
        if comparison.metric == "utterance_sdr":
            console.print(comparison_table(comparison))
        else:
            metric = METRICS[comparison.metric]
            protocol = "chunk " if metric.group == "chunk" else ""
            what = "" if metric.best is None else f", distance from {metric.best:g}"
            console.print(
                f"{protocol}{metric.title}{what}: {summary_line(comparison)}", markup=False
            )


def comparison_table(comparison: Comparison) -> Table:
    """The tracks of one metric, the most gain first, and what to think of it."""
    metric = METRICS[comparison.metric]
    table = Table(
        title=f"{metric.title}, B - A, dB: {GROUP_TITLES[metric.group]}",
        caption=Text(summary_line(comparison)),  # as Text: brackets in a name are no markup
        min_width=72,
    )
    table.add_column("track")
    table.add_column("B - A", justify="right")
    ranked = sorted(comparison.differences.items(), key=lambda item: -item[1])
    for name, difference in ranked:
        table.add_row(Text(name), f"{difference:+.2f}")
    return table


def summary_line(comparison: Comparison) -> str:
    """The comparison in a few words."""
    p_value = "" if comparison.p_value is None else f", Wilcoxon p = {comparison.p_value:.2g}"
    noise = comparison.repeat_noise
    seeds = "" if not noise else f", seeds alone ±{noise:.2f} on the mean"
    left_out = ""
    if names := comparison.left_out:
        listed = ", ".join(map(printable, names[:_MOST_NAMES]))
        more = len(names) - _MOST_NAMES
        listed += f" and {more} more" if more > 0 else ""
        left_out = f"; {len(names)} left out, without a score ({listed})"
    return (
        f"median {comparison.median:+.2f} {interval(comparison.median_interval)}, mean"
        f" {comparison.mean:+.2f}; B better on {comparison.better}, worse on"
        f" {comparison.worse} of {len(comparison.differences)}{left_out}{p_value}{seeds}:"
        f" {comparison.verdict}"
    )


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])
