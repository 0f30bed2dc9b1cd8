"""One estimate of a song's vocals: every metric that was asked for, or why there is none."""

import dataclasses
from collections.abc import Callable, Sequence

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Song:
    """A song whose two stems are known; `sample_rate` in Hz."""

    name: str
    vocals: Waveform
    accompaniment: Waveform
    sample_rate: int

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
    if not silent:
        values = _of_the_track(song, vocals, names)
        if any(METRICS[name].group == "chunk" for name in names):
            references = np.stack([song.vocals, song.accompaniment])
            estimates = np.stack([vocals, accompaniment])
            by_frame = bss_eval(references, estimates, song.sample_rate)
            values |= median_over_frames(by_frame, 0)
            frames = num_frames_scored(by_frame)
    found = {name: values.get(name) for name in names}
    reason = SILENT_VOCALS if silent else _SILENT_FRAMES
    undefined = {name: reason for name, value in found.items() if value is None}
    return Score(metrics=found, undefined=undefined, chunk_frames=frames)


def score_references(
    song: Song, names: Sequence[str], references: Sequence[str] = tuple(REFERENCES)
) -> dict[str, Score]:
    """Scores of what stands beside every result: the mixture and the ideal ratio masks."""
    estimates: dict[str, Callable[[], tuple[Waveform, Waveform]]] = {
        # Twice the mixture, for a silent accompaniment would leave BSS Eval no frame.
        "mixture": lambda: (song.mixture, song.mixture),
        "irm1": lambda: ideal_ratio_mask(song.vocals, song.accompaniment, alpha=1),
        "irm2": lambda: ideal_ratio_mask(song.vocals, song.accompaniment, alpha=2),
    }
    return {name: score(song, *estimates[name](), names) for name in references}


def _of_the_track(song: Song, vocals: Waveform, names: Sequence[str]) -> dict[str, float | None]:
    """The metrics that need no frames; all are defined where the true vocals are not silent."""
    values: dict[str, float | None] = {}
    if "utterance_sdr" in names:
        values["utterance_sdr"] = metrics.sdr(song.vocals, vocals)
    if "si_sdr" in names:
        values["si_sdr"] = metrics.si_sdr(song.vocals, vocals)
    if "log_spectral_distance" in names:
        values["log_spectral_distance"] = metrics.log_spectral_distance(
            song.vocals, vocals, song.sample_rate
        )
    return values
