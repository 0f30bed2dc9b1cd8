"""Where estimates come from: a model that separates, or audio files by another program.

No file is repaired silently: an estimate with other channels or of another length is not scored,
one at another sample rate is resampled and reported.
"""

import dataclasses
import time
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffsep_jax.audio.read import AudioFile, resample_blocks
from diffsep_jax.errors import UserError
from diffsep_jax.evaluation.scoring import Song, Waveform
from diffsep_jax.evaluation.sweep import is_deterministic, label
from diffsep_jax.inference.separator import Separator
from diffsep_jax.inference.settings import SamplerSettings
from diffsep_jax.metrics import is_silent


def problem(kind: str, message: str) -> dict[str, str]:
    """An entry of a row's `problems`. `message` is one line; problems are counted by `kind`."""
    return {"kind": kind, "message": message}


class EstimateError(Exception):
    """An estimate that cannot be scored, and its problem."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.problem = problem(kind, message)


class Estimated(NamedTuple):
    """The vocals in the song's shape, the seconds they took, their seed, and their problems."""

    vocals: Waveform
    seconds: float | None = None
    seed: int | None = None
    problems: Sequence[dict[str, str]] = ()


class SeparatorEstimates:
    """Estimates by a model. Repeats differ in their seed; deterministic settings have one."""

    def __init__(
        self,
        separator: Separator,
        points: Mapping[str, SamplerSettings],
        *,
        repeats: int,
        overlap: float,
        limit_vocals: bool = True,
    ) -> None:
        """Compiles all programs, so that later timings do not include it.

        `points` are the settings by condition. Raises UserError for settings out of range.
        """
        if repeats < 1:
            raise UserError(f"repeats is {repeats}; expected at least 1")
        if repeats > 1 and all(map(is_deterministic, points.values())):
            raise UserError(
                f"repeats is {repeats}; expected 1, as these settings draw nothing and all repeats"
                " would be equal. --sampler ddim draws"
            )
        self._points, self._separator = dict(points), separator
        self._repeats, self._overlap, self._limits = repeats, overlap, limit_vocals
        for name, point in points.items():
            self._seeded(point, self.num_repeats(name) - 1)  # raises UserError if out of range
        for point in {point.sampler: point for point in points.values()}.values():
            separator.warm_up(overlap=overlap, settings=point)

    @property
    def conditions(self) -> dict[str, dict[str, Any]]:
        """The sampler's settings by condition."""
        return {name: dataclasses.asdict(point) for name, point in self._points.items()}

    def num_repeats(self, condition: str) -> int:
        """The number of estimates that `estimate` gives."""
        return 1 if is_deterministic(self._points[condition]) else self._repeats

    def stamp(self, track: str) -> str:
        """Identifies the version of a track's estimates: there is only one for equal settings."""
        return ""

    def estimate(self, song: Song, condition: str) -> Iterator[Estimated]:
        """The estimates, one after the other. Raises EstimateError at one that has NaN."""
        mixture = song.mixture
        for repeat in range(self.num_repeats(condition)):
            settings = self._seeded(self._points[condition], repeat)
            start = time.perf_counter()
            vocals, _ = self._separator.separate(
                mixture,
                song.sample_rate,
                overlap=self._overlap,
                limit_vocals=self._limits,
                settings=settings,
            )
            seconds = time.perf_counter() - start
            name = f"{song.name}, {condition}, seed {settings.seed}"
            check_finite(vocals, name)
            yield Estimated(vocals, seconds, settings.seed, silence(vocals, name, song))

    def _seeded(self, point: SamplerSettings, repeat: int) -> SamplerSettings:
        """An ensemble uses as many seeds as it has members."""
        return dataclasses.replace(point, seed=point.seed + repeat * point.ensemble)


def condition_names(
    points: Sequence[SamplerSettings], name: str | None
) -> dict[str, SamplerSettings]:
    """The points by condition: the settings, after `name` if given; `name` alone if one point."""
    if name is not None and len(points) == 1:
        return {name: points[0]}
    return {f"{name} {label(each)}" if name else label(each): each for each in points}


