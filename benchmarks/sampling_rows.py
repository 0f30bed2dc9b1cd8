"""The rows of the sampling benchmark: read, printed, written as JSON, csv, Markdown and a page."""

import csv
import io
import json
from pathlib import Path
from typing import Any

from diffsep_jax import pages
from diffsep_jax.errors import UserError
from diffsep_jax.evaluation.protocols import METRICS
from diffsep_jax.evaluation.summary import LEAD
from diffsep_jax.evaluation.sweep import line_and_steps
from diffsep_jax.evaluation.tables import Table, decibels, interval, markdown
from diffsep_jax.files import make_folder, write_bytes

Row = dict[str, Any]
"""A point of the grid with a batch size; `benchmarks.sampling.main` has the keys."""

METRIC_NAMES = tuple(
    name for name, metric in METRICS.items() if metric.group in ("utterance", "spectral")
)

FORMAT = 1


def read(path: Path) -> dict[str, Any]:
    """Reads a run's rows.json. Raises UserError if the file is missing or is not one."""
    try:
        run: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if run["format"] != FORMAT:
            raise UserError(f"{path}: format is {run['format']}; expected {FORMAT}.")
        return run
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path}: expected the rows.json of benchmarks.sampling") from None


def show(run: dict[str, Any], earlier: dict[str, Any] | None) -> None:
    """Prints the tables of a run as Markdown, and what they were measured on."""
    print(_markdown(run, earlier))


def write(out: Path, run: dict[str, Any], earlier: dict[str, Any] | None) -> None:
    """Writes rows.json, rows.csv, rows.md and index.html. UserError if one cannot be written."""
    make_folder(out)
    text = json.dumps({"format": FORMAT} | run, indent=2, allow_nan=False)
    write_bytes(out / "rows.json", f"{text}\n".encode())
    write_bytes(out / "rows.csv", _csv(run).encode())
    write_bytes(out / "rows.md", f"{_markdown(run, earlier)}\n".encode())
    print(f"wrote {out / 'rows.json'}, rows.csv and rows.md")
    if missing := pages.missing_packages():
        print(f"note: {missing}; no page was written")
        return
    page = pages.render(
        "benchmarks",
        "sampling.html.jinja",
        title=f"Sampling with {run['model']}",
        facts=facts(run),
        plot=_plot(run),
        tables=tables(run, earlier),
    )
    write_bytes(out / "index.html", page.encode())
    print(f"look at {out / 'index.html'}")


def _markdown(run: dict[str, Any], earlier: dict[str, Any] | None) -> str:
    notes = "\n".join(f"- {fact}" for fact in facts(run))
    return "\n".join(map(markdown, tables(run, earlier))) + f"\n{notes}"


def tables(run: dict[str, Any], earlier: dict[str, Any] | None) -> list[Table]:
    """Speed, quality if songs were scored, and the comparison with an earlier run."""
    found = [_speed(run)]
    if run["data"] is not None:
        found.append(_quality(run))
    if earlier is not None:
        found.append(_comparison(run, earlier))
    return found


def facts(run: dict[str, Any]) -> list[str]:
    """What the figures were measured on, a line each."""
    rows, versions = run["rows"], run["versions"]
    return [
        f"{run['devices']}, jax {versions['jax']}, {run['dtype']}, chunks of"
        f" {run['segment_seconds']:.2f} s without overlap; {run['busy']:.1f} processes running or"
        " waiting (a minute's mean)",
        f"{run['programs']} programs compiled for {len(rows)} rows: all settings but the sampler"
        " are arguments",
        f"a matrix product of 2048 x 2048 reaches {run['matmul_flops'] / 1e9:.0f} GFLOP/s on one"
        " device, which on a CPU means all cores; peak: share of that on all devices of the row",
        f"peak memory {run['peak_bytes'] / 1e6:.0f} MB",
        "ms/chunk: median of the turns, with the fastest and the slowest; RTF: seconds of work per"
        " second of audio; conditioner: its share of the time; temporaries: on each device",
        "GFLOP: as written, before the compiler's changes; loops inside a step counted once",
    ]


