"""Scores as rows, and the folder that keeps them.

OUT/scores.jsonl has a line for each estimate of a track's vocals, a JSON object:

    track, condition   whose estimate of what; silence, the mixture, the best constant gain and the
                       ideal ratio mask (`protocols.ANCHORS`) are conditions like any other
    repeat, seed       0, 1, ...; the seed is null where nothing was drawn
    seconds            that the separation took, without compiling; null where nothing was separated
    audio_seconds      length of the track
    <metric>           a value, or null where it is undefined
    undefined          {metric: why} for each null
    chunk_frames       how many 1 s frames the chunk metrics are the medians of
    part               of the data, where it has parts
    problems           [{kind, message}], where there are any
    excerpt            {file, start_seconds, gain}, where a few seconds were kept
    stamp              of the file that was scored, which changes with it

OUT/run.json has settings, protocols, versions, hardware, command, conditions and tracks. The hosts
of a run write a file of scores each, scores-I.jsonl, until all have ended.
"""

import dataclasses
import functools
import hashlib
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
"""Goes up when earlier results cannot be read any more."""

_LONGEST_NAME = 200  # in bytes: file systems take 255, and a temporary name is longer

# The same audio gives the same score of the mixture up to rounding.
_SAME_AUDIO_DB = 1e-3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """An evaluation, or several of the same songs.

    Attributes:
        runs: what run.json says, by folder; several where results were merged.
        protocols: what the number of each metric means.
        conditions: settings of the sampler by the condition's name, empty for finished files;
            without the anchors.
        tracks: names, in the order of the source.
        rows: of these tracks; a file of an excerpt is a path that can be opened.
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
        """The metric by track, of the tracks that have it in every repeat."""
        found = {}
        for track in self.tracks:
            values = [row.get(metric) for row in self.repeats(condition, track)]
            if values and None not in values:
                found[track] = np.array(values, np.float64)
        return found

    @functools.cached_property
    def parts(self) -> dict[str, tuple[str, ...]]:
        """Tracks by part: all of them under "", then each part of the data, in order."""
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
        """The conditions that `names` maps to others, alone; the anchors stay as they are."""
        new = dict.fromkeys(ANCHORS) | dict(names)
        return dataclasses.replace(
            self,
            conditions={names[old]: self.conditions[old] for old in names},
            rows=tuple(
                row | {"condition": new[row["condition"]] or row["condition"]}
                for row in self.rows
                if row["condition"] in new
            ),
        )


def merge(results: Sequence[Result]) -> Result:
    """Results of the same songs as one, with the metrics that all have.

    Raises UserError where tracks, audio or protocols differ, or two conditions share a name.
    """
    first = results[0]
    merged = first
    for other in results[1:]:
        _check_same_songs(first, other)
        common = {name: text for name, text in merged.protocols.items() if name in other.protocols}
        if shared := merged.conditions.keys() & other.conditions.keys():
            raise UserError(f"the condition {min(shared)} is in two results; expected other names")
        for metric, text in common.items():
            if other.protocols[metric] != text:
                raise UserError(
                    f"the protocols differ: {metric} is {text!r} in {_name(first)} and"
                    f" {other.protocols[metric]!r} in {_name(other)}; score one of them again"
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
        what = f"{alone[0]} is in one of them alone" if alone else "their order is another"
        raise UserError(
            f"{_name(a)} and {_name(b)} have other tracks ({len(a.tracks)} and {len(b.tracks)}):"
            f" {what}; expected results of the same songs"
        )
    for track in a.tracks:
        for key in ("audio_seconds", "utterance_sdr"):
            left, right = (
                next((row.get(key) for row in each.repeats(MIXTURE, track)), None)
                for each in (a, b)
            )
            if left == right or _is_bad(a, track) or _is_bad(b, track):
                continue  # where a song could not be read, nothing is known of it
            if left is not None and right is not None and abs(left - right) <= _SAME_AUDIO_DB:
                continue
            told = "the mixture's utterance SDR" if key == "utterance_sdr" else key
            raise UserError(
                f"{track} differs: {told} is {left} in {_name(a)} and {right} in {_name(b)};"
                " expected results of the same audio"
            )


def _is_bad(result: Result, track: str) -> bool:
    return any(
        problem["kind"] == "bad reference"
        for row in result.repeats(MIXTURE, track)
        for problem in row.get("problems", ())
    )


def read_result(out: Path) -> Result:
    """The evaluation in a folder.

    Raises UserError if there is none, it is incomplete, or a file is damaged.
    """
    path = out / RUN_FILE
    if not path.is_file():
        raise UserError(f"{out}: no {RUN_FILE} here; expected the --out of eval.py")
    run = _read_run(path)
    by_track = rows_by_track(out)
    with _damage_reported(path):
        tracks, conditions, command = run["tracks"], run["conditions"], run["command"]
        missing = [track for track in tracks if track not in by_track]
        if missing:
            raise UserError(
                f"{out}: {len(missing)} of {len(tracks)} tracks have no scores, such as"
                f" {missing[0]}; run its command again: {command}. Several hosts need an --out"
                " that all can write to"
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


def check_same_settings(out: Path, settings: Mapping[str, Any]) -> None:
    """UserError if the folder holds scores of other settings, which would be lost or mixed in."""
    path = out / RUN_FILE
    if not path.is_file():
        return
    found, ours = _read_run(path).get("settings", {}), json.loads(json.dumps(settings))
    differ = [key for key in found | ours if found.get(key) != ours.get(key)]
    if differ:
        raise UserError(
            f"{out} holds results of other settings ({', '.join(differ)}); expected another --out."
            " --overwrite replaces them"
        )


def remove_result(out: Path) -> None:
    """Removes the files of a result, and none that the user may have put there."""
    stems = ("mixture", "vocals", "estimate", "estimate *")
    excerpts = [path for stem in stems for path in out.glob(f"excerpts/*/{stem}.flac")]
    for path in (out / RUN_FILE, out / REPORT_FILE, *_score_files(out), *excerpts):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"{path}: cannot be removed: {error.strerror}") from None


def write_run(out: Path, run: Mapping[str, Any]) -> None:
    """Writes run.json. UserError if it cannot be written."""
    text = json.dumps({"format": FORMAT} | dict(run), indent=2, allow_nan=False)
    write_bytes(out / RUN_FILE, f"{text}\n".encode())


def append_rows(out: Path, rows: Iterable[Row]) -> None:
    """Adds a track's rows to this process's file. UserError if they cannot be written."""
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
    """Brings the rows of all files into scores.jsonl, in the order of `tracks`.

    Only one process may do this, while none appends. Tracks that are not kept are left out.
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
    """The rows of all files by track; of those that stand there twice, the last.

    A last line without its end was being written when its process was killed, and is no row.
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


def excerpt_name(track: str, stem: str) -> str:
    """The file of an excerpt, relative to the result's folder."""
    return f"excerpts/{_file_name(track)}/{_file_name(stem)}.flac"


