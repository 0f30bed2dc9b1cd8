"""The metrics that an evaluation knows, and the protocol behind each name: no number goes without.

The references stand beside every result: what no separation scores, and what masks can reach.
"""

import dataclasses
from typing import Literal

Group = Literal["utterance", "chunk", "spectral"]
"""Metrics of a group may share a table; utterance and chunk SDR never do."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric of the vocals of one track, in dB.

    Attributes:
        name: in result files and in Python.
        title: for people.
        group: the table that it belongs to.
        higher_is_better: False for distances.
    """

    name: str
    title: str
    group: Group
    higher_is_better: bool = True


METRICS = {
    metric.name: metric
    for metric in (
        Metric(name="utterance_sdr", title="SDR", group="utterance"),
        Metric(name="si_sdr", title="SI-SDR", group="utterance"),
        Metric(name="chunk_sdr", title="SDR", group="chunk"),
        Metric(name="chunk_isr", title="ISR", group="chunk"),
        Metric(name="chunk_sir", title="SIR", group="chunk"),
        Metric(name="chunk_sar", title="SAR", group="chunk"),
        Metric(name="log_spectral_distance", title="LSD", group="spectral", higher_is_better=False),
    )
}

GROUP_TITLES: dict[Group, str] = {
    "utterance": "utterance SDR (whole track, Sound Demixing Challenge 2023)",
    "chunk": "chunk SDR (BSS Eval v4 as museval: median over 1 s frames, then over tracks)",
    "spectral": "log-spectral distance (lower is better)",
}
"""Title of each group's table."""

PROTOCOLS = {
    "utterance_sdr": (
        "utterance SDR (Sound Demixing Challenge 2023): 10 log10((sum s^2 + 1e-7) /"
        " (sum (s - s_hat)^2 + 1e-7)) over the whole track and both channels"
    ),
    "si_sdr": (
        "SI-SDR (Le Roux et al. 2019): with one scale for the whole track and both channels, by"
        " which the reference fits the estimate best"
    ),
    "chunk_sdr": (
        "chunk SDR (BSS Eval v4 as museval 0.4.1): references {vocals, accompaniment}, 512-tap"
        " filters fitted on the whole track, windows of 1 s, median over frames"
    ),
    "chunk_isr": "image to spatial distortion ratio, by the protocol of chunk_sdr",
    "chunk_sir": "source to interference ratio, by the protocol of chunk_sdr",
    "chunk_sar": "source to artefacts ratio, by the protocol of chunk_sdr",
    "log_spectral_distance": (
        "log-spectral distance (Gray & Markel 1976): rms over bins of the difference of power"
        " spectra in dB, floor 60 dB below the reference's mean, mean over frames of 46 ms"
    ),
}
"""What each metric's number means."""

REFERENCES = {
    "mixture": "mixture as estimate",
    "irm1": "oracle, IRM 1",
    "irm2": "oracle, IRM 2",
}
"""What is scored beside every result, for people. IRM: ideal ratio mask, of alpha 1 and 2."""

OTHER_TRACKS = (
    "The rows of a metric are not all of the same tracks: those of other tracks do not compare like"
    " with like"
)
"""Said where that is so."""
