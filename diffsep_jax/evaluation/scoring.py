"""One estimate of a song's vocals: every metric that was asked for, or why there is none."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float32

from diffsep_jax import metrics
from diffsep_jax.evaluation.bss_eval import bss_eval, median_over_frames, num_frames_scored
from diffsep_jax.evaluation.oracle import ideal_ratio_mask
from diffsep_jax.evaluation.protocols import METRICS, REFERENCES
from diffsep_jax.evaluation.results import Score

Waveform = Float32[np.ndarray, "time channel"]

SILENT_VOCALS = "the true vocals are silent"
_SILENT_FRAMES = "no 1 s frame in which both stems and both estimates sound"
_ALWAYS_SUNG = "no passage without vocals in which the mixture sounds"
_NO_BAND = "the true vocals have nothing in this band, or end below its upper edge"
_UNCALIBRATED = "one sample of the vocals alone, or they have nothing in this band"


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
    bandwidth_hz: float | None = None

    @property
    def mixture(self) -> Waveform:
        """The sum of the two."""
        return self.vocals + self.accompaniment

    @property
    def seconds(self) -> float:
        """Length."""
        return len(self.vocals) / self.sample_rate


def score(
    song: Song,
    vocals: Waveform,
    accompaniment: Waveform,
    names: Sequence[str],
) -> Score:
    """Scores estimated vocals, finite and of the song's shape, by the metrics of these names.

    The estimated accompaniment decides only which frames are silent in BSS Eval.
    """
    silent = metrics.is_silent(song.vocals)
    frames = None
    values: dict[str, float | None] = {}
    if "leakage" in names:
        values["leakage"] = metrics.leakage_db(song.vocals, song.mixture, vocals)
    if not silent:
        values |= _of_the_track(song, vocals, names)
        if any(METRICS[name].group == "chunk" for name in names):
            by_frame, frames = _of_frames(song, vocals, accompaniment)
            values |= by_frame
    found: dict[str, float | None] = {}
    undefined = {}
    for name in names:
        value = values.get(name)
        found[name] = None if value is None or math.isnan(value) else value
        if found[name] is None:
            undefined[name] = _reason(name, silent)
    return Score(metrics=found, undefined=undefined, chunk_frames=frames)


def score_references(
    song: Song, names: Sequence[str], references: Sequence[str] = tuple(REFERENCES)
) -> dict[str, Score]:
    """Scores of what stands beside every result: three floors and what a mask can reach."""
    gain = np.float32(metrics.best_gain(song.vocals, song.mixture))
    estimates: dict[str, Callable[[], tuple[Waveform, Waveform]]] = {
        "silence": lambda: (0 * song.mixture, song.mixture),
        # Twice the mixture, for a silent accompaniment would leave BSS Eval no frame.
        "mixture": lambda: (song.mixture, song.mixture),
        "gain": lambda: (gain * song.mixture, (1 - gain) * song.mixture),
        "mask": lambda: ideal_ratio_mask(song.vocals, song.accompaniment),
    }
    return {name: score(song, *estimates[name](), names) for name in references}


def with_calibration(
    song: Song, scores: Sequence[Score], samples: Sequence[Waveform]
) -> tuple[Score, ...]:
    """The scores of samples of one song's vocals with their calibration, which is one for all."""
    if len(samples) < 2 or metrics.is_silent(song.vocals):
        return tuple(scores)
    values = metrics.calibration(song.vocals, samples, song.sample_rate)
    by_name = _in_bands(song, "calibration", values).items()
    known: dict[str, float | None] = {name: x for name, x in by_name if not math.isnan(x)}
    return tuple(
        dataclasses.replace(
            each,
            metrics=each.metrics | known,
            undefined={name: why for name, why in each.undefined.items() if name not in known},
        )
        for each in scores
    )


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


def _reason(name: str, silent: bool) -> str:
    if name == "leakage":
        return _ALWAYS_SUNG
    if silent:
        return SILENT_VOCALS
    group = METRICS[name].group
    return {"chunk": _SILENT_FRAMES, "calibration": _UNCALIBRATED}.get(group, _NO_BAND)
