"""The index of a data set's songs, from which training draws: one row a song, in an npz file."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from diffsep_jax.errors import UserError
from diffsep_jax.files import replacing


@dataclasses.dataclass(frozen=True, kw_only=True)
class SongTable:
    """One element, or one stretch of `activity`, for each song, in the order of its records.

    Attributes:
        name: unique in the split.
        num_samples: length at the data set's rate.
        num_records: records of the song; they follow each other.
        scale: float audio = stored integers / 32768 * scale; 1 where floats are stored.
        level: RMS of vocals + accompaniment.
        vocals_level: RMS of the vocals.
        peak: largest sample of vocals + accompaniment.
        mixture_error: RMS of (mixture file - stems), relative to the mixture's; NaN where
            there is no such file, or the stems were made from it.
        clipped: samples of the files at full scale.
        note: what was repaired on reading, in words.
        activity_length: how many of `activity` are the song's.
        activity: RMS of the vocals in blocks of `ACTIVITY_BLOCK` samples, of all songs in a row.
        left_out: names of what is not in the data set.
        reason: why, for each of `left_out`.
    """

    name: np.ndarray
    num_samples: np.ndarray
    num_records: np.ndarray
    scale: np.ndarray
    level: np.ndarray
    vocals_level: np.ndarray
    peak: np.ndarray
    mixture_error: np.ndarray
    clipped: np.ndarray
    note: np.ndarray
    activity_length: np.ndarray
    activity: np.ndarray
    left_out: np.ndarray
    reason: np.ndarray

    def __len__(self) -> int:
        return len(self.name)

    def save(self, path: Path) -> None:
        """Writes the file, whole or not at all."""
        columns = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **columns)


_TEXTS = ("name", "note", "left_out", "reason")
_INTEGERS = ("num_samples", "num_records", "clipped", "activity_length")


def make_table(rows: Sequence[dict], left_out: dict[str, str]) -> SongTable:
    """A table of rows that have its columns' names; `activity` is an array in each."""
    columns: dict[str, np.ndarray] = {
        field.name: _column(field.name, [row[field.name] for row in rows])
        for field in dataclasses.fields(SongTable)
        if field.name not in ("activity", "activity_length", "left_out", "reason")
    }
    activities = [row["activity"] for row in rows]
    return SongTable(
        **columns,
        activity_length=_column("activity_length", [len(each) for each in activities]),
        activity=np.concatenate([np.zeros(0, np.float32), *activities]),
        left_out=_column("left_out", list(left_out)),
        reason=_column("reason", list(left_out.values())),
    )


def read_table(path: Path) -> SongTable:
    """Reads a file that `SongTable.save` wrote. Raises UserError for any other file."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as columns:
            return SongTable(**columns)
    except (OSError, ValueError, TypeError, EOFError, KeyError, BadZipFile) as error:
        reason = getattr(error, "strerror", None) or "damaged"
        raise UserError(
            f"{path}: the index of songs cannot be read ({reason}); build the data set again"
        ) from None


def join_tables(tables: Sequence[SongTable]) -> SongTable:
    """Concatenates one or more tables."""
    return SongTable(
        **{
            field.name: np.concatenate([getattr(table, field.name) for table in tables])
            for field in dataclasses.fields(SongTable)
        }
    )


def _column(name: str, values: list) -> np.ndarray:
    if name in _TEXTS:
        return np.array(values, np.str_)
    return np.array(values, np.int64 if name in _INTEGERS else np.float32)