class FileEstimates:
    """Vocals by another program: one file for each track, found by a template of its path.

    `{track}` in the template stands for the track's name.
    """

    def __init__(self, template: str, tracks: Sequence[str], name: str | None = None) -> None:
        """Raises UserError if the template lacks {track}, or no track has a file.

        `name` is that of the condition; None: the template.
        """
        if "{track}" not in template:
            raise UserError(
                f"estimates is {template}; expected a path with {{track}} in it, for example"
                " 'separated/{track}/vocals.wav'"
            )
        self._template, self._name = template, name or template
        if not any(self._path(track).is_file() for track in tracks):
            raise UserError(
                f"estimates is {template}; expected a file for at least one of the {len(tracks)}"
                f" tracks, such as {self._path(tracks[0])}"
            )

    @property
    def conditions(self) -> dict[str, dict[str, Any]]:
        return {self._name: {}}

    def num_repeats(self, condition: str) -> int:
        return 1

    def stamp(self, track: str) -> str:
        path = self._path(track)
        if not path.is_file():
            return ""
        stat = path.stat()
        return f"{path}:{stat.st_size}:{stat.st_mtime_ns}"

    def estimate(self, song: Song, condition: str) -> Iterator[Estimated]:
        """The one estimate. Raises EstimateError if it is missing or cannot be scored."""
        path = self._path(song.name)
        if not path.is_file():
            raise EstimateError("missing estimate", f"{song.name}: no estimate at {path}")
        vocals, problems = read_estimate(path, song)
        yield Estimated(vocals, problems=[*problems, *silence(vocals, str(path), song)])

    def _path(self, track: str) -> Path:
        """The track's file; an accented letter may be encoded as one character or as two."""
        forms = (track, *(unicodedata.normalize(form, track) for form in ("NFC", "NFD")))
        paths = [Path(self._template.replace("{track}", form)) for form in forms]
        return next((path for path in paths if path.is_file()), paths[0])


Estimator = SeparatorEstimates | FileEstimates


def read_estimate(path: Path, song: Song) -> tuple[Waveform, list[dict[str, str]]]:
    """The audio in the song's shape and at its sample rate, and its problems.

    Raises EstimateError if it cannot be read, or its channels or its length are not the song's.
    """
    try:
        source = AudioFile(path)
        blocks = list(source.blocks())
    except UserError as error:
        raise EstimateError("unreadable estimate", str(error)) from None
    if not blocks:
        raise EstimateError("unreadable estimate", f"{path}: no samples")
    audio, rate = np.concatenate(blocks), source.sample_rate
    num_samples, num_channels = song.vocals.shape
    if audio.shape[1] == 1 and song.is_mono:
        audio = np.repeat(audio, num_channels, axis=1)
    if audio.shape[1] != num_channels:
        raise EstimateError(
            "channels differ",
            f"{path}: {audio.shape[1]} channels; expected {num_channels} as in the reference of"
            f" {song.name}",
        )
    expected = num_samples * rate / song.sample_rate
    # Programs round the length at another rate in different ways.
    if abs(len(audio) - expected) > (rate != song.sample_rate):
        raise EstimateError(
            "length differs",
            f"{path}: {len(audio)} samples ({len(audio) / rate:.3f} s at {rate} Hz); expected"
            f" {round(expected)} as in the reference of {song.name}",
        )
    check_finite(audio, str(path))
    if rate == song.sample_rate:
        return audio, []
    resampled = np.concatenate(list(resample_blocks([audio], rate, song.sample_rate)))
    missing = max(0, num_samples - len(resampled))
    message = f"{path}: {rate} Hz, resampled to {song.sample_rate} Hz, at which songs are scored"
    padded = np.pad(resampled, ((0, missing), (0, 0)))[:num_samples]
    return padded, [problem("sample rate differs", message)]


def check_finite(audio: Waveform, name: str) -> None:
    """Raises EstimateError at a NaN or an infinity."""
    finite = np.isfinite(audio).all(axis=1)
    if not finite.all():
        first = int(np.argmin(finite))
        raise EstimateError("NaN in the estimate", f"{name}: NaN or infinity at sample {first}")


def silence(audio: Waveform, name: str, song: Song) -> list[dict[str, str]]:
    """The problem of silent vocals where there is singing."""
    if not is_silent(audio) or is_silent(song.vocals):
        return []
    message = f"{name}: the estimate is silent, the vocals of {song.name} are not"
    return [problem("silent estimate", message)]
