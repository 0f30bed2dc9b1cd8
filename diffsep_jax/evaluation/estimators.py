"""Where estimates come from: a model that separates, or a folder that holds them already."""

import dataclasses
import time
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
from diffsep_jax.evaluation.estimates import Estimate, EstimateFolder
from diffsep_jax.evaluation.results import Condition, Problem
from diffsep_jax.evaluation.scoring import Song
from diffsep_jax.evaluation.sweep import is_deterministic, label
from diffsep_jax.inference.separator import Separator
from diffsep_jax.inference.settings import SamplerSettings
from diffsep_jax.metrics import is_silent

Waveform = Float32[np.ndarray, "time channel"]

Advance = Callable[[int], None]
"""Told of estimates that are done, or need not be done: how many more."""


class Estimated(NamedTuple):
    """Both stems in the song's shape, what they took, and what deserves a word."""

    vocals: Waveform
    accompaniment: Waveform
    seconds: float | None
    seed: int | None
    problems: list[Problem]


@runtime_checkable
class Estimator(Protocol):
    """Gives estimates of a song's stems, one for each repeat of each condition."""

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
            vocals, accompaniment = self._separator.separate(
                mixture, song.sample_rate, overlap=self._overlap, settings=settings
            )
            seconds = time.perf_counter() - start
            name = f"{song.name}, {condition.name}, seed {settings.seed}"
            check_finite(vocals, name)
            problems = silence(vocals, name, song)
            yield Estimated(vocals, accompaniment, seconds, settings.seed, problems)
            advance(1)

    def _condition(self, point: SamplerSettings) -> Condition:
        return Condition(name=label(point), settings=dataclasses.asdict(point))

    def _seeded(self, point: SamplerSettings, repeat: int) -> SamplerSettings:
        """An ensemble takes as many seeds as it has members."""
        return dataclasses.replace(point, seed=point.seed + repeat * point.ensemble)


class FolderEstimates:
    """Estimates that are there already."""

    def __init__(self, folder: Path, tracks: list[str]) -> None:
        """Raises UserError if it is no folder, or holds an estimate of none of the tracks."""
        self._folder = EstimateFolder(folder)
        self._folder.check(tracks)

    @property
    def conditions(self) -> tuple[Condition, ...]:
        return (Condition(name=str(self._folder.folder), settings={}),)

    def num_repeats(self, condition: Condition) -> int:
        return 1

    def stamp(self, track: str) -> str:
        try:
            files = self._folder.find(track)
        except UserError as error:
            return str(error)
        return "" if files is None else files.stamp()

    def estimate(self, song: Song, condition: Condition, advance: Advance) -> Iterator[Estimated]:
        try:
            files = self._folder.find(song.name)
        except UserError as error:
            raise EstimateError("ambiguous estimate", str(error)) from None
        if files is None:
            raise EstimateError(
                "missing estimate",
                f"{song.name}: no estimate; looked for {self._folder.looked_for(song.name)}",
            )
        vocals, problems = read_estimate(files.vocals, song)
        problems += silence(vocals, str(files.vocals), song)
        accompaniment, told = _accompaniment(files, song, vocals)
        problems += told
        yield Estimated(vocals, accompaniment, None, None, problems)
        advance(1)


def _accompaniment(files: Estimate, song: Song, vocals: Waveform) -> tuple[Waveform, list[Problem]]:
    """The sum of its files; where there are none, or one is bad, the mixture less the vocals.

    It decides only which frames BSS Eval leaves out, so a bad one costs the vocals no score; nor
    does a silent one, which would leave out all of them.
    """
    instead = "mixture - vocals is taken in its place"
    stems, problems = [], []
    try:
        for path in files.accompaniment:
            stem, told = read_estimate(path, song)
            stems.append(stem)
            problems += told
    except EstimateError as error:
        message = f"{error}; {instead}"
        return song.mixture - vocals, [Problem(kind="bad accompaniment", message=message)]
    if not stems:
        return song.mixture - vocals, []
    accompaniment = sum(stems, np.zeros_like(vocals))
    if is_silent(accompaniment) and not is_silent(song.accompaniment):
        message = f"{files.accompaniment[0]}: silent, the song's is not; {instead}"
        return song.mixture - vocals, [Problem(kind="bad accompaniment", message=message)]
    return accompaniment, problems
