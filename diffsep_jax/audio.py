"""Audio as blocks of float32 samples: sources to read from, resampling in a stream."""

import dataclasses
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import soxr

from diffsep_jax.decoding import BLOCK_FRAMES, Block, probe
from diffsep_jax.errors import UserError

# Outside these a header is damaged, and resampling would blow a block up without bound.
SAMPLE_RATES = (1_000, 1_000_000)


@runtime_checkable
class AudioSource(Protocol):
    """Mono or stereo audio that can be read from its start more than once, block by block."""

    @property
    def name(self) -> str: ...
    @property
    def sample_rate(self) -> int: ...
    @property
    def num_channels(self) -> int: ...
    def blocks(self) -> Iterator[Block]: ...


@dataclasses.dataclass(frozen=True)
class AudioArray:
    """Audio in memory as an `AudioSource`: float32 `[time, channel]` at `sample_rate` Hz."""

    audio: Block
    sample_rate: int
    name: str = "waveform"

    def __post_init__(self) -> None:
        _check_format(self.name, self.sample_rate, self.num_channels)

    @property
    def num_channels(self) -> int:
        return self.audio.shape[1]

    def blocks(self) -> Iterator[Block]:
        for start in range(0, len(self.audio), BLOCK_FRAMES):
            yield self.audio[start : start + BLOCK_FRAMES]


class AudioFile:
    """An audio file as an `AudioSource`; of a file with several audio streams, number `stream`.

    Raises:
      UserError: missing, empty, not audio, truncated or damaged, not mono or stereo, or it has no
        such stream. What headers do not tell is raised by `blocks`.
    """

    def __init__(self, path: str | os.PathLike[str], stream: int = 0) -> None:
        self.path = Path(path)
        self.name = str(path)
        try:
            if self.path.is_dir():
                raise UserError(f"{path}: is a folder, expected an audio file")
            if not self.path.is_file():
                os.stat(self.path)  # says why, unless it is there and is a pipe or a device
                raise UserError(f"{path}: not a regular file, and audio is read twice")
            if self.path.stat().st_size == 0:
                raise UserError(f"{path}: the file is empty, expected audio")
            format_ = probe(self.path, stream)
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}, expected an audio file") from None
        except UnicodeEncodeError:
            raise UserError(f"{path}: a name that is not UTF-8 text; rename the file") from None
        if format_ is None:
            raise UserError(
                f"{path}: not an audio file that can be read; expected wav, flac, ogg, mp3, m4a, "
                "mp4 or another format of libsndfile or FFmpeg, whole"
            )
        self.sample_rate, self.num_channels, self._decode = format_
        _check_format(self.name, self.sample_rate, self.num_channels)

    def blocks(self) -> Iterator[Block]:
        """The samples from the start, in blocks of the decoder's choice; PCM full scale is 1."""
        try:
            with self.path.open("rb"):  # a decoder would call what is gone damaged
                pass
            yield from self._decode(self.path)
        except OSError as error:
            raise UserError(
                f"{self.name}: cannot be read any more: {error.strerror or error}; is the disk"
                " still there?"
            ) from None


@dataclasses.dataclass(frozen=True)
class Resampled:
    """Another source at `sample_rate` Hz, resampled in a stream; see `resample_blocks`."""

    source: AudioSource
    sample_rate: int

    def __post_init__(self) -> None:
        _check_format(self.name, self.sample_rate, self.num_channels)

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def num_channels(self) -> int:
        return self.source.num_channels

    def blocks(self) -> Iterator[Block]:
        return resample_blocks(self.source.blocks(), self.source.sample_rate, self.sample_rate)


def finite_blocks(source: AudioSource) -> Iterator[Block]:
    """The blocks of `source`. UserError at a NaN or inf, or when there was not one sample."""
    position = 0
    for block in source.blocks():
        finite = np.isfinite(block).all(axis=1)
        if not finite.all():
            first = position + int(np.argmin(finite))
            raise UserError(
                f"{source.name}: NaN or infinity at sample {first} "
                f"({first / source.sample_rate:.3f} s), expected finite samples; repair the file"
            )
        position += len(block)
        yield block
    if position == 0:
        raise UserError(
            f"{source.name}: no samples at {source.sample_rate} Hz, expected at least one"
        )


def read_audio(path: str | os.PathLike[str], stream: int = 0) -> tuple[Block, int]:
    """A whole file: float32 `[time, channel]` and its sample rate in Hz. UserError if bad."""
    source = AudioFile(path, stream)
    return np.concatenate(list(finite_blocks(source))), source.sample_rate


def resample_blocks(blocks: Iterable[Block], from_rate: int, to_rate: int) -> Iterator[Block]:
    """The same audio at another rate in Hz; the result does not depend on how it was cut.

    n samples become floor(n to_rate / from_rate + 1/2).
    """
    if from_rate == to_rate:
        yield from blocks
        return
    stream = None
    for block in blocks:
        if stream is None:
            stream = soxr.ResampleStream(
                from_rate, to_rate, block.shape[1], dtype="float32", quality="VHQ"
            )
        yield stream.resample_chunk(np.ascontiguousarray(block))
    if stream is not None:
        yield stream.resample_chunk(np.zeros((0, block.shape[1]), np.float32), last=True)


def _check_format(name: str, sample_rate: int, num_channels: int) -> None:
    if num_channels not in (1, 2):
        raise UserError(
            f"{name}: {num_channels} channels, expected mono or stereo; "
            "mix it down first, e.g. ffmpeg -i INPUT -ac 2 stereo.wav"
        )
    low, high = SAMPLE_RATES
    if not low <= sample_rate <= high:
        raise UserError(f"{name}: sample rate {sample_rate} Hz, expected {low} to {high} Hz")
