"""A run for TensorBoard: its numbers, and validation segments to hear and to see."""

import contextlib
import os
import pathlib
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import scipy.fft
import scipy.signal
from jaxtyping import Float, Float32, UInt8

from diffsep_jax.errors import UserError
from diffsep_jax.files import make_folder

NUM_SEGMENTS = 4
"""How many segments of those given are written: four rows of 3 s stereo each take 2 MB."""

REFERENCE_PEAK = 0.5

# Of one row of the picture, in pixels and Hz.
COLUMNS, BANDS, GAP = 512, 128, 3
WINDOW = 2048
LOWEST_HZ = 60.0
RANGE_DB = 70.0

# Black over blue, violet and orange to near white, each step brighter than the last.
_COLOURS = np.array(
    [(0, 0, 10), (40, 20, 110), (140, 40, 130), (225, 85, 75), (255, 170, 60), (255, 250, 215)],
    np.float32,
)


class TensorBoard:
    """Writes an event file into `folder`; a context manager, or call `close`.

    What earlier runs wrote there of later steps than `start_step` is hidden by TensorBoard, so a
    run that goes on shows each step once. Events are written where they are made, not by
    tensorboardX's background writer, which blocks for good once its disk is full.

    Raises:
      UserError: a package is missing, or the file cannot be written (also by the methods).
    """

    def __init__(self, folder: pathlib.Path, *, start_step: int) -> None:
        try:
            import PIL.Image  # noqa: F401  (tensorboardX encodes pictures with it)
            import tensorboardX
            from tensorboardX import summary
            from tensorboardX.proto import event_pb2
        except ModuleNotFoundError as error:
            raise UserError(
                f"writing for TensorBoard needs the package {error.name}, which is not installed;"
                " pip install 'diffsep-jax[tensorboard]' or train without TensorBoard"
            ) from None
        self._summary = summary
        self._events = event_pb2
        # TensorBoard reads files in the order of their names: first the seconds, then the suffix,
        # which keeps a restart within the same second from writing over the run before it.
        now = time.time_ns()
        name = f"events.out.tfevents.{now // 10**9}.{socket.gethostname()}.{now}.{os.getpid()}"
        self._path = folder / name
        make_folder(folder)
        with self._write_errors():
            self._records = tensorboardX.RecordWriter(str(self._path))
        self._write(file_version="brain.Event:2")
        restart = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(step=start_step + 1, session_log=restart)
        self._flush()

    def __enter__(self) -> "TensorBoard":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def scalars(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """Numbers of one step, named KIND/NAME."""
        for name, value in values.items():
            self._write(step=step, summary=self._summary.scalar(f"{kind}/{name}", value))
        self._flush()

    def segments(
        self,
        step: int,
        rows: Mapping[str, Float[np.ndarray, "segment time channel=2"]],
        sample_rate: int,
    ) -> None:
        """The first `NUM_SEGMENTS` segments: audio of each row, and a picture of all rows.

        `rows` maps a name to audio at any scale; the first row, the mixture, is the reference. One
        gain for a segment brings the reference's peak to half of full scale, so that the rows'
        loudness, and that of another step's, compare; an estimate that still goes beyond full
        scale is clipped. The picture has the rows from top to bottom, on one colour scale.
        """
        arrays = {
            name: np.asarray(audio[:NUM_SEGMENTS], np.float32) for name, audio in rows.items()
        }
        for index, segment in enumerate(zip(*arrays.values(), strict=True)):
            peak = float(np.abs(segment[0]).max())
            gain = REFERENCE_PEAK / peak if peak > 0 else 1.0
            heard = [np.clip(np.nan_to_num(np.float32(gain) * audio), -1, 1) for audio in segment]
            for name, audio in zip(arrays, heard, strict=True):
                tag = f"segment_{index}/{name}"
                self._write(step=step, summary=self._summary.audio(tag, audio, sample_rate))
            picture = spectrograms(heard, sample_rate)
            tag = f"segment_{index}/rows_" + "_".join(arrays)
            summary = self._summary.image(tag, picture, dataformats="HWC")
            self._write(step=step, summary=summary)
        self._flush()

    def close(self) -> None:
        """Ends the file; more than once does no harm."""
        with self._write_errors():
            self._records.close()

    def _write(self, **fields: Any) -> None:
        event = self._events.Event(wall_time=time.time(), **fields)
        with self._write_errors():
            self._records.write(event.SerializeToString())

    def _flush(self) -> None:
        with self._write_errors():
            self._records.flush()

    @contextlib.contextmanager
    def _write_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(f"{self._path}: cannot be written: {error.strerror}") from None


def spectrograms(
    rows: list[Float32[np.ndarray, "time channel"]], sample_rate: int
) -> UInt8[np.ndarray, "height width 3"]:
    """RGB picture of the rows' log spectrograms, one under the other; high frequencies on top.

    Colours are dB below the loudest point of the first row, which all rows are compared with.
    """
    powers = [_band_power(row, sample_rate) for row in rows]
    loudest = float(powers[0].max()) or 1.0
    panels = []
    for power in powers:
        decibels = 10 * np.log10(power / np.float32(loudest) + np.float32(1e-12))
        level = np.clip(1 + decibels / RANGE_DB, 0, 1)  # 0 to 1
        position = np.linspace(0, 1, len(_COLOURS))
        rgb = [np.interp(level, position, channel) for channel in _COLOURS.T]
        gap = np.full((GAP, COLUMNS, 3), 255)
        panels += [np.stack(rgb, axis=-1)[::-1], gap]
    return np.concatenate(panels[:-1]).round().astype(np.uint8)


def _band_power(
    audio: Float32[np.ndarray, "time channel"], sample_rate: int
) -> Float32[np.ndarray, "band column"]:
    """Mean power in bands of equal width in octaves, at times spread evenly over the segment."""
    centres = np.linspace(0, len(audio) - 1, COLUMNS).round().astype(int)
    padded = np.pad(audio, ((WINDOW // 2, WINDOW // 2), (0, 0)))
    frames = padded[centres[:, None] + np.arange(WINDOW)]  # [column, window, channel]
    window = scipy.signal.get_window("hann", WINDOW).astype(np.float32)
    spectrum = scipy.fft.rfft(frames * window[None, :, None], axis=1)
    power = np.square(np.abs(spectrum)).mean(axis=-1)  # [column, bin]

    # A bin's power is spread evenly over its width, so narrow and wide bands need no two rules.
    nyquist = sample_rate / 2
    bins = (np.arange(power.shape[1] + 1) - 0.5) * sample_rate / WINDOW
    bands = np.geomspace(min(LOWEST_HZ, nyquist / 2), nyquist, BANDS + 1)
    low = np.maximum(bands[:-1, None], bins[None, :-1])
    high = np.minimum(bands[1:, None], bins[None, 1:])
    share = np.clip(high - low, 0, None) / np.diff(bands)[:, None]  # [band, bin]
    return share.astype(np.float32) @ power.T
