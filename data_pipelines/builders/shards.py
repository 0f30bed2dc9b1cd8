"""A shard: an ArrayRecord file of some recordings' records, and the table of their songs.

What a record holds is in `data_pipelines.record_format`.
"""

import contextlib
import dataclasses
import hashlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from data_pipelines.dsp import rms
from data_pipelines.record_format import INT16_SCALE, SILENT_DB, VERSION, RecordFormat
from data_pipelines.recordings import Recording, Stems, read_stems
from data_pipelines.song_table import make_table, read_table
from data_pipelines.source import block_rms
from diffsep_jax.errors import UserError
from diffsep_jax.files import replacing

MIXTURE_IS_SUM = 1e-3
"""Up to this relative error (-60 dB) a mixture file counts as the sum of its stems."""

# Compression saves 5 to 10% of 16-bit music and takes three times as long to read.
_WRITER_OPTIONS = "group_size:1,uncompressed"


@dataclasses.dataclass(frozen=True)
class Shard:
    """Recordings that go into one file.

    Attributes:
        recordings: of one split.
        min_samples: shorter recordings are left out.
        folder: where finished shards wait for the others.
        key: changes with the format and with any file's place, size or time; names the files.
    """

    recordings: tuple[Recording, ...]
    format: RecordFormat
    min_samples: int
    folder: Path
    key: str


def plan_shard(
    recordings: tuple[Recording, ...], record_format: RecordFormat, min_samples: int, folder: Path
) -> Shard:
    """The shard of these recordings, with its key."""
    parts = [VERSION, repr(record_format), str(min_samples)]
    for recording in recordings:
        parts.append(repr(recording))
        for path in sorted({file.path for file in recording.files}):
            with contextlib.suppress(OSError):  # reading reports it
                status = path.stat()
                parts.append(f"{path.resolve()} {status.st_size} {status.st_mtime_ns}")
    digest = hashlib.sha256("\n".join(parts).encode(errors="surrogateescape")).hexdigest()
    return Shard(recordings, record_format, min_samples, folder, digest[:24])


def write_shard(shard: Shard) -> tuple[Path, Path]:
    """Writes a shard, unless it exists; returns the paths of its records and of its table.

    A recording that cannot be read is left out, with the reason in the table.

    Raises:
        UserError: the folder cannot be written.
    """
    records = shard.folder / f"{shard.key}.array_record"
    table = records.with_suffix(".npz")
    if table.exists():
        try:
            read_table(table)
            return records, table
        except UserError:
            table.unlink()
    rows, left_out = [], {}
    features, rate = shard.format.features(), shard.format.sample_rate
    with replacing(records) as temporary:
        writer = ArrayRecordWriter(str(temporary), _WRITER_OPTIONS)
        try:
            for recording in shard.recordings:
                try:
                    stems = read_stems(recording, rate)
                    if len(stems.vocals) < shard.min_samples:
                        raise UserError(
                            f"{recording.files[0]}: {len(stems.vocals) / rate:.2f} s, shorter than"
                            f" a training segment of {shard.min_samples / rate:.2f} s"
                        )
                except (UserError, UnicodeError) as error:
                    left_out[recording.name] = " ".join(str(error).split())
                    continue
                row = _row(recording, stems, shard.format)
                rows.append(row)
                with _write_errors(records):
                    for record in _records(recording, stems, row, shard.format):
                        writer.write(features.serialize_example(record))
        finally:
            with _write_errors(records):
                writer.close()
    make_table(rows, left_out).save(table)
    return records, table


@contextlib.contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    """ArrayRecord reports a full disk as a RuntimeError."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: cannot be written: {reason}; make room and run again") from None


def _row(recording: Recording, stems: Stems, format_: RecordFormat) -> dict[str, Any]:
    """The song's row of the table, see `SongTable`."""
    mixture = stems.vocals + stems.accompaniment
    scale = 1.0
    if format_.dtype == "int16":
        highest = max(float(stem.max()) for stem in stems[:2]) * INT16_SCALE
        lowest = min(float(stem.min()) for stem in stems[:2]) * INT16_SCALE
        # Sums and differences of 16-bit stems may need a bit more.
        while highest / scale >= INT16_SCALE - 0.5 or lowest / scale < -INT16_SCALE - 0.5:
            scale *= 2.0
    return {
        "name": recording.name,
        "num_samples": len(mixture),
        "num_records": format_.num_records(len(mixture)),
        "scale": scale,
        "level": rms(mixture),
        "vocals_level": rms(stems.vocals),
        "peak": float(np.abs(mixture).max(initial=0)),
        "mixture_error": math.nan if stems.mixture_error is None else stems.mixture_error,
        "clipped": stems.clipped,
        "note": stems.note,
        "activity": block_rms(stems.vocals),
    }


def _records(
    recording: Recording, stems: Stems, row: dict[str, Any], format_: RecordFormat
) -> Iterator[dict[str, Any]]:
    for number in range(row["num_records"]):
        start = format_.start(number, row["num_samples"])
        vocals, accompaniment = (
            stem[start : start + format_.record_samples] for stem in (stems[0], stems[1])
        )
        error = row["mixture_error"]
        yield {
            "song": recording.name,
            "position": start,
            "num_samples": row["num_samples"],
            "scale": row["scale"],
            "vocals_db": _decibels(vocals),
            "mixture_db": _decibels(vocals + accompaniment),
            "mixture_is_sum": math.isnan(error) or error <= MIXTURE_IS_SUM,
            "vocals": _stored(vocals, row["scale"], format_),
            "accompaniment": _stored(accompaniment, row["scale"], format_),
        }


def _stored(audio: np.ndarray, scale: float, format_: RecordFormat) -> np.ndarray:
    stored = np.zeros((format_.record_samples, 2), format_.dtype)
    if format_.dtype == "int16":
        audio = np.rint(audio * np.float32(INT16_SCALE / scale))
    stored[: len(audio)] = audio
    return stored


def _decibels(audio: np.ndarray) -> float:
    return max(SILENT_DB, 20 * math.log10(max(rms(audio), 1e-9)))
