"""Runs compared with one of them."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import rich.box
import rich.console
import rich.table

from benchmarks.data_recipe.clips import parts_of
from diffsep_jax.errors import UserError
from diffsep_jax.evaluation.summary import bootstrap_interval


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """Compares the runs in a folder with one of them, or with the mean of several.

    Attributes:
        out: folder of the runs.
        baseline: names of the runs that the others are compared with, such as two seeds of one.
        at: which of a run's scores: 1 at the end, 0.5 after half of its time.
    """

    out: Path
    baseline: tuple[str, ...]
    at: float = 1.0


def print_table(command: Table) -> None:
    """Prints medians and paired differences with intervals."""
    runs = {path.stem: json.loads(path.read_text()) for path in sorted(command.out.glob("*.json"))}
    scores = {
        name: run["scores"][str(command.at)]
        for name, run in runs.items()
        if str(command.at) in run["scores"]
    }
    for name in command.baseline:
        if name not in scores:
            raise UserError(f"--baseline {name}: expected one of {', '.join(scores)}")
    bases = [scores[name] for name in command.baseline]
    grid = rich.table.Table("run", "CPU min", "audio h", box=rich.box.MARKDOWN)
    for part, names in parts_of(bases[0]):
        grid.add_column(f"{part} ({len(names)}), dB")
        grid.add_column(f"to {' '.join(command.baseline)}")
    columns = ("voice_kept", "band_passed", "mr_stft", "leakage_db")
    for column in columns:
        grid.add_column(column.replace("_", " "))
    for name in sorted(scores, key=lambda name: name not in command.baseline):
        spent = [runs[name].get(key) for key in ("cpu_minutes", "audio_hours")]
        row = [name, *("" if value is None else f"{value:.1f}" for value in spent)]
        for _, names in parts_of(bases[0]):
            found = [clip for clip in names if all(clip in s for s in [scores[name], *bases])]
            values = np.array([scores[name][clip]["sdr"] for clip in found])
            means = [np.mean([base[clip]["sdr"] for base in bases]) for clip in found]
            row += [f"{np.median(values):.2f}", ""] if found else ["", ""]
            if found and name not in command.baseline:
                interval = bootstrap_interval((values - means)[:, None], np.mean)
                spread = f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else ""
                row[-1] = f"{np.mean(values - means):+.2f}{spread}"
        for column in columns:
            values = np.array([clip[column] for clip in scores[name].values()], np.float64)
            row.append(f"{np.nanmedian(values):.2f}")
        grid.add_row(*row)
    rich.console.Console(width=400, highlight=False).print(grid)
