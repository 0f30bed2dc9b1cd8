"""An evaluation as data: what was scored, how, and every number; `result_files` stores it."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

ProblemKind = Literal[
    "missing estimate",
    "unreadable estimate",
    "NaN in the estimate",
    "silent estimate",
    "channels differ",
    "length differs",
    "sample rate differs",
    "bad reference",
    "silent vocals",
    "silent accompaniment",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Notes:
    """What a data set may say of a song: the part that it belongs to, and its vocals' bandwidth."""

    part: str | None = None
    bandwidth_hz: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
    """What stands between a track and its score, or deserves a word beside it.

    Attributes:
        kind: by which the summary counts.
        message: one line that names the file or the track.
        condition: name of the condition that it belongs to; None is the track itself.
    """

    kind: ProblemKind
    message: str
    condition: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
    """One estimate of a track's vocals.

    Attributes:
        metrics: value by name, of those that were asked for; None where it is undefined.
        undefined: why, for each None.
        seconds: time that the separation took, without compiling; None where nothing was separated.
        seed: of the separation; None likewise.
        chunk_frames: how many 1 s frames the chunk metrics are the medians of; None where they were
            not computed.
    """

    metrics: dict[str, float | None]
    undefined: dict[str, str] = dataclasses.field(default_factory=dict)
    seconds: float | None = None
    seed: int | None = None
    chunk_frames: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Excerpt:
    """The few seconds of a track that were kept to listen to, where its vocals are loudest.

    Attributes:
        start_seconds: where in the track.
        seconds: how long.
        gain: what all files were multiplied by, at most 1, so that none clips.
        conditions: whose first repeat was kept; all that were scored, or of many the first.
    """

    start_seconds: float
    seconds: float
    gain: float
    conditions: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Track:
    """One track's scores.

    Attributes:
        name: of the track.
        part: of the data, which the summary has by itself too; None where there are no parts.
        audio_seconds: its length.
        sample_rate: in Hz.
        silent: whether the true vocals are silent, so that only the leakage is defined.
        references: scores by the names of `protocols.REFERENCES`; empty where the reference is bad.
        estimates: by the condition's name, one score for each repeat; none where a problem is why.
        problems: all of them.
        excerpt: None where no estimate could be scored.
        inputs: stamp of the files of estimates that were scored; empty for a model.
    """

    name: str
    part: str | None = None
    audio_seconds: float
    sample_rate: int
    silent: bool
    references: dict[str, Score]
    estimates: dict[str, tuple[Score, ...]]
    problems: tuple[Problem, ...] = ()
    excerpt: Excerpt | None = None
    inputs: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Condition:
    """One way to get estimates: a point of a sweep, or a template of finished files.

    Attributes:
        name: unique within a result.
        settings: the fields of SamplerSettings; empty for finished files.
    """

    name: str
    settings: dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Statistic:
    """A metric over the tracks where it is defined; None where there are none. See `statistics`.

    Attributes:
        tracks: how many those are.
        mean: over tracks, then over repeats.
        mean_interval: its 95% confidence interval by bootstrap over tracks.
        median: over tracks, then the mean over repeats.
        median_interval: likewise.
        repeat_medians: the median of each repeat, of which `median` is the mean.
        spread: standard deviation of the repeats' medians; None where there is one repeat.
        deviation: median distance from the metric's best value, as `median` taken; None for metrics
            without one.
    """

    tracks: int
    mean: float | None
    mean_interval: tuple[float, float] | None
    median: float | None
    median_interval: tuple[float, float] | None
    repeat_medians: tuple[float, ...]
    spread: float | None
    deviation: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConditionSummary:
    """One condition over all tracks.

    Attributes:
        statistics: by metric.
        over_gain: of the utterance SDR less that of the track's best constant gain.
        better_than_gain: tracks where that is above 0, in the mean over repeats.
        real_time_factor: seconds of separating for a second of audio; None for a folder.
    """

    statistics: dict[str, Statistic]
    over_gain: Statistic
    better_than_gain: int
    real_time_factor: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """All tracks in a few numbers.

    Attributes:
        tracks: in all.
        silent_tracks: of these, with silent vocals.
        audio_seconds: of all tracks.
        problems: how many of each kind.
        references: statistics by reference and metric, over the tracks on which some condition has
            the metric.
        conditions: by name.
        parts: the same of the tracks of each part, where the data has parts.
    """

    tracks: int
    silent_tracks: int
    audio_seconds: float
    problems: dict[str, int]
    references: dict[str, dict[str, Statistic]]
    conditions: dict[str, ConditionSummary]
    parts: "dict[str, Summary]" = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """A whole evaluation.

    Attributes:
        settings: all that decides the numbers. Two results of equal settings are one.
        protocols: what the number of each metric means.
        versions: of python, jax, diffsep-jax and what else the numbers come from.
        hardware: platform, device, devices, processes.
        command: as typed.
        conditions: in the order of the tables.
        tracks: in the order of the source.
        summary: of the tracks.
    """

    settings: dict[str, Any]
    protocols: dict[str, str]
    versions: dict[str, str]
    hardware: dict[str, Any]
    command: str
    conditions: tuple[Condition, ...]
    tracks: tuple[Track, ...]
    summary: Summary

    @property
    def fingerprint(self) -> str:
        """Of the settings."""
        return fingerprint(self.settings)


def fingerprint(settings: Mapping[str, Any]) -> str:
    """A name for settings: equal for equal settings, in any order."""
    text = json.dumps(settings, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
