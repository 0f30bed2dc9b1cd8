"""Scores as rows, and the folder that keeps them.

OUT/scores.jsonl has one line for each estimate of a track's vocals, a JSON object:

    track, condition   which track, and whose estimate; silence, the mixture, the best constant gain
                       and the ideal ratio mask (`protocols.ANCHORS`) are conditions like any other
    repeat, seed       0, 1, ...; the seed is null if nothing was drawn
    seconds            of separating, without compiling; null if nothing was separated
    audio_seconds      length of the track
    <metric>           a value, or null if it is undefined
    undefined          {metric: reason} for each null
    chunk_frames       number of 1 s frames of which the chunk metrics are medians
    part               of the data, if it has parts
    problems           [{kind, message}], if there are any
    excerpt            {file, start_seconds, gain}, if a few seconds were kept
    stamp              of the file that was scored; changes with the file

OUT/run.json has settings, protocols, versions, hardware, command, conditions and tracks. Each host
of a run writes a file of its own, scores-I.jsonl; they are merged when all hosts have finished.
"""

import dataclasses
import functools
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from diffsep_jax.errors import UserError
from diffsep_jax.evaluation.protocols import ANCHORS, MIXTURE
from diffsep_jax.files import make_folder, write_bytes, write_errors

Row = dict[str, Any]

RUN_FILE, SCORES_FILE, REPORT_FILE = "run.json", "scores.jsonl", "report.html"

FORMAT = 5
"""Incremented when earlier results can no longer be read."""

# The same audio has the same length in seconds and the same score of the mixture up to rounding.
_SAME_AUDIO = 1e-3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """An evaluation, or several of the same songs.

    Attributes:
        runs: contents of run.json by folder; several if results were merged.
        protocols: meaning of each metric's number.
        conditions: sampler settings by condition, without the anchors; empty for files of other
            programs.
        tracks: names, in the order of the source.
        rows: scores of these tracks; the file of an excerpt is a path that can be opened.
    """

    runs: dict[str, dict[str, Any]]
    protocols: dict[str, str]
    conditions: dict[str, dict[str, Any]]
    tracks: tuple[str, ...]
    rows: tuple[Row, ...]

    @functools.cached_property
    def _rows_of(self) -> dict[tuple[str, str], list[Row]]:
        found: dict[tuple[str, str], list[Row]] = {}
        for row in self.rows:
            found.setdefault((row["condition"], row["track"]), []).append(row)
        return found

    def repeats(self, condition: str, track: str) -> list[Row]:
        """The rows of a track's repeats."""
        return self._rows_of.get((condition, track), [])

    def values(self, condition: str, metric: str) -> dict[str, Float[np.ndarray, "repeat"]]:
        """The metric by track, for the tracks that have it in every repeat."""
        found = {}
        for track in self.tracks:
            values = [row.get(metric) for row in self.repeats(condition, track)]
            if values and None not in values:
                found[track] = np.array(values, np.float64)
        return found

    @functools.cached_property
    def parts(self) -> dict[str, tuple[str, ...]]:
        """Tracks by part: all tracks under "", then those of each part of the data, sorted."""
        part_of = {row["track"]: row.get("part") for row in self.rows}
        parts = sorted({part for part in part_of.values() if part})
        return {"": self.tracks} | {
            part: tuple(track for track in self.tracks if part_of[track] == part) for part in parts
        }

    @functools.cached_property
    def audio_seconds(self) -> dict[str, float]:
        """Length of each track."""
        return {row["track"]: row["audio_seconds"] for row in self.rows}

    @property
    def problems(self) -> list[Row]:
        """Every problem: track, condition, kind and message."""
        return [
            {"track": row["track"], "condition": row["condition"]} | problem
            for row in self.rows
            for problem in row.get("problems", ())
        ]

    def renamed(self, names: Mapping[str, str]) -> "Result":
        """Only the anchors and the conditions in `names`, under the names that it maps them to."""
        new = {anchor: anchor for anchor in ANCHORS} | dict(names)
        rows = [row for row in self.rows if row["condition"] in new]
        return dataclasses.replace(
            self,
            conditions={names[old]: self.conditions[old] for old in names},
            rows=tuple(row | {"condition": new[row["condition"]]} for row in rows),
        )


def merge(results: Sequence[Result]) -> Result:
    """Results of the same songs as one, with the metrics that all of them have.

    Raises UserError if tracks, audio or protocols differ, or two conditions have the same name.
    """
    first, *others = results
    merged = first
    for other in others:
        _check_same_songs(first, other)
        if shared := merged.conditions.keys() & other.conditions.keys():
            raise UserError(f"the condition {min(shared)} is in two results; expected other names")
        common = {name: text for name, text in merged.protocols.items() if name in other.protocols}
        for metric, text in common.items():
            if other.protocols[metric] != text:
                raise UserError(
                    f"the protocol of {metric} is {text!r} in {_name(first)} and"
                    f" {other.protocols[metric]!r} in {_name(other)}; expected the same. Score"
                    " one of them again"
                )
        merged = dataclasses.replace(
            merged,
            runs=merged.runs | other.runs,
            protocols=common,
            conditions=merged.conditions | other.conditions,
            rows=(*merged.rows, *(row for row in other.rows if row["condition"] not in ANCHORS)),
        )
    return merged


def _name(result: Result) -> str:
    return ", ".join(result.runs)