def _lines(rows: Iterable[Row]) -> bytes:
    return "".join(f"{json.dumps(row, allow_nan=False)}\n" for row in rows).encode()


def _score_files(out: Path) -> list[Path]:
    numbered = sorted(p for p in out.glob("scores-*.jsonl") if re.fullmatch(r"scores-\d+", p.stem))
    return [path for path in (out / SCORES_FILE, *numbered) if path.is_file()]


def _read_run(path: Path) -> dict[str, Any]:
    with _damage_reported(path):
        run = json.loads(path.read_text(encoding="utf-8"))
        if (found := run["format"]) != FORMAT:
            raise UserError(f"{path}: format is {found}; expected {FORMAT}. Score again")
        return dict(run)


@contextmanager
def _damage_reported(path: Path) -> Iterator[None]:
    """Around what reads a file's values: what they lack is the file's fault."""
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


def _file_name(name: str) -> str:
    """`name` for any file system; what is not allowed is percent-encoded, a long end hashed."""
    encoded = re.sub(r'[/\\:*?"<>|%\x00-\x1f]|^\.', lambda m: f"%{ord(m[0]):02X}", name)
    data = os.fsencode(encoded)
    if len(data) <= _LONGEST_NAME:
        return encoded
    return f"{encoded[:40]}~{hashlib.sha256(data).hexdigest()[:16]}"
