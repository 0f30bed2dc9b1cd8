"""One estimate of a song's vocals: every metric that was asked for, or why there is none."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float32

from diffsep_jax import metrics
from diffsep_jax.evaluation.bss_eval import bss_eval, median_over_frames, num_frames_scored
from diffsep_jax.evaluation.oracle import ideal_ratio_mask
from diffsep_jax.evaluation.protocols import GAIN, MASK, METRICS, MIXTURE, SILENCE
from diffsep_jax.evaluation.scores import Row

Waveform = Float32[np.ndarray, "time channel"]

SILENT_VOCALS = "the true vocals are silent"
_REASONS = {
    "leakage": "no passage without vocals in which the mixture sounds",
    "chunk": "no 1 s frame in which both stems and both estimates sound",
    "calibration": "one sample of the vocals alone, or they have nothing in this band",
    "spectral": "the true vocals have nothing in this band, or end below its upper edge",
}
"""Why a metric, or one of a group, is undefined where the vocals are not silent."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Song:
    """A song whose two stems are known; `sample_rate` in Hz.

    `bandwidth_hz` is where its vocals end, which leaves the bands above without a level; None is
    half the sample rate.
    """

    name: str
    vocals: Waveform
    accompaniment: Waveform
    sample_rate: int
    bandwidth_hz: float | int | None = None

    @property
    def mixture(self) -> Waveform:
        """The sum of the two."""
        return self.vocals + self.accompaniment


def score(song: Song, vocals: Waveform, accompaniment: Waveform, names: Sequence[str]) -> Row:
    """Scores estimated vocals, finite and of the song's shape, by the metrics of these names.

    The estimated accompaniment decides only which frames are silent in BSS Eval.

    Returns:
        The metrics, chunk_frames where chunk metrics were asked for, and undefined where one is.
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
    undefined = {}
    found: Row = {}
    for name in names:
        value = values.get(name)
        found[name] = None if value is None or math.isnan(value) else float(value)
        if found[name] is None:
            undefined[name] = undefined_reason(name, silent)
    return found | row | ({"undefined": undefined} if undefined else {})


def undefined_reason(name: str, silent: bool) -> str:
    """Why a metric is undefined; `silent` says whether the true vocals are."""
    if name == "leakage":
        return _REASONS["leakage"]
    return SILENT_VOCALS if silent else _REASONS[METRICS[name].group]


def score_anchors(song: Song, names: Sequence[str]) -> dict[str, Row]:
    """Scores of the conditions that stand beside every other one."""
    gain = np.float32(metrics.best_gain(song.vocals, song.mixture))
    estimates: dict[str, Callable[[], tuple[Waveform, Waveform]]] = {
        SILENCE: lambda: (0 * song.mixture, song.mixture),
        # Twice the mixture, for a silent accompaniment would leave BSS Eval no frame.
        MIXTURE: lambda: (song.mixture, song.mixture),
        GAIN: lambda: (gain * song.mixture, (1 - gain) * song.mixture),
        MASK: lambda: ideal_ratio_mask(song.vocals, song.accompaniment),
    }
    return {name: score(song, *estimate(), names) for name, estimate in estimates.items()}


def with_calibration(song: Song, rows: Sequence[Row], samples: Sequence[Waveform]) -> list[Row]:
    """The rows of samples of one song's vocals with their calibration, which is one for all."""
    if len(samples) < 2 or metrics.is_silent(song.vocals):
        return list(rows)
    by_band = metrics.calibration(song.vocals, samples, song.sample_rate)
    values = _in_bands(song, "calibration", by_band).items()
    known = {name: float(value) for name, value in values if not math.isnan(value)}
    return [
        row
        | known
        | {"undefined": {k: v for k, v in row.get("undefined", {}).items() if k not in known}}
        for row in rows
    ]


def _of_the_track(song: Song, vocals: Waveform, names: Sequence[str]) -> dict[str, float | None]:
    """The metrics that need no frames, of a track whose vocals are not silent."""
    values: dict[str, float | None] = {}
    if "utterance_sdr" in names:
        values["utterance_sdr"] = metrics.sdr(song.vocals, vocals)
    if "si_sdr" in names:
        values["si_sdr"] = metrics.si_sdr(song.vocals, vocals)
    if "mr_stft" in names:
        values["mr_stft"] = metrics.mr_stft(song.vocals, vocals)
    if any(name.startswith("level_") for name in names):
        levels = metrics.level_error_db(song.vocals, vocals, song.sample_rate)
        values.update(_in_bands(song, "level", levels))
    return values


def _in_bands(song: Song, metric: str, values: Mapping[str, float]) -> dict[str, float]:
    """The values by the metrics' names, of the bands that the vocals fill."""
    end = song.bandwidth_hz or math.inf
    return {f"{metric}_{band}": x for band, x in values.items() if metrics.BANDS[band][1] <= end}


def _of_frames(
    song: Song, vocals: Waveform, accompaniment: Waveform
) -> tuple[dict[str, float | None], int]:
    """The medians of BSS Eval, and how many frames they are of."""
    if not vocals.any():
        return {}, 0  # every frame is silent
    references = np.stack([song.vocals, song.accompaniment])
    by_frame = bss_eval(references, np.stack([vocals, accompaniment]), song.sample_rate)
    return median_over_frames(by_frame, 0), num_frames_scored(by_frame)