def _speed(run: dict[str, Any]) -> Table:
    header = ["sampler", "batch", "ms/chunk", "fastest, slowest", "RTF", "conditioner"]
    header += ["GFLOP/chunk", "peak", "temporaries", "compiled in"]
    cells = []
    for row in run["rows"]:
        batch = row["batch_size"]
        low, high = (1000 * row[f"seconds_{end}"] / batch for end in ("lowest", "highest"))
        cells.append(
            [
                row["name"],
                str(batch),
                f"{1000 * row['seconds'] / batch:.4g}",
                f"{low:.4g}, {high:.4g}",
                f"{row['real_time_factor']:.3g}",
                f"{row['conditioner_share']:.0%}",
                f"{row['flops'] / batch / 1e9:.3g}",
                f"{row['share_of_matmul']:.0%}",
                f"{row['temporary_bytes'] / 1e6:.0f} MB",
                f"{row['compile_seconds']:.1f} s{' (cached)' if row['compile_cached'] else ''}",
            ]
        )
    return Table(f"speed of {run['model']}", header, cells)


def _quality(run: dict[str, Any]) -> Table:
    header = ["sampler", *(METRICS[name].title for name in METRIC_NAMES)]
    cells = {
        row["name"]: [row["name"], *(_cell(row["quality"].get(name)) for name in METRIC_NAMES)]
        for row in run["rows"]
    }
    title = f"quality on {run['data']}: medians, with 95% intervals by bootstrap over tracks"
    return Table(title, header, list(cells.values()))


def _cell(found: list[float] | None) -> str:
    return "-" if found is None else f"{decibels(found[0])} {interval((found[1], found[2]))}"


def _comparison(run: dict[str, Any], earlier: dict[str, Any]) -> Table:
    """Rows that both runs have; a ratio below 1 is faster than before."""
    before = {(row["name"], row["batch_size"]): row for row in earlier["rows"]}
    cells = []
    for row in run["rows"]:
        if (other := before.get((row["name"], row["batch_size"]))) is None:
            continue
        pair = [each["quality"].get(LEAD, [None])[0] for each in (row, other)]
        gain = "" if None in pair else f"{pair[0] - pair[1]:+.2f}"
        ratio = row["real_time_factor"] / other["real_time_factor"]
        cells.append([row["name"], str(row["batch_size"]), f"{ratio:.2f}", gain])
    title = f"against {earlier['model']} on {earlier['devices']}"
    return Table(title, ["sampler", "batch", "RTF, ratio", "utterance SDR, dB"], cells)


def _csv(run: dict[str, Any]) -> str:
    """A line for each row: settings, times, and each metric with its interval."""
    lines = []
    for row in run["rows"]:
        line = {key: value for key, value in row.items() if key not in ("settings", "quality")}
        line |= row["settings"]
        for metric in METRIC_NAMES:
            values = row["quality"].get(metric, [None] * 3)
            names = (metric, f"{metric}_low", f"{metric}_high")
            line |= dict(zip(names, values, strict=True))
        lines.append(line)
    file = io.StringIO()
    writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return file.getvalue()


def _plot(run: dict[str, Any]) -> str | None:
    """Quality against time, if songs were scored."""
    from diffsep_jax import plots

    batches = {row["batch_size"] for row in run["rows"]}
    points = []
    for row in run["rows"]:
        if LEAD in row["quality"]:
            line, steps = line_and_steps(row["name"], row["settings"])
            line += f", batch {row['batch_size']}" if len(batches) > 1 else ""
            median = row["quality"][LEAD][0]
            points.append(plots.Point(line, steps, row["real_time_factor"], median))
    if not points:
        return None
    return pages.data_uri("image/svg+xml", plots.quality_against_time(points))
