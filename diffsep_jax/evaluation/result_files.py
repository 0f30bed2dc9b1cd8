"""An evaluation's folder, from which it can be read again and gone on with.

OUT/summary.json holds settings, protocols and the summary, OUT/tracks/<track>.json a track's
scores, OUT/excerpts/<track>/{mixture,vocals,estimate}.flac a few seconds of it to listen to;
of several conditions there is an "estimate <condition>.flac" each.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from diffsep_jax.errors import UserError
from diffsep_jax.evaluation.results import (
    Condition,
    ConditionSummary,
    Excerpt,
    Problem,
    Result,
    Score,
    Statistic,
    Summary,
    Track,
    fingerprint,
)
from diffsep_jax.files import write_bytes

SUMMARY_FILE = "summary.json"
REPORT_FILE = "report.html"

# Goes up when files of before cannot be read any more.
_FORMAT = 4

# In bytes: file systems take 255, and ".json" and the parts of a temporary name are added.
_LONGEST_NAME = 200


def track_file(out: pathlib.Path, name: str) -> pathlib.Path:
    """Where a track's scores are."""
    return out / "tracks" / f"{_file_name(name)}.json"


def excerpt_file(out: pathlib.Path, name: str, stem: str) -> pathlib.Path:
    """Where a track's excerpt of a stem is: mixture, vocals, or see `estimate_file`."""
    return out / "excerpts" / _file_name(name) / f"{_file_name(stem)}.flac"


def estimate_file(out: pathlib.Path, name: str, excerpt: Excerpt, condition: str) -> pathlib.Path:
    """Where the estimate of one of the excerpt's conditions is."""
    several = len(excerpt.conditions) > 1
    return excerpt_file(out, name, f"estimate {condition}" if several else "estimate")


def has_excerpt(out: pathlib.Path, track: Track) -> bool:
    """Whether all files of the track's excerpt are there, if it has one."""
    if (excerpt := track.excerpt) is None:
        return True
    files = [excerpt_file(out, track.name, stem) for stem in ("mixture", "vocals")]
    files += [estimate_file(out, track.name, excerpt, name) for name in excerpt.conditions]
    return all(path.is_file() for path in files)


def files_of_result(out: pathlib.Path) -> list[pathlib.Path]:
    """The files in `out` that a result has; other files there may be the user's own."""
    stems = ("mixture", "vocals", "estimate", "estimate *")
    patterns = ("tracks/*.json", *(f"excerpts/*/{stem}.flac" for stem in stems))
    patterns += (SUMMARY_FILE, REPORT_FILE)
    return [path for pattern in patterns for path in sorted(out.glob(pattern)) if path.is_file()]


def write_track(out: pathlib.Path, track: Track, settings: Mapping[str, Any]) -> None:
    """Writes a track's file, whole or not at all. UserError if it cannot be written."""
    _write(
        track_file(out, track.name),
        {"fingerprint": fingerprint(settings)} | dataclasses.asdict(track),
    )


def read_track(out: pathlib.Path, name: str, settings: Mapping[str, Any]) -> Track | None:
    """A track that was scored before; None if it was not.

    Raises UserError if the file is damaged, or is of other settings.
    """
    path = track_file(out, name)
    if not path.is_file():
        return None
    values = _read(path)
    if values.pop("fingerprint", None) != fingerprint(settings):
        raise _other_settings(out, path)
    return _track(path, values)


def check_same_settings(out: pathlib.Path, settings: Mapping[str, Any]) -> None:
    """UserError if the folder holds results of other settings, of which one would be lost."""
    expected = fingerprint(settings)
    for path in (out / SUMMARY_FILE, *sorted((out / "tracks").glob("*.json"))):
        if path.is_file() and _read(path).get("fingerprint") != expected:
            raise _other_settings(out, path)


def write_result(out: pathlib.Path, result: Result) -> None:
    """Writes the summary's file; the tracks' are there. UserError if it cannot be written."""
    values = dataclasses.asdict(result)
    names = [track.name for track in result.tracks]
    _write(out / SUMMARY_FILE, values | {"tracks": names, "fingerprint": result.fingerprint})


