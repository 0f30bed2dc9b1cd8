"""Scores a source of songs, writing each track's rows as soon as it is done.

Memory holds one song, and its repeats if their calibration is measured. Several processes share the
songs by position.
"""

import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
import rich.console
import rich.progress

from diffsep_jax.errors import UserError
from diffsep_jax.evaluation.estimates import EstimateError, Estimator, problem
from diffsep_jax.evaluation.excerpts import MOST_CONDITIONS, keep_excerpt, loudest_part
from diffsep_jax.evaluation.protocols import ANCHORS, METRICS, MIXTURE
from diffsep_jax.evaluation.scores import (
    Result,
    Row,
    append_rows,
    collect_rows,
    read_result,
    rows_by_track,
    write_run,
)
from diffsep_jax.evaluation.scoring import (
    SILENT_VOCALS,
    Song,
    Waveform,
    score,
    score_anchors,
    with_calibration,
)
from diffsep_jax.inference.pretrained import WEIGHTS_FILE, load_config, model_file
from diffsep_jax.metrics import is_silent
from diffsep_jax.models.model import model_to_json
from diffsep_jax.runtime import LONG_BARRIER_SECONDS, is_primary, wait_for_all


@runtime_checkable
class Songs(Protocol):
    """What evaluation needs of a source; `segment` returns (vocals, accompaniment)."""

    @property
    def sample_rate(self) -> int: ...
    def __len__(self) -> int: ...
    def name(self, song: int, /) -> str: ...
    def num_samples(self, song: int, /) -> int: ...
    def segment(self, song: int, start: int, length: int, /) -> Any: ...


def track_names(songs: Songs) -> list[str]:
    """The names of the tracks. Raises UserError unless they are unique, as they name folders."""
    names = [songs.name(i) for i in range(len(songs))]
    seen: dict[str, str] = {}
    for name in names:
        key = name.casefold()  # some file systems ignore case
        if key in seen:
            raise UserError(f"songs are named {seen[key]!r} and {name!r}; expected unique names")
        seen[key] = name
    return names


