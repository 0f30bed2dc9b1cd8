"""A source that reads a data set of records made by `python -m data_pipelines.build`."""

import dataclasses
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource
from google.protobuf.message import DecodeError
from jaxtyping import Float
from tensorflow_datasets.proto import tf_example_pb2

from data_pipelines.record_format import (
    INT16_SCALE,
    VERSION,
    RecordFormat,
    find_data_set,
    table_name,
)
from data_pipelines.song_table import read_table
from data_pipelines.source import Segment, check_range
from diffsep_jax.errors import UserError


@dataclasses.dataclass(kw_only=True)
class RecordSongs:
    """Random access to the songs of a split. Memory: the table of songs, and no audio.

    Attributes:
        path: the folder of the build, or the data set's own, DIR/NAME/VERSION.
        split: one that the data set has.
        sample_rate: Hz, the data set's.
        table: what is known of the songs.
        format: what a record holds.

    Raises:
        UserError: naming the file: no data set of this project, another sample rate, no such split;
            on reading, a record is damaged or missing.
    """

    path: str
    split: str = "train"
    sample_rate: int = 44_100

    def __post_init__(self) -> None:
        folder = find_data_set(Path(self.path))
        if folder is None:
            raise UserError(
                f"{self.path}: no data set in it; expected one of python -m data_pipelines.build"
            )
        info = _read_info(folder)
        format_ = _format(folder, info)
        if format_.sample_rate != self.sample_rate:
            raise UserError(
                f"{folder}: sample rate is {format_.sample_rate} Hz; expected the model's,"
                f" {self.sample_rate} Hz: build it with --sample-rate {self.sample_rate}"
            )
        if self.split not in info.splits:
            splits = ", ".join(info.splits) or "none"
            raise UserError(f"{folder}: no split {self.split}; expected one of {splits}")
        table = read_table(folder / table_name(self.split))
        try:
            paths = [str(path) for path in info.splits[self.split].filepaths]
            records = ArrayRecordDataSource(paths)
            num_records = len(records)
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(f"{folder}: a file of records is missing or damaged: {error}") from None
        if num_records != table.num_records.sum():
            raise UserError(
                f"{folder}: {num_records} records; expected {table.num_records.sum()} by its table"
                " of songs: build the data set again"
            )
        self.table, self.format, self._info, self._records = table, format_, info, records
        self._first_record = np.cumsum(table.num_records) - table.num_records
        self._first_block = np.cumsum(table.activity_length) - table.activity_length

    def __len__(self) -> int:
        return len(self.table)

    def name(self, song: int) -> str:
        """As in the folder that the data set was built from."""
        return str(self.table.name[song])

    def num_samples(self, song: int) -> int:
        return int(self.table.num_samples[song])

    def activity(self, song: int) -> Float[np.ndarray, "block"]:
        start = self._first_block[song]
        return self.table.activity[start : start + self.table.activity_length[song]]

    def level(self, song: int) -> float:
        return float(self.table.level[song])

    def segment(self, song: int, start: int, length: int) -> Segment:
        num_samples = self.num_samples(song)
        check_range(self.name(song), start, length, num_samples)
        gain = np.float32(self.table.scale[song])
        if self.format.dtype == "int16":
            gain /= np.float32(INT16_SCALE)
        stems = np.empty((len(Segment._fields), length, 2), np.float32)
        done = 0
        while done < length:
            at = start + done
            number = min(at // self.format.hop, int(self.table.num_records[song]) - 1)
            first = self.format.start(number, num_samples)
            part = slice(at - first, min(start + length - first, self.format.record_samples))
            num_read = part.stop - part.start
            stored = self._read(song, int(self._first_record[song]) + number)
            for stem, name in zip(stems, Segment._fields, strict=True):
                np.multiply(stored[name][part], gain, out=stem[done : done + num_read])
            done += num_read
        return Segment(*stems)

    def _read(self, song: int, index: int) -> dict[str, np.ndarray]:
        """The stems of a record as they are stored. TFDS would copy them three times."""
        try:
            features = tf_example_pb2.Example.FromString(self._records[index]).features.feature
            return {
                name: np.frombuffer(features[name].bytes_list.value[0], self.format.dtype).reshape(
                    -1, 2
                )
                for name in Segment._fields
            }
        except (OSError, ValueError, RuntimeError, IndexError, DecodeError) as error:
            split = self._info.splits[self.split]
            ends = np.cumsum(split.shard_lengths)
            file = split.filepaths[int(np.searchsorted(ends, index, side="right"))]
            raise UserError(
                f"{file}: record {index} of the split ({self.name(song)}) is"
                f" damaged: {error}; build the data set again"
            ) from None


def split_names(data_set: Path) -> tuple[str, ...]:
    """The splits of a data set."""
    return tuple(_read_info(data_set).splits)


def _read_info(folder: Path) -> tfds.core.DatasetInfo:
    try:
        return tfds.builder_from_directory(folder).info
    except Exception as error:  # whatever TFDS meets in a damaged file
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{folder}: cannot be read as a data set: {lines[0]}") from None


def _format(folder: Path, info: tfds.core.DatasetInfo) -> RecordFormat:
    fields = {field.name for field in dataclasses.fields(RecordFormat)}
    metadata = dict(info.metadata or {})
    if set(metadata) != fields or str(info.version) != VERSION:
        raise UserError(
            f"{folder}: version is {info.version}; expected {VERSION} of python -m"
            " data_pipelines.build"
        )
    return RecordFormat(**metadata)