def read_result(out: pathlib.Path) -> Result:
    """The evaluation in a folder.

    Raises UserError if there is none, it has not come to its end, or a file is damaged.
    """
    path = out / SUMMARY_FILE
    if not path.is_file():
        found = "an evaluation that has not come to its end; run its command again"
        raise UserError(
            f"{out}: no {SUMMARY_FILE} here, expected the --out of eval.py"
            + (f"; this is {found}" if (out / "tracks").is_dir() else "")
        )
    values = _read(path)
    with _damage_told(path):
        settings, names, command = values["settings"], values.pop("tracks"), values["command"]
        del values["fingerprint"]
    tracks = []
    for name in names:
        track = read_track(out, name, settings)
        if track is None:
            raise UserError(
                f"{track_file(out, name)}: missing, but {path} counts it; run the command again:"
                f" {command}"
            )
        tracks.append(track)
    with _damage_told(path):
        values["tracks"] = tuple(tracks)
        values["conditions"] = tuple(Condition(**each) for each in values["conditions"])
        values["summary"] = _summary(values["summary"])
        return Result(**values)


def _other_settings(out: pathlib.Path, path: pathlib.Path) -> UserError:
    return UserError(
        f"{out}: holds results of other settings ({path.name}); choose another --out, or replace"
        " them with --overwrite"
    )


def _write(path: pathlib.Path, values: Mapping[str, Any]) -> None:
    text = json.dumps({"format": _FORMAT} | dict(values), indent=2, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def _read(path: pathlib.Path) -> dict[str, Any]:
    with _damage_told(path):
        values = json.loads(path.read_text(encoding="utf-8"))
        if (found := values.pop("format")) != _FORMAT:
            raise UserError(
                f"{path}: written in format {found}, this version reads {_FORMAT}; score again"
            )
        return dict(values)


@contextmanager
def _damage_told(path: pathlib.Path) -> Iterator[None]:
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


def _track(path: pathlib.Path, values: dict[str, Any]) -> Track:
    with _damage_told(path):
        references = {name: Score(**each) for name, each in values["references"].items()}
        estimates = {
            name: tuple(Score(**each) for each in scores)
            for name, scores in values["estimates"].items()
        }
        problems = tuple(Problem(**each) for each in values["problems"])
        excerpt = values["excerpt"] and Excerpt(
            **values["excerpt"] | {"conditions": tuple(values["excerpt"]["conditions"])}
        )
        parsed = {
            "references": references,
            "estimates": estimates,
            "problems": problems,
            "excerpt": excerpt,
        }
        return Track(**values | parsed)


def _summary(values: dict[str, Any]) -> Summary:
    return Summary(
        **values
        | {
            "references": {k: _statistics(v) for k, v in values["references"].items()},
            "conditions": {
                name: ConditionSummary(
                    statistics=_statistics(each["statistics"]),
                    over_gain=_statistic(each["over_gain"]),
                    better_than_gain=each["better_than_gain"],
                    real_time_factor=each["real_time_factor"],
                )
                for name, each in values["conditions"].items()
            },
            "parts": {part: _summary(each) for part, each in values["parts"].items()},
        }
    )


def _statistics(values: dict[str, dict[str, Any]]) -> dict[str, Statistic]:
    return {metric: _statistic(fields) for metric, fields in values.items()}


def _statistic(fields: dict[str, Any]) -> Statistic:
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    return Statistic(**values)


def _file_name(name: str) -> str:
    """`name` for any file system; what is not allowed is percent-encoded, a long end hashed."""
    encoded = re.sub(r'[/\\:*?"<>|%\x00-\x1f]|^\.', lambda m: f"%{ord(m[0]):02X}", name)
    data = os.fsencode(encoded)
    if len(data) <= _LONGEST_NAME:
        return encoded
    return f"{encoded[:40]}~{hashlib.sha256(data).hexdigest()[:16]}"