def evaluate(
    songs: Songs,
    estimator: Estimator,
    *,
    out: Path,
    settings: Mapping[str, Any],
    metrics: Sequence[str],
    command: str,
    notes: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> Result | None:
    """Scores every song that has no scores in `out` yet, and reads the result.

    Prints problems, also those of an earlier run, and a progress bar if standard error is a
    terminal.

    Args:
        songs: the source.
        estimator: provides the estimates.
        out: folder of the result; see `scores.check_same_settings`.
        settings: everything that determines the numbers.
        metrics: names from `protocols.METRICS`, utterance_sdr included, which ranks tracks.
        command: the command as typed.
        notes: what the data says about its tracks, by name: part and bandwidth_hz, both optional.

    Returns:
        The result in process 0, None in others.

    Raises:
        UserError: a file cannot be read or written.
    """
    names = track_names(songs)
    if is_primary():
        run = {
            "settings": dict(settings),
            "protocols": {name: METRICS[name].protocol for name in metrics},
            "versions": versions(),
            "hardware": hardware(),
            "command": command,
            "conditions": estimator.conditions,
            "tracks": names,
        }
        write_run(out, run)
        collect_rows(out, names, lambda name, rows: _is_done(out, estimator, name, rows))
    wait_for_all("the earlier scores are collected")
    known = rows_by_track(out)
    mine = range(jax.process_index(), len(names), jax.process_count())
    console = rich.console.Console(stderr=True, highlight=False)
    with rich.progress.Progress(
        console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        for i in bar.track(mine, description="tracks"):
            name = names[i]
            if (rows := known.get(name)) is None:
                rows = score_track(songs, i, estimator, out, metrics, notes.get(name, {}))
                append_rows(out, rows)
            for each in (each for row in rows for each in row.get("problems", ())):
                console.print(f"problem: {each['message']}", markup=False, soft_wrap=True)
    # Another process may have one track more, which takes hours in a sweep.
    wait_for_all("every track is scored", LONG_BARRIER_SECONDS)
    if not is_primary():
        return None
    collect_rows(out, names, lambda name, rows: True)
    return read_result(out)


def _is_done(out: Path, estimator: Estimator, name: str, rows: Sequence[Row]) -> bool:
    """Whether every repeat has a row for the present version of its file, and its excerpt.

    A track with a bad reference is never done, as the reference may have been repaired.
    """
    expected = {(anchor, 0) for anchor in ANCHORS} | {
        (condition, repeat)
        for condition in estimator.conditions
        for repeat in range(estimator.num_repeats(condition))
    }
    stamp = estimator.stamp(name)
    files = [out / row["excerpt"]["file"] for row in rows if "excerpt" in row]
    files += [file.with_name("vocals.flac") for file in files[:1]]
    return (
        {(row["condition"], row["repeat"]) for row in rows} == expected
        and all(row.get("stamp", "") == stamp for row in rows if row["condition"] not in ANCHORS)
        and all(file.is_file() for file in files)
    )


def score_track(
    songs: Songs,
    position: int,
    estimator: Estimator,
    out: Path,
    metrics: Sequence[str],
    about: Mapping[str, Any],
) -> list[Row]:
    """The rows of the song at `position`, anchors first; writes its excerpts.

    `about` is what the data says about the track: part and bandwidth_hz, both optional.
    """
    name, num_samples = songs.name(position), songs.num_samples(position)
    facts: Row = {"audio_seconds": num_samples / songs.sample_rate}
    if part := about.get("part"):
        facts["part"] = part
    nothing: Row = {"seed": None, "seconds": None} | dict.fromkeys(metrics)

    def row(condition: str, repeat: int, **fields: Any) -> Row:
        key = {"track": name, "condition": condition, "repeat": repeat}
        return key | nothing | fields | facts

    try:
        vocals, accompaniment = songs.segment(position, 0, num_samples)
        if not (np.isfinite(vocals).all() and np.isfinite(accompaniment).all()):
            raise UserError("NaN or infinity in a stem; expected finite samples")
    except UserError as error:
        return [row(MIXTURE, 0, problems=[problem("bad reference", f"{name}: {error}")])]
    song = Song(
        name=name,
        vocals=vocals,
        accompaniment=accompaniment,
        sample_rate=songs.sample_rate,
        bandwidth_hz=about.get("bandwidth_hz"),
    )
    anchors = score_anchors(song, metrics)
    if problems := _problems_of(song, metrics):
        anchors[MIXTURE]["problems"] = problems
    rows = [row(anchor, 0, **found) for anchor, found in anchors.items()]
    kept = list(estimator.conditions)
    kept = kept[: 1 if len(kept) > MOST_CONDITIONS else None]
    heard: dict[str, Waveform] = {}
    calibrated = any(METRICS[metric].group == "calibration" for metric in metrics)
    stamp = {"stamp": stamp} if (stamp := estimator.stamp(name)) else {}
    for condition in estimator.conditions:
        scored: list[Row] = []
        samples: list[Waveform] = []
        try:
            for each in estimator.estimate(song, condition):
                found = score(song, each.vocals, song.mixture - each.vocals, metrics)
                found |= {"seed": each.seed, "seconds": each.seconds} | stamp
                if each.problems:
                    found["problems"] = list(each.problems)
                scored.append(row(condition, len(scored), **found))
                if calibrated:
                    samples.append(each.vocals)
                if condition in kept and condition not in heard:
                    # A copy: a view would keep the whole estimate in memory.
                    heard[condition] = each.vocals[loudest_part(song)].copy()
            scored = with_calibration(song, scored, samples)
        except EstimateError as error:
            heard.pop(condition, None)
            # No repeat counts: a mean over only some of them would not be comparable.
            scored = [
                row(condition, repeat, **stamp)
                for repeat in range(estimator.num_repeats(condition))
            ]
            scored[0]["problems"] = [error.problem]
        rows += scored
    if heard:
        excerpts = keep_excerpt(out, song, heard)
        for first in (first for first in rows if first["repeat"] == 0):
            if first["condition"] in excerpts:
                first["excerpt"] = excerpts[first["condition"]]
    return rows


def _problems_of(song: Song, metrics: Sequence[str]) -> list[dict[str, str]]:
    """The problems of a reference that can be used nevertheless."""
    if is_silent(song.vocals):
        message = f"{song.name}: {SILENT_VOCALS}, so only the leakage is defined"
        return [problem("silent vocals", message)]
    if is_silent(song.accompaniment) and any(METRICS[m].group == "chunk" for m in metrics):
        message = f"{song.name}: the true accompaniment is silent, so BSS Eval is undefined"
        return [problem("silent accompaniment", message)]
    return []


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that compute scores."""
    packages = ("diffsep-jax", "jax", "jaxlib", "numpy", "scipy", "soxr")
    return {"python": platform.python_version()} | {
        name: importlib.metadata.version(name) for name in packages
    }


def hardware() -> dict[str, Any]:
    """The device and machine of this process, and the number of processes."""
    device = jax.local_devices()[0]
    return {
        "platform": device.platform,
        "device": device.device_kind,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
        "cpu_cores": os.cpu_count(),
        "machine": platform.machine(),
        "system": platform.system(),
    }


def weights_digest(name_or_dir: str) -> str:
    """Identifies a model, whatever its default preset. Raises UserError if it does not exist."""
    config = model_to_json(load_config(name_or_dir))
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    with model_file(name_or_dir, WEIGHTS_FILE).open("rb") as file:
        digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]
