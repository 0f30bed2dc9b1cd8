"""Where estimates come from: a model that separates, or finished files."""

import dataclasses
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from diffsep_jax.errors import UserError
from diffsep_jax.evaluation.checked_audio import (
    EstimateError,
    check_finite,
    read_estimate,
    silence,
)
from diffsep_jax.evaluation.results import Condition, Problem
from diffsep_jax.evaluation.scoring import Song
from diffsep_jax.evaluation.sweep import is_deterministic, label
from diffsep_jax.inference.separator import Separator
from diffsep_jax.inference.settings import SamplerSettings

Waveform = Float32[np.ndarray, "time channel"]

Advance = Callable[[int], None]
"""Told of estimates that are done, or need not be done: how many more."""


class Estimated(NamedTuple):
    """The vocals in the song's shape, what they took, and what deserves a word."""

    vocals: Waveform
    seconds: float | None
    seed: int | None
    problems: list[Problem]


@runtime_checkable
class Estimator(Protocol):
    """Gives estimates of a song's vocals, one for each repeat of each condition."""

    @property
    def conditions(self) -> tuple[Condition, ...]: ...

    def num_repeats(self, condition: Condition) -> int:
        """How many estimates `estimate` gives."""
        ...

    def stamp(self, track: str) -> str:
        """Changes when a track's estimates would be others, the settings being equal."""
        ...

    def estimate(self, song: Song, condition: Condition, advance: Advance) -> Iterator[Estimated]:
        """The estimates, one after the other. Raises EstimateError if there is none to score."""
        ...


class SeparatorEstimates:
    """Estimates by a model. Repeats differ in their seed; what has none is not repeated."""

    def __init__(
        self,
        separator: Separator,
        points: Sequence[SamplerSettings],
        *,
        repeats: int,
        overlap: float,
    ) -> None:
        """Compiles what the points need, so that no time taken later includes it.

        Raises UserError for settings out of range.
        """
        if repeats < 1:
            raise UserError(f"repeats {repeats}, expected at least 1")
        if repeats > 1 and all(map(is_deterministic, points)):
            raise UserError(
                f"repeats {repeats}: these settings draw nothing, so all would be equal;"
                " expected 1, or for example sampler ddim"
            )
        self._points = {label(point): point for point in points}
        self._separator, self._repeats, self._overlap = separator, repeats, overlap
        for point in points:
            self._seeded(point, self.num_repeats(self._condition(point)) - 1)  # in range
        for point in {point.sampler: point for point in points}.values():
            separator.warm_up(overlap=overlap, settings=point)

    @property
    def conditions(self) -> tuple[Condition, ...]:
        return tuple(map(self._condition, self._points.values()))

    def num_repeats(self, condition: Condition) -> int:
        return 1 if is_deterministic(self._points[condition.name]) else self._repeats

    def stamp(self, track: str) -> str:
        return ""

    def estimate(self, song: Song, condition: Condition, advance: Advance) -> Iterator[Estimated]:
        point = self._points[condition.name]
        mixture = song.mixture
        for repeat in range(self.num_repeats(condition)):
            settings = self._seeded(point, repeat)
            start = time.perf_counter()
            vocals, _ = self._separator.separate(
                mixture, song.sample_rate, overlap=self._overlap, settings=settings
            )
            seconds = time.perf_counter() - start
            name = f"{song.name}, {condition.name}, seed {settings.seed}"
            check_finite(vocals, name)
            problems = silence(vocals, name, song)
            yield Estimated(vocals, seconds, settings.seed, problems)
            advance(1)

    def _condition(self, point: SamplerSettings) -> Condition:
        return Condition(name=label(point), settings=dataclasses.asdict(point))

    def _seeded(self, point: SamplerSettings, repeat: int) -> SamplerSettings:
        """An ensemble takes as many seeds as it has members."""
        return dataclasses.replace(point, seed=point.seed + repeat * point.ensemble)


class FileEstimates:
    """Another program's finished vocals: one file for each track, found by a template of its path.

    `{track}` in the template stands for the track's name.
    """

    def __init__(self, template: str, tracks: Sequence[str]) -> None:
        """Raises UserError if the template lacks {track}, or no track has a file."""
        if "{track}" not in template:
            raise UserError(
                f"estimates is {template}; expected a path with {{track}} in it, for example"
                " 'separated/{track}/vocals.wav'"
            )
        self._template = template
        if not any(self._path(track).is_file() for track in tracks):
            raise UserError(
                f"estimates is {template}; expected a file for at least one of the {len(tracks)}"
                f" tracks, such as {self._path(tracks[0])}"
            )

    @property
    def conditions(self) -> tuple[Condition, ...]:
        return (Condition(name=self._template, settings={}),)

    def num_repeats(self, condition: Condition) -> int:
        return 1

    def stamp(self, track: str) -> str:
        path = self._path(track)
        if not path.is_file():
            return ""
        stat = path.stat()
        return f"{path}:{stat.st_size}:{stat.st_mtime_ns}"

    def estimate(self, song: Song, condition: Condition, advance: Advance) -> Iterator[Estimated]:
        path = self._path(song.name)
        if not path.is_file():
            raise EstimateError("missing estimate", f"{song.name}: no estimate at {path}")
        vocals, problems = read_estimate(path, song)
        problems += silence(vocals, str(path), song)
        yield Estimated(vocals, None, None, problems)
        advance(1)

    def _path(self, track: str) -> Path:
        """The track's file; an accented letter in its name may be one character or two."""
        forms = (track, *(unicodedata.normalize(form, track) for form in ("NFC", "NFD")))
        paths = [Path(self._template.replace("{track}", form)) for form in forms]
        return next((path for path in paths if path.is_file()), paths[0])
