"""Every picture of an evaluation: spectrograms, box plots over tracks, quality against time.

The pictures of a page are transparent, with grey text and lines that can be read on white and on
black, and drawn for a width of 390 pixels, so that a telephone shows them whole.
"""

import base64
import io
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from diffsep_jax.errors import UserError
from diffsep_jax.files import replacing
from diffsep_jax.pages.picture import HIGHEST_HZ, LOWEST_HZ, RANGE_DB, band_power

try:
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from matplotlib.ticker import LogLocator, NullFormatter
except ModuleNotFoundError:
    raise UserError(
        "pictures need the package matplotlib, which is not installed;"
        " pip install 'diffsep-jax[eval]'"
    ) from None

LIMIT_DB = 60.0
"""A ratio beyond it means that one of its parts is not there, as artefacts in the mixture.

On an axis it would squeeze all others together, so it is drawn as an arrow at the axis' end.
"""

INK, ACCENT, ANCHOR = "#7d7788", "#c2488c", "#7f78a6"
_WIDTH = 4.0  # inches at 96 pixels
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.parse_math": False,  # names may have dollars
    "svg.fonttype": "none",
    "svg.hashsalt": "diffsep-jax",
    "legend.frameon": False,
}

Waveform = Float32[np.ndarray, "time channel"]


def save_spectrograms(path: Path, panels: Mapping[str, Waveform], sample_rate: int) -> None:
    """Writes a png with one log spectrogram for each title, in rows of two.

    Raises UserError if the file cannot be written.
    """
    rows = -(-len(panels) // 2)
    figure = Figure(figsize=(10, 0.7 + 2.7 * rows), layout="constrained")
    grid = figure.subplots(rows, 2, sharex=True, sharey=True, squeeze=False)
    axes, unused = np.split(grid.ravel(), [len(panels)])
    for axis in unused:
        axis.remove()
    image = _draw_spectrograms(axes.tolist(), panels, sample_rate)
    figure.supxlabel("time, s", fontsize=10)
    figure.supylabel("frequency, kHz", fontsize=10)
    figure.colorbar(image, ax=axes.tolist(), label="dB below the loudest", pad=0.01, aspect=40)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)


def spectrograms(panels: Mapping[str, Waveform], sample_rate: int) -> str:
    """A png as a data URI: log spectrograms one below the other, of equal time and colours."""
    with _style():
        figure = Figure(figsize=(_WIDTH, 0.3 + 1.1 * len(panels)), layout="constrained")
        axes = figure.subplots(len(panels), 1, sharex=True, sharey=True, squeeze=False)
        _draw_spectrograms(axes.ravel().tolist(), panels, sample_rate)
        figure.supxlabel("time, s; frequency in kHz", fontsize=9)
        return _uri(figure, "png")


def _draw_spectrograms(
    axes: Sequence[Axes], panels: Mapping[str, Waveform], sample_rate: int
) -> AxesImage:
    """Draws the panels, all in dB below the loudest band of any; returns an image for the key.

    The frequency axis is logarithmic, as hearing is.
    """
    powers = {title: band_power(audio, sample_rate) for title, audio in panels.items()}
    loudest = max(float(power.max()) for power in powers.values()) or 1.0
    octaves = np.log2([LOWEST_HZ, min(HIGHEST_HZ, sample_rate / 2)])
    ticks = {np.log2(1000 * kilohertz): f"{kilohertz:g}" for kilohertz in (0.1, 0.3, 1, 3, 10)}
    for axis, (title, power) in zip(axes, powers.items(), strict=True):
        image = axis.imshow(
            10 * np.log10(power / loudest + 1e-12),
            extent=(0, len(panels[title]) / sample_rate, *octaves.tolist()),
            origin="lower",
            aspect="auto",
            vmin=-RANGE_DB,
            vmax=0,
            cmap="magma",
        )
        axis.set_title(title, fontsize=10)
        axis.set_yticks(list(ticks), list(ticks.values()))
        axis.set_ylim(*octaves)
    return image


class Box(NamedTuple):
    """One box plot: a value for each track."""

    name: str
    values: Sequence[float]
    is_anchor: bool


