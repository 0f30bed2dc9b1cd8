"""Scores a source of songs, each track kept in a file as soon as it is done.

Memory holds one song, and its repeats where their calibration is asked for. Several processes share
the songs by position, each writing its own files.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
import rich.console
import rich.progress

from diffsep_jax.errors import UserError
from diffsep_jax.evaluation import provenance, result_files
from diffsep_jax.evaluation.checked_audio import EstimateError
from diffsep_jax.evaluation.estimators import Advance, Estimator
from diffsep_jax.evaluation.excerpts import MOST_CONDITIONS, keep_excerpt, loudest_part
from diffsep_jax.evaluation.protocols import METRICS, PROTOCOLS
from diffsep_jax.evaluation.results import Notes, Problem, Result, Score, Track
from diffsep_jax.evaluation.scoring import (
    SILENT_VOCALS,
    Song,
    Waveform,
    score,
    score_references,
    with_calibration,
)
from diffsep_jax.evaluation.summary import summarise
from diffsep_jax.metrics import is_silent
from diffsep_jax.pages.document import printable
from diffsep_jax.runtime import LONG_BARRIER_SECONDS, is_primary, wait_for_all


@runtime_checkable
class Songs(Protocol):
    """What is needed of a source of songs; `segment` gives (vocals, accompaniment)."""

    @property
    def sample_rate(self) -> int: ...
    def __len__(self) -> int: ...
    def name(self, song: int, /) -> str: ...
    def num_samples(self, song: int, /) -> int: ...
    def segment(self, song: int, start: int, length: int, /) -> Any: ...


def track_names(songs: Songs) -> list[str]:
    """The names of the tracks. UserError unless they differ, for each names a file."""
    names = [songs.name(i) for i in range(len(songs))]
    seen: dict[str, str] = {}
    for name in names:
        key = name.casefold()  # one file, on the file systems that ignore case
        if key in seen:
            raise UserError(f"songs named {seen[key]!r} and {name!r}, expected names that differ")
        seen[key] = name
    return names


def start_anew(out: pathlib.Path) -> None:
    """Removes the files of an earlier result, and nothing else; one process does it for all.

    UserError if that cannot be.
    """
    try:
        if is_primary():
            for path in result_files.files_of_result(out):
                path.unlink()
    except OSError as error:
        raise UserError(f"{out}: cannot be cleared: {error.strerror}") from None
    wait_for_all("the result is cleared")


def evaluate(
    songs: Songs,
    estimator: Estimator,
    *,
    out: pathlib.Path,
    settings: Mapping[str, Any],
    metrics: Sequence[str],
    command: str,
    notes: Mapping[str, Notes] = MappingProxyType({}),
) -> Result | None:
    """Scores every song and writes the result; what is there of the same settings stays.

    Problems are printed as they come, those of an earlier run too, with a progress bar where
    standard error is a terminal.

    Args:
        songs: the source.
        estimator: gives the estimates.
        out: folder of the result.
        settings: all that decides the numbers.
        metrics: names, of `protocols.METRICS`; utterance_sdr, by which tracks are ranked, is one.
        command: as typed.
        notes: what the data says of its tracks, by their names; of some or all of them.

    Returns:
        The result in process 0, None in others.

    Raises:
        UserError: a file cannot be written, or is of other settings.
    """
    names = track_names(songs)
    per_track = sum(map(estimator.num_repeats, estimator.conditions))
    mine = range(jax.process_index(), len(names), jax.process_count())
    console = rich.console.Console(stderr=True, highlight=False)
    with rich.progress.Progress(
        *rich.progress.Progress.get_default_columns(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task("estimates", total=len(mine) * per_track)
        for i in mine:
            known = result_files.read_track(out, names[i], settings)
            # A bad reference, which has no scores, may have been mended.
            if (
                known
                and known.references
                and known.inputs == estimator.stamp(names[i])
                and result_files.has_excerpt(out, known)
            ):
                track = known
                bar.advance(task, per_track)
            else:
                advance: Advance = functools.partial(bar.advance, task)
                about = notes.get(names[i], Notes())
                track = score_track(songs, i, estimator, out, metrics, about, advance=advance)
                result_files.write_track(out, track, settings)
            for problem in track.problems:
                line = f"problem: {printable(problem.message)}"
                console.print(line, markup=False, soft_wrap=True)
    # A track more takes hours in a sweep.
    wait_for_all("every track is scored", LONG_BARRIER_SECONDS)
    if not is_primary():
        return None
    tracks = [_written(out, name, settings) for name in names]
    result = Result(
        settings=dict(settings),
        protocols={name: PROTOCOLS[name] for name in metrics},
        versions=provenance.versions(),
        hardware=provenance.hardware(),
        command=command,
        conditions=estimator.conditions,
        tracks=tuple(tracks),
        summary=summarise(tracks, estimator.conditions, metrics),
    )
    result_files.write_result(out, result)
    return result


def score_track(
    songs: Songs,
    position: int,
    estimator: Estimator,
    out: pathlib.Path,
    metrics: Sequence[str],
    about: Notes,
    *,
    advance: Advance,
) -> Track:
    """All scores of the song at `position`; writes its excerpt."""
    name, num_samples = songs.name(position), songs.num_samples(position)
    unscored = Track(
        name=name,
        part=about.part,
        audio_seconds=num_samples / songs.sample_rate,
        sample_rate=songs.sample_rate,
        silent=False,
        references={},
        estimates={condition.name: () for condition in estimator.conditions},
        inputs=estimator.stamp(name),
    )
    try:
        vocals, accompaniment = songs.segment(position, 0, num_samples)
        if not (np.isfinite(vocals).all() and np.isfinite(accompaniment).all()):
            raise UserError("NaN or infinity in a stem, expected finite samples")
    except UserError as error:
        advance(sum(map(estimator.num_repeats, estimator.conditions)))
        problem = Problem(kind="bad reference", message=f"{name}: {error}")
        return dataclasses.replace(unscored, problems=(problem,))
    song = Song(
        name=name,
        vocals=vocals,
        accompaniment=accompaniment,
        sample_rate=songs.sample_rate,
        bandwidth_hz=about.bandwidth_hz,
    )
    problems = []
    if is_silent(song.vocals):
        message = f"{name}: {SILENT_VOCALS}, so that only the leakage is defined"
        problems.append(Problem(kind="silent vocals", message=message))
    elif is_silent(song.accompaniment) and any(METRICS[m].group == "chunk" for m in metrics):
        message = f"{name}: the true accompaniment is silent, so that BSS Eval is undefined"
        problems.append(Problem(kind="silent accompaniment", message=message))
    estimates: dict[str, tuple[Score, ...]] = {}
    kept = estimator.conditions[: 1 if len(estimator.conditions) > MOST_CONDITIONS else None]
    heard: dict[str, Waveform] = {}
    calibrated = any(METRICS[name].group == "calibration" for name in metrics)
    for condition in estimator.conditions:
        scores: list[Score] = []
        samples: list[Waveform] = []
        try:
            for each in estimator.estimate(song, condition, advance):
                problems += [
                    dataclasses.replace(problem, condition=condition.name)
                    for problem in each.problems
                ]
                scored = score(song, each.vocals, song.mixture - each.vocals, metrics)
                scores.append(dataclasses.replace(scored, seconds=each.seconds, seed=each.seed))
                if calibrated:
                    samples.append(each.vocals)
                if condition in kept and condition.name not in heard:
                    # A copy: of a view, the whole estimate would stay.
                    heard[condition.name] = each.vocals[loudest_part(song)].copy()
        except EstimateError as error:
            advance(estimator.num_repeats(condition) - len(scores))
            heard.pop(condition.name, None)
            scores, samples = [], []  # a mean over some of the repeats would be one of others
            problems.append(Problem(kind=error.kind, message=str(error), condition=condition.name))
        estimates[condition.name] = with_calibration(song, scores, samples)
    return dataclasses.replace(
        unscored,
        silent=is_silent(song.vocals),
        references=score_references(song, metrics),
        estimates=estimates,
        problems=tuple(problems),
        excerpt=keep_excerpt(out, song, heard) if heard else None,
    )


def _written(out: pathlib.Path, name: str, settings: Mapping[str, Any]) -> Track:
    track = result_files.read_track(out, name, settings)
    if track is None:
        raise UserError(
            f"{result_files.track_file(out, name)}: not here after all processes have ended;"
            " expected --out on a file system that they share"
        )
    return track
