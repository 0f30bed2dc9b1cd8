"""A run for TensorBoard: its numbers, and validation segments to hear and to see."""

import contextlib
import pathlib
import struct
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from diffsep_jax.errors import UserError
from diffsep_jax.files import make_folder, write_errors

NUM_SEGMENTS = 4
"""Segments written of those given. With four rows, a segment of 3 s in stereo takes 2 MB."""

REFERENCE_PEAK = 0.5


class TensorBoard:
    """Writes an event file into `folder`; a context manager.

    What earlier runs wrote there about steps after `start_step` is hidden by TensorBoard, so a
    resumed run shows each step once. Events are written at once: tensorboardX's `SummaryWriter`
    writes in a thread, and on a full disk neither the run nor the process ends.

    Raises:
      UserError: a package is missing, or the file cannot be written (also by the methods).
    """

    def __init__(self, folder: pathlib.Path, *, start_step: int) -> None:
        try:
            from tensorboardX import summary
            from tensorboardX.event_file_writer import EventsWriter
            from tensorboardX.proto import event_pb2, summary_pb2

            from diffsep_jax import plots
        except ModuleNotFoundError as error:
            raise UserError(
                f"writing for TensorBoard needs the package {error.name}, which is not installed;"
                " pip install 'diffsep-jax[tensorboard]' or train without TensorBoard"
            ) from None
        self._summary, self._event_pb2, self._summary_pb2 = summary, event_pb2, summary_pb2
        self._plots = plots
        self._folder = folder
        make_folder(folder)
        restart = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        with self._flushed():
            # Without the suffix, a restart within a second would overwrite the file before.
            self._events = EventsWriter(f"{folder}/events", f".{time.time_ns()}")
            self._write(start_step + 1, session_log=restart)

    def __enter__(self) -> "TensorBoard":
        return self

    def __exit__(self, *_: object) -> None:
        with write_errors(self._folder):
            self._events.close()

    def scalars(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """Numbers of one step, named KIND/NAME."""
        with self._flushed():
            for name, value in values.items():
                self._write(step, summary=self._summary.scalar(f"{kind}/{name}", value))

    def segments(
        self,
        step: int,
        rows: Mapping[str, Float[np.ndarray, "segment time channel=2"]],
        sample_rate: int,
    ) -> None:
        """The first `NUM_SEGMENTS` segments: audio of each row, and a picture of all rows.

        `rows` maps a name to audio at any scale; the first row, the mixture, is the reference. One
        gain per segment brings the reference's peak to half of full scale, so that the loudness of
        rows and of steps can be compared; an estimate beyond full scale is clipped. The picture
        shows the rows' spectrograms from top to bottom, in colours relative to the reference.
        """
        arrays = {
            name: np.asarray(audio[:NUM_SEGMENTS], np.float32) for name, audio in rows.items()
        }
        with self._flushed():
            for index, segment in enumerate(zip(*arrays.values(), strict=True)):
                peak = float(np.abs(segment[0]).max())
                gain = np.float32(REFERENCE_PEAK / peak if peak > 0 else 1.0)
                heard = [np.clip(np.nan_to_num(gain * audio), -1, 1) for audio in segment]
                for name, audio in zip(arrays, heard, strict=True):
                    tag = f"segment_{index}/{name}"
                    self._write(step, summary=self._summary.audio(tag, audio, sample_rate))
                png = self._plots.spectrograms(dict(zip(arrays, heard, strict=True)), sample_rate)
                width, height = struct.unpack(">II", png[16:24])
                image = self._summary_pb2.Summary.Image(
                    height=height,
                    width=width,
                    colorspace=4,  # RGBA
                    encoded_image_string=png,
                )
                tag = f"segment_{index}/rows_" + "_".join(arrays)
                value = self._summary_pb2.Summary.Value(tag=tag, image=image)
                self._write(step, summary=self._summary_pb2.Summary(value=[value]))

    def _write(self, step: int, **content: Any) -> None:
        event = self._event_pb2.Event(wall_time=time.time(), step=step, **content)
        self._events.write_event(event)

    @contextlib.contextmanager
    def _flushed(self) -> Iterator[None]:
        """What the block writes is in the file after it. OSError becomes a UserError."""
        with write_errors(self._folder):
            yield
            self._events.flush()
