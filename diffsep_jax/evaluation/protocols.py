"""The metrics of an evaluation, each with its protocol, which is reported with every number.

A new metric of a whole track is a function in `diffsep_jax.metrics` and an entry in `_METRICS`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from diffsep_jax import metrics
from diffsep_jax.metrics import BANDS

Group = Literal["utterance", "spectral", "chunk", "calibration"]
"""Metrics of a group may share a table; utterance and chunk SDR never do."""

GROUP_TITLES: dict[Group, str] = {
    "utterance": "utterance SDR (whole track, Sound Demixing Challenge 2023)",
    "spectral": "spectra (MR-STFT: lower is better; level: 0 dB is best; leakage: lower is better)",
    "chunk": "chunk SDR (BSS Eval v4 as museval: median over 1 s frames, then over tracks)",
    "calibration": "calibration (spread of the repeats over the error of their mean: 1 is best)",
}
"""Title of each group's table."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric of the vocals of one track.

    Attributes:
        name: key in the rows of a result.
        title: heading in tables.
        group: the table that it belongs to.
        protocol: meaning of its number. Results with other protocols cannot be merged.
        higher_is_better: False for distances.
        best: the ideal value if a deviation to either side is worse; otherwise None.
        measure: (true vocals, estimate) -> value, both `[time, channel]`; None if `scoring`
            computes it together with others.
    """

    name: str
    title: str
    group: Group
    protocol: str
    higher_is_better: bool = True
    best: float | None = None
    measure: Callable[[Any, Any], float | None] | None = None

    @property
    def full_title(self) -> str:
        """The title, with the group if other metrics have the same title."""
        return f"{self.group} {self.title}" if self.title == "SDR" else self.title

    def to_compare(self, values: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """Values to compare conditions by: distances to `best` if it is set, else the values."""
        return values if self.best is None else np.abs(values - self.best)


def _by_band(name: str, group: Group, best: float, protocol: str) -> list[Metric]:
    return [
        Metric(
            name=f"{name}_{band}",
            title=f"{name} {low / 1000:g}-{high / 1000:g}k",
            group=group,
            protocol=protocol,
            higher_is_better=False,
            best=best,
        )
        for band, (low, high) in BANDS.items()
    ]


_METRICS = [
    Metric(
        name="utterance_sdr",
        title="SDR",
        group="utterance",
        protocol="utterance SDR (Sound Demixing Challenge 2023): 10 log10((sum s^2 + 1e-7) /"
        " (sum (s - s_hat)^2 + 1e-7)) over the whole track and both channels",
        measure=metrics.sdr,
    ),
    Metric(
        name="si_sdr",
        title="SI-SDR",
        group="utterance",
        protocol="SI-SDR (Le Roux et al. 2019): with one scale for the whole track and both"
        " channels, by which the reference fits the estimate best",
        measure=metrics.si_sdr,
    ),
    Metric(
        name="mr_stft",
        title="MR-STFT",
        group="spectral",
        protocol="multi-resolution STFT distance: |R - E| / |R| + mean |log R - log E| of"
        " magnitudes not below 1e-4, mean over Hann windows of 256 to 4096 samples and over"
        " channels",
        higher_is_better=False,
        measure=metrics.mr_stft,
    ),
    *_by_band(
        "level",
        "spectral",
        0.0,
        "level by band: energy of the estimate over the reference's between the frequencies named,"
        " in dB",
    ),
    Metric(
        name="leakage",
        title="leakage",
        group="spectral",
        protocol="leakage: energy of the estimate over the mixture's where the true vocals are"
        " 60 dB below the mixture's level (blocks of 2048 samples), in dB",
        higher_is_better=False,
    ),
    Metric(
        name="chunk_sdr",
        title="SDR",
        group="chunk",
        protocol="chunk SDR (BSS Eval v4 as museval 0.4.1): references {vocals, accompaniment},"
        " 512-tap filters fitted on the whole track, windows of 1 s, median over frames",
    ),
    *(
        Metric(
            name=f"chunk_{title.lower()}",
            title=title,
            group="chunk",
            protocol=f"{ratio} ratio, by the protocol of chunk_sdr",
        )
        for title, ratio in (
            ("ISR", "image to spatial distortion"),
            ("SIR", "source to interference"),
            ("SAR", "source to artefacts"),
        )
    ),
    *_by_band(
        "calibration",
        "calibration",
        1.0,
        "calibration by band: (n + 1) / n x variance of the n repeats over the squared error of"
        " their mean, between the frequencies named",
    ),
]

METRICS = {metric.name: metric for metric in _METRICS}

SILENCE, MIXTURE, GAIN, MASK = "silence", "mixture", "best constant gain", "ideal ratio mask"

ANCHORS = (SILENCE, MIXTURE, GAIN, MASK)
"""Conditions with which every estimate is compared: three that need no separation, and the best
that masking can reach. The gain is the best one for each track."""

OTHER_TRACKS = "Some rows of a metric are over different tracks (see n), and are not comparable"
"""Printed if conditions were scored on different tracks."""