def _check_same_songs(a: Result, b: Result) -> None:
    if a.tracks != b.tracks:
        alone = sorted(set(a.tracks) ^ set(b.tracks))
        what = f"{alone[0]} is in only one of them" if alone else "their order differs"
        raise UserError(
            f"the tracks of {_name(a)} and {_name(b)} differ ({len(a.tracks)} and"
            f" {len(b.tracks)}): {what}; expected results of the same songs"
        )
    for track in a.tracks:
        for key, name in (
            ("audio_seconds", "audio_seconds"),
            ("utterance_sdr", "the mixture's utterance SDR"),
        ):
            left, right = (each.repeats(MIXTURE, track)[0][key] for each in (a, b))
            known = left is not None and right is not None  # not of songs that could not be read
            if known and abs(left - right) > _SAME_AUDIO:
                raise UserError(
                    f"{track} differs: {name} is {left} in {_name(a)} and {right} in {_name(b)};"
                    " expected results of the same audio"
                )


def read_result(out: Path) -> Result:
    """Reads an evaluation. Raises UserError if it is missing, incomplete or damaged."""
    path = out / RUN_FILE
    if not path.is_file():
        raise UserError(f"{out} has no {RUN_FILE}; expected a folder that eval.py wrote")
    run = _read_run(path)
    by_track = rows_by_track(out)
    with _damage_reported(path):
        tracks, conditions, command = run["tracks"], run["conditions"], run["command"]
        missing = [track for track in tracks if track not in by_track]
        if missing:
            raise UserError(
                f"{out}: {len(missing)} of {len(tracks)} tracks have no scores, such as"
                f" {missing[0]}; run its command again: {command}. Several hosts need an --out"
                " that all of them can write to"
            )
        rows = [row for track in tracks for row in by_track[track]]
        for row in rows:
            if excerpt := row.get("excerpt"):
                row["excerpt"] = excerpt | {"file": str(out / excerpt["file"])}
        return Result(
            runs={str(out): run},
            protocols=run["protocols"],
            conditions=conditions,
            tracks=tuple(tracks),
            rows=tuple(rows),
        )


def check_same_settings(
    out: Path, settings: Mapping[str, Any], hint: str = "--overwrite replaces them"
) -> None:
    """Raises UserError, which ends with `hint`, if the folder holds a result of other settings."""
    path = out / RUN_FILE
    if not path.is_file():
        return
    found, ours = _read_run(path).get("settings", {}), json.loads(json.dumps(settings))
    differ = [key for key in found | ours if found.get(key) != ours.get(key)]
    if differ:
        raise UserError(
            f"{out} holds results of other settings ({', '.join(differ)}); expected another --out."
            f" {hint}"
        )


def remove_result(out: Path) -> None:
    """Removes the files of a result, and no others."""
    stems = ("mixture", "vocals", "estimate", "estimate *")
    excerpts = [path for stem in stems for path in out.glob(f"excerpts/*/{stem}.flac")]
    for path in (out / RUN_FILE, out / REPORT_FILE, *_score_files(out), *excerpts):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"{path}: cannot be removed: {error.strerror}") from None


def write_run(out: Path, run: Mapping[str, Any]) -> None:
    """Writes run.json. Raises UserError if it cannot be written."""
    text = json.dumps({"format": FORMAT} | dict(run), indent=2, allow_nan=False)
    write_bytes(out / RUN_FILE, f"{text}\n".encode())


def append_rows(out: Path, rows: Iterable[Row]) -> None:
    """Adds a track's rows to this process's file. Raises UserError if that fails."""
    one = jax.process_count() == 1
    path = out / (SCORES_FILE if one else f"scores-{jax.process_index()}.jsonl")
    make_folder(out)
    with write_errors(path), path.open("ab") as file:
        file.write(_lines(rows))
        file.flush()
        os.fsync(file.fileno())


def collect_rows(
    out: Path, tracks: Sequence[str], is_kept: Callable[[str, list[Row]], bool]
) -> None:
    """Merges the rows of all files into scores.jsonl, in the order of `tracks`.

    Rows of tracks for which `is_kept` is False are dropped. Only one process may do this, while no
    process appends rows.
    """
    found = rows_by_track(out)
    kept = [
        row
        for track in tracks
        if track in found and is_kept(track, found[track])
        for row in found[track]
    ]
    write_bytes(out / SCORES_FILE, _lines(kept))
    for path in _score_files(out):
        if path.name != SCORES_FILE:
            path.unlink(missing_ok=True)


def rows_by_track(out: Path) -> dict[str, list[Row]]:
    """The rows of all files by track; of duplicates, the last one.

    A last line without a line break is ignored: the process was killed while writing it.
    """
    rows: dict[tuple[str, str, int], Row] = {}
    for path in _score_files(out):
        with _damage_reported(path):
            *lines, _ = path.read_text(encoding="utf-8", errors="replace").split("\n")
            for row in map(json.loads, lines):
                rows[row["track"], row["condition"], row["repeat"]] = row
    found: dict[str, list[Row]] = {}
    for row in rows.values():
        found.setdefault(row["track"], []).append(row)
    return found


def _lines(rows: Iterable[Row]) -> bytes:
    return "".join(f"{json.dumps(row, allow_nan=False)}\n" for row in rows).encode()


def _score_files(out: Path) -> list[Path]:
    numbered = sorted(p for p in out.glob("scores-*.jsonl") if re.fullmatch(r"scores-\d+", p.stem))
    return [path for path in (out / SCORES_FILE, *numbered) if path.is_file()]


def _read_run(path: Path) -> dict[str, Any]:
    with _damage_reported(path):
        run: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if (found := run["format"]) != FORMAT:
            raise UserError(f"{path}: format is {found}; expected {FORMAT}. Score again")
        return run


@contextmanager
def _damage_reported(path: Path) -> Iterator[None]:
    """Values that are missing or of another type become a UserError that blames the file."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except UserError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: not a result of eval.py ({error}); remove it and score again"
        ) from None