def boxes(rows: Sequence[Box]) -> str:
    """An svg as a data URI: box plots one below the other on one axis, each under its name.

    A box holds the middle half of the tracks, its line is the median, the whiskers reach all of
    them, and a dot is a track.
    """
    low, high = axis_limits([value for row in rows for value in row.values])
    with _style():
        figure = Figure(figsize=(_WIDTH, 0.4 + 0.42 * len(rows)), layout="constrained")
        axis = figure.subplots()
        for place, row in enumerate(rows):
            colour = ANCHOR if row.is_anchor else ACCENT
            axis.text(0, place - 0.33, _short(row.name), transform=axis.get_yaxis_transform())
            inside = [value for value in row.values if low <= value <= high]
            axis.plot(inside, np.full(len(inside), place), "o", ms=3, mew=0, alpha=0.6, c=colour)
            for end, marker, beyond in (
                (low, "<", [value for value in row.values if value < low]),
                (high, ">", [value for value in row.values if value > high]),
            ):
                if beyond:
                    axis.plot([end], [place], marker, ms=6, c=colour, clip_on=False)
            if inside:
                axis.boxplot(
                    np.clip(row.values, low, high),
                    orientation="horizontal",
                    positions=[place],
                    widths=0.36,
                    whis=(0, 100),
                    showfliers=False,
                    manage_ticks=False,
                    boxprops={"color": colour},
                    whiskerprops={"color": colour},
                    capprops={"color": colour},
                    medianprops={"color": colour, "linewidth": 2.5},
                )
        axis.set_xlim(low, high)
        axis.set_ylim(len(rows) - 0.6, -0.75)
        axis.set_yticks([])
        axis.spines["left"].set_visible(False)
        axis.grid(axis="x", color=INK, alpha=0.25)
        return _uri(figure, "svg")


def axis_limits(values: Sequence[float]) -> tuple[float, float]:
    """The ends of an axis with room for all values up to `LIMIT_DB`; there may be none."""
    known = [value for value in values if abs(value) <= LIMIT_DB] or [0.0]
    low, high = min(known), max(known)
    margin = max(0.04 * (high - low), 0.05)
    return low - margin, high + margin


class Point(NamedTuple):
    """A condition by its time and its score; those of one line are joined."""

    line: str
    steps: int | None
    real_time_factor: float
    sdr: float


def quality_against_time(points: Sequence[Point]) -> str:
    """An svg as a data URI: the score over the real-time factor, which is on a log axis."""
    lines: dict[str, list[Point]] = {}
    for point in sorted(points, key=lambda point: point.real_time_factor):
        lines.setdefault(point.line, []).append(point)
    rows = math.ceil(len(lines) / 2)
    with _style():
        figure = Figure(figsize=(_WIDTH, 3.4 + 0.17 * rows), layout="constrained")
        axis = figure.subplots()
        for i, (name, of_line) in enumerate(sorted(lines.items())):
            times = [point.real_time_factor for point in of_line]
            scores = [point.sdr for point in of_line]
            marker = "os^Dv*P"[i // 10 % 7]
            axis.plot(times, scores, marker=marker, ms=5, lw=1, c=f"C{i % 10}", label=_short(name))
        best: dict[int, Point] = {}
        for point in sorted(points, key=lambda point: -point.sdr):
            if point.steps is not None:
                best.setdefault(point.steps, point)
        for steps, point in best.items():
            place = (point.real_time_factor, point.sdr)
            axis.annotate(f"T={steps}", place, xytext=(0, 6), textcoords="offset points")
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_xlabel("real-time factor")
        axis.set_ylabel("median utterance SDR, dB")
        axis.margins(y=0.12)
        axis.grid(color=INK, alpha=0.25)
        figure.legend(loc="outside lower center", ncols=2, fontsize=8)
        return _uri(figure, "svg")


@contextmanager
def _style() -> Iterator[None]:
    """Around what is drawn and written; a letter that matplotlib lacks, the reader's font has."""
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        yield


def _short(name: str, longest: int = 48) -> str:
    text = " ".join(name.encode("utf-8", "replace").decode().split())
    return text if len(text) <= longest else f"{text[: longest - 1]}\N{HORIZONTAL ELLIPSIS}"


def _uri(figure: Figure, kind: str) -> str:
    """The picture as a data URI; equal pictures have equal bytes."""
    file = io.BytesIO()
    if kind == "svg":
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
        media_type = "image/svg+xml"
    else:
        figure.savefig(file, format="png", transparent=True, dpi=144)
        media_type = "image/png"
    return f"data:{media_type};base64,{base64.b64encode(file.getvalue()).decode()}"
