"""Every picture, by matplotlib: spectrograms, and quality against time.

They are transparent, with grey text and lines that are legible on white and on black, and sized for
a width of 390 pixels, so that they fit a phone screen.
"""

import io
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import scipy.signal
from jaxtyping import Float, Float32

from diffsep_jax.errors import UserError

try:
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter
except ModuleNotFoundError:
    raise UserError(
        "pictures need the package matplotlib, which is not installed; pip install matplotlib"
    ) from None

LOWEST_HZ, HIGHEST_HZ = 60.0, 16_000.0
RANGE_DB = 70.0
"""The frequencies and the levels that a spectrogram shows."""

_WINDOW, _BANDS, _FRAMES = 4096, 128, 430

INK = "#7d7788"
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


def band_power(audio: Waveform, sample_rate: int) -> Float[np.ndarray, "band frame"]:
    """Mean power over channels in 128 bands of equal width in octaves, the lowest band first.

    Frame i is centred on sample i x hop; the hop is such that there are at most 430 frames.
    """
    hop = -(-len(audio) // _FRAMES)
    num_frames = -(-len(audio) // hop)
    window = scipy.signal.get_window("hann", _WINDOW)
    transform = scipy.signal.ShortTimeFFT(window, hop, sample_rate)
    audio = np.pad(audio, ((0, max(0, _WINDOW - len(audio))), (0, 0)))  # scipy refuses less
    spectrum = transform.stft(audio, axis=0, p0=0, p1=num_frames)
    power = np.square(np.abs(spectrum)).mean(axis=1)
    # A band may be narrower than a bin, or hold many: integrate, then take differences.
    integral = np.pad(np.cumsum(power, axis=0), ((1, 0), (0, 0)))
    edges = np.geomspace(LOWEST_HZ, min(HIGHEST_HZ, sample_rate / 2), _BANDS + 1)
    bins = edges * _WINDOW / sample_rate
    below = bins.astype(int)
    share = (bins - below)[:, None]
    at_edges = (1.0 - share) * integral[below] + share * integral[below + 1]
    return np.diff(at_edges, axis=0) / np.diff(bins)[:, None]


def spectrograms(panels: Mapping[str, Waveform], sample_rate: int, columns: int = 1) -> bytes:
    """A PNG with a log spectrogram under each title, on one scale of time and one of colours.

    Colours span `RANGE_DB` below the loudest band of the first panel; the frequency axis is
    logarithmic, as hearing is.
    """
    powers = {title: band_power(audio, sample_rate) for title, audio in panels.items()}
    loudest = float(next(iter(powers.values())).max()) or 1.0
    octaves = np.log2([LOWEST_HZ, min(HIGHEST_HZ, sample_rate / 2)])
    ticks = {np.log2(1000 * kilohertz): f"{kilohertz:g}" for kilohertz in (0.1, 0.3, 1, 3, 10)}
    rows = -(-len(panels) // columns)
    with _style():
        figure = Figure(
            figsize=(_WIDTH * columns, 0.3 + 1.1 * columns * rows), layout="constrained"
        )
        axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
        for axis in axes[len(panels) :]:
            axis.remove()
        for axis, (title, power) in zip(axes, powers.items(), strict=False):
            axis.imshow(
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
        figure.supxlabel("time, s; frequency in kHz", fontsize=9)
        return _saved(figure, format="png", dpi=160)


class Point(NamedTuple):
    """A condition by its time and its score; those of one line are joined."""

    line: str
    steps: int | None
    real_time_factor: float
    sdr: float


def quality_against_time(points: Sequence[Point]) -> bytes:
    """An SVG: the score over the real-time factor, which is on a log axis."""
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
        return _saved(figure, format="svg", metadata={"Date": None})


@contextmanager
def _style() -> Iterator[None]:
    """Applies to drawing and saving. The reader's font has the letters that matplotlib lacks."""
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        yield


def _short(name: str, longest: int = 48) -> str:
    text = " ".join(name.encode("utf-8", "replace").decode().split())
    return text if len(text) <= longest else f"{text[: longest - 1]}\N{HORIZONTAL ELLIPSIS}"


def _saved(figure: Figure, **options: Any) -> bytes:
    """The file's content; equal pictures have equal bytes."""
    file = io.BytesIO()
    figure.savefig(file, transparent=True, **options)
    return file.getvalue()
