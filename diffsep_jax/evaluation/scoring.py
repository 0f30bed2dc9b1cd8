"""Scores of one estimate of a song's vocals: every requested metric, or why it is undefined."""

import concurrent.futures
import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float32

from diffsep_jax import metrics
from diffsep_jax.evaluation.bss_eval import BssEval, median_over_frames, num_frames_scored
from diffsep_jax.evaluation.oracle import ideal_ratio_mask
from diffsep_jax.evaluation.protocols import GAIN, MASK, METRICS, MIXTURE, SILENCE
from diffsep_jax.evaluation.scores import Row

Waveform = Float32[np.ndarray, "time channel"]

_THREADS = 2
"""Each takes about 1 GB for a song of four minutes."""

SILENT_VOCALS = "the true vocals are silent"
_REASONS = {
    "leakage": "no passage without vocals in which the mixture sounds",
    "chunk": "no 1 s frame in which both stems and both estimates sound",
    "calibration": "one sample of the vocals alone, or they have nothing in this band",
    "spectral": "the true vocals have nothing in this band, or end below its upper edge",
}
"""Why a metric, or one of a group, is undefined although the vocals are not silent."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Song:
    """A song whose two stems are known.

    Attributes:
        name: name of the track.
        vocals, accompaniment: the stems.
        sample_rate: sample rate in Hz.
        bandwidth_hz: highest frequency of the vocals, so that bands above have no level; None is
            half the sample rate.
    """

    name: str
    vocals: Waveform
    accompaniment: Waveform
    sample_rate: int
    bandwidth_hz: float | int | None = None

    @property
    def mixture(self) -> Waveform:
        """The sum of the stems."""
        return self.vocals + self.accompaniment

    @functools.cached_property
    def bss_eval(self) -> BssEval:
        """Scores estimates of [vocals, accompaniment]."""
        return BssEval(np.stack([self.vocals, self.accompaniment]), self.sample_rate)

    @property
    def is_mono(self) -> bool:
        """Whether all channels are equal, as when a source has read mono files."""
        return all(bool(np.all(stem == stem[:, :1])) for stem in (self.vocals, self.accompaniment))


def score(song: Song, vocals: Waveform, accompaniment: Waveform, names: Sequence[str]) -> Row:
    """Scores estimated vocals, finite and of the song's shape, by the metrics of these names.

    The estimated accompaniment decides only which frames are silent in BSS Eval.

    Returns:
        The metrics, chunk_frames if there are chunk metrics, and `undefined` if any is.
    """
    silent = metrics.is_silent(song.vocals)
    values: dict[str, float | None] = {}
    row: Row = {}
    if "leakage" in names:
        values["leakage"] = metrics.leakage_db(song.vocals, song.mixture, vocals)
    if not silent:
        values |= _of_the_track(song, vocals, names)
        if any(METRICS[name].group == "chunk" for name in names):
            by_frame, row["chunk_frames"] = _of_frames(song, vocals, accompaniment)
            values |= by_frame
    known = {name: float(x) for name, x in values.items() if x is not None and not math.isnan(x)}
    undefined = {name: undefined_reason(name, silent) for name in names if name not in known}
    row = {name: known.get(name) for name in names} | row
    return row | ({"undefined": undefined} if undefined else {})


def undefined_reason(name: str, silent: bool) -> str:
    """Why a metric is undefined; `silent` says whether the true vocals are."""
    if name == "leakage":
        return _REASONS["leakage"]
    return SILENT_VOCALS if silent else _REASONS[METRICS[name].group]


def score_anchors(song: Song, names: Sequence[str]) -> dict[str, Row]:
    """Scores of the conditions with which every estimate is compared."""
    gain = np.float32(metrics.best_gain(song.vocals, song.mixture))
    estimates: dict[str, Callable[[], tuple[Waveform, Waveform]]] = {
        SILENCE: lambda: (0 * song.mixture, song.mixture),
        # The mixture twice, as a silent accompaniment would leave BSS Eval no frame.
        MIXTURE: lambda: (song.mixture, song.mixture),
        GAIN: lambda: (gain * song.mixture, (1 - gain) * song.mixture),
        MASK: lambda: ideal_ratio_mask(song.vocals, song.accompaniment),
    }
    chunked = any(METRICS[name].group == "chunk" for name in names)
    if chunked and not metrics.is_silent(song.vocals):
        _ = song.bss_eval  # before the threads need it

    def scored(estimate: Callable[[], tuple[Waveform, Waveform]]) -> Row:
        vocals, accompaniment = estimate()
        return score(song, vocals, accompaniment, names)

    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        return dict(zip(estimates, pool.map(scored, estimates.values()), strict=True))


def with_calibration(song: Song, rows: Sequence[Row], samples: Sequence[Waveform]) -> list[Row]:
    """Adds the calibration of samples of one song's vocals to their rows; all have the same."""
    if len(samples) < 2 or metrics.is_silent(song.vocals):
        return list(rows)
    by_band = metrics.calibration(song.vocals, samples, song.sample_rate)
    values = _in_bands(song, "calibration", by_band).items()
    known = {name: float(value) for name, value in values if not math.isnan(value)}
    found = []
    for row in rows:
        undefined = {k: v for k, v in row.get("undefined", {}).items() if k not in known}
        found.append(row | known | {"undefined": undefined})
    return found


def _of_the_track(song: Song, vocals: Waveform, names: Sequence[str]) -> dict[str, float | None]:
    """The metrics of whole tracks, for vocals that are not silent."""
    measures = {name: METRICS[name].measure for name in names}
    values: dict[str, float | None] = {
        name: measure(song.vocals, vocals) for name, measure in measures.items() if measure
    }
    if any(name.startswith("level_") for name in names):
        levels = metrics.level_error_db(song.vocals, vocals, song.sample_rate)
        values.update(_in_bands(song, "level", levels))
    return values


def _in_bands(song: Song, metric: str, values: Mapping[str, float]) -> dict[str, float]:
    """The values by the metrics' names, for the bands within the vocals' bandwidth."""
    end = song.bandwidth_hz or math.inf
    return {f"{metric}_{band}": x for band, x in values.items() if metrics.BANDS[band][1] <= end}


def _of_frames(
    song: Song, vocals: Waveform, accompaniment: Waveform
) -> tuple[dict[str, float | None], int]:
    """The medians of BSS Eval over frames, and the number of these frames."""
    if not vocals.any():
        return {}, 0  # every frame is silent
    by_frame = song.bss_eval(np.stack([vocals, accompaniment]))
    return median_over_frames(by_frame, 0), num_frames_scored(by_frame)
