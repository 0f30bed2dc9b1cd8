"""One file being encoded block by block: our own wav; flac, mp3 and Ogg Vorbis by libsndfile."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
import soundfile as sf

from diffsep_jax import lossy
from diffsep_jax.decoding import BLOCK_FRAMES, Block
from diffsep_jax.output import write_errors
from diffsep_jax.wav import BITS, float_bytes, padding, pcm_bytes, quantize, wav_header

Result = TypeVar("Result")

# Takes what `to_samples` gives.
Encode = Callable[[np.ndarray], None]


def to_samples(block: Block, sample_type: str | None, gain: float = 1.0) -> tuple[np.ndarray, int]:
    """gain x block as an encoder takes it, and how many samples were clipped for that.

    `sample_type` is a wav subtype, or None for what takes float samples from -1 to 1. The gain is
    not for float32, which is never scaled.
    """
    if sample_type == "float32":
        return block, 0
    scaled = block.astype(np.float64) * gain
    if sample_type is not None:
        return quantize(scaled, BITS[sample_type])
    samples = scaled.astype(np.float32)
    return np.clip(samples, -1, 1), int(np.count_nonzero(np.abs(samples) > 1))


def full_scale(sample_type: str | None) -> float:
    """The highest sample that is not clipped."""
    return 1.0 if sample_type is None else 1 - 2.0 ** (1 - BITS[sample_type])


class OutputFile:
    """A file that has no buffer, so that a full disk shows with the block that does not fit.

    Every OSError becomes a UserError that names `path`, under which the user will know the file.
    """

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path = path
        self._file = file

    def write(self, data: bytes) -> None:
        with write_errors(self._path):
            rest = memoryview(data)
            while rest:
                rest = rest[self._file.write(rest) :]

    def seek(self, position: int) -> None:
        with write_errors(self._path):
            self._file.seek(position)

    def read_blocks(self, num_bytes: int) -> Iterator[bytes]:
        """All that was written, `num_bytes` at a time."""
        self.seek(0)
        while True:
            with write_errors(self._path):
                data = self._file.read(num_bytes)
            if not data:
                return
            yield data

    def set_ogg_serial(self, serial: int) -> None:
        with write_errors(self._path):
            lossy.set_ogg_serial(self._file, serial)


@contextlib.contextmanager
def open_output(path: Path, temporary: Path) -> Iterator[OutputFile]:
    """The file `temporary`, which will be `path`."""
    with contextlib.ExitStack() as stack:
        with write_errors(path):
            file = stack.enter_context(temporary.open("w+b", buffering=0))
        yield OutputFile(path, file)


@contextlib.contextmanager
def open_staging(path: Path) -> Iterator[OutputFile]:
    """A file without a name in the folder of `path`, where there is room; it leaves nothing."""
    with contextlib.ExitStack() as stack:
        with write_errors(path):
            folder = path.parent
            file = stack.enter_context(tempfile.TemporaryFile(dir=folder, buffering=0))
        yield OutputFile(path, file)


@contextlib.contextmanager
def wav_encoder(
    file: OutputFile, subtype: str, num_frames: int, sample_rate: int, num_channels: int
) -> Iterator[Encode]:
    """Past 4 GiB it is an RF64 file."""
    header = wav_header(
        subtype, sample_rate=sample_rate, num_channels=num_channels, num_frames=num_frames
    )
    file.write(header)

    def encode(samples: np.ndarray) -> None:
        is_float = subtype == "float32"
        file.write(float_bytes(samples) if is_float else pcm_bytes(samples, BITS[subtype]))

    yield encode
    file.write(padding(subtype, num_channels, num_frames))


@contextlib.contextmanager
def flac_encoder(
    file: OutputFile, subtype: str, sample_rate: int, num_channels: int
) -> Iterator[Encode]:
    """Lossless: the integers come back."""
    bits = BITS[subtype]
    options = {"format": "FLAC", "subtype": f"PCM_{bits}"}
    with _sndfile(file, sample_rate, num_channels, options) as encode:
        yield lambda samples: encode(samples << (32 - bits))  # libsndfile takes the high bits


@contextlib.contextmanager
def mp3_encoder(
    file: OutputFile, bitrate_kbps: int, sample_rate: int, num_channels: int
) -> Iterator[Encode]:
    """Constant bitrate, at the level of the samples."""
    level = np.float32(lossy.mp3_level(bitrate_kbps))
    options = lossy.mp3_options(sample_rate, bitrate_kbps)
    with _sndfile(file, sample_rate, num_channels, options) as encode:
        yield lambda samples: encode(samples / level)


@contextlib.contextmanager
def vorbis_encoder(
    file: OutputFile, bitrate_kbps: int, sample_rate: int, num_channels: int
) -> Iterator[Encode]:
    """Variable bitrate, in Ogg."""
    options = lossy.vorbis_options(sample_rate, num_channels, bitrate_kbps)
    with _sndfile(file, sample_rate, num_channels, options) as encode:
        yield encode
    file.set_ogg_serial(0)


class _Sink:
    """The file that libsndfile sees. An error is kept in `error`: its callbacks must not raise."""

    def __init__(self, file: OutputFile) -> None:
        self.error: Exception | None = None
        self._file = file
        self._position = 0
        self._size = 0

    def write(self, data: bytes) -> int:
        if self.error is None:
            try:
                self._file.seek(self._position)
                self._file.write(data)
            except Exception as error:
                self.error = error
        self._position += len(data)
        self._size = max(self._size, self._position)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}
        self._position = start[whence] + offset
        return self._position

    def tell(self) -> int:
        return self._position


@contextlib.contextmanager
def _sndfile(
    file: OutputFile, sample_rate: int, num_channels: int, options: dict[str, Any]
) -> Iterator[Encode]:
    sink = _Sink(file)
    # libsndfile calls back into Python, where an interrupt would be printed and lost. Signals are
    # handled in the main thread only.
    with ThreadPoolExecutor(max_workers=1) as thread:

        def call(function: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
            result = thread.submit(function, *args, **kwargs).result()
            if sink.error is not None:
                raise sink.error
            return result

        sound = call(
            sf.SoundFile,
            *(sink, "w"),
            samplerate=sample_rate,
            channels=num_channels,
            **options,
        )

        # Always the same blocks: how libvorbis encodes depends on them. It puts one on the stack.
        pending = np.zeros((0, num_channels), np.float32)

        def encode(samples: np.ndarray) -> None:
            nonlocal pending
            pending = np.concatenate([pending, samples]) if len(pending) else samples
            while len(pending) >= BLOCK_FRAMES:
                call(sound.write, np.ascontiguousarray(pending[:BLOCK_FRAMES]))
                pending = pending[BLOCK_FRAMES:]

        try:
            yield encode
            if len(pending):
                call(sound.write, np.ascontiguousarray(pending))
        except BaseException as error:
            sink.error = RuntimeError(f"given up: {error!r}")  # what comes now is not written
            raise
        finally:
            call_close = thread.submit(sound.close)
        call_close.result()
        if sink.error is not None:
            raise sink.error
