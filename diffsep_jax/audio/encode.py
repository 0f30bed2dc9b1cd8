"""FLAC, Opus and AAC files, encoded by FFmpeg in a thread."""

import contextlib
import functools
import queue
import threading
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np

from diffsep_jax.audio.tags import NO_TAGS, Tags, write_tags

# The container, the codec, its options and the type of its samples.
_CODECS: dict[str, tuple[str, str, dict[str, str], str]] = {
    "flac": ("flac", "flac", {}, "s32"),
    "opus": ("opus", "libopus", {}, "flt"),
    # Without noise and intensities in place of samples, as stems have to add up.
    "m4a": ("mp4", "aac", {"aac_coder": "fast", "aac_pns": "0", "aac_is": "0"}, "fltp"),
}
FORMATS = tuple(_CODECS)


class Worker:
    """Runs calls one after another in a thread, as PyAV loses interrupts of the main one.

    Interrupts do no harm to its queues, as they would to an executor.
    """

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._errors: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, daemon=True, name="diffsep-encoder").start()

    def run(self, call: Callable[[], None]) -> None:
        """Returns when it has run, or raises what it raised."""
        self._calls.put(call)
        if (error := self._errors.get()) is not None:
            raise error

    def close(self) -> None:
        """Ends the thread after what it runs."""
        self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                call()
            except BaseException as error:
                self._errors.put(error)
            else:
                self._errors.put(None)


class EncodedFile:
    """A file to write `[time, channel]` to, as `soundfile.SoundFile` is one.

    Args:
      path: of the file.
      format_: one of `FORMATS`.
      sample_rate: in Hz.
      num_channels: 1 or 2.
      bits: of FLAC, 16 or 24, whose samples are int32 and left-aligned; others are float32.
      kbps: average bitrate of the others; mono Opus has 256 at most.
      tags: of the file.
    """

    def __init__(
        self,
        path: Path,
        format_: str,
        sample_rate: int,
        num_channels: int,
        bits: int | None = None,
        kbps: int | None = None,
        tags: Tags = NO_TAGS,
    ) -> None:
        container, codec, options, sample_format = _CODECS[format_]
        muxing = {"flush_packets": "1"}  # a full disk is found at once
        if format_ == "m4a":
            muxing["movie_timescale"] = str(sample_rate)  # milliseconds give no exact length
        # Otherwise FFmpeg takes the start of "live: 2020/vocals.flac" for a protocol.
        self._container = av.open(f"file:{path}", "w", format=container, options=muxing)
        layout = ("mono", "stereo")[num_channels - 1]
        stream = self._container.add_stream(codec, sample_rate, options, layout=layout)
        assert isinstance(stream, av.AudioStream)
        self._stream = stream
        self._format = "s16" if bits == 16 else sample_format
        self._stream.codec_context.format = self._format
        if bits is not None:
            self._stream.codec_context.options = {"bits_per_raw_sample": str(bits)}
        self._written = 0
        if kbps is not None:
            highest = 256 * num_channels if format_ == "opus" else kbps
            self._stream.bit_rate = 1000 * min(kbps, highest)
        write_tags(self._container, tags)
        self._worker = Worker()

    def __enter__(self) -> "EncodedFile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with contextlib.closing(self._worker):
            if error is not None:  # an interrupt, too, is not to be lost where this fails
                with contextlib.suppress(av.FFmpegError):
                    self._worker.run(self._container.close)
                return
            try:
                self._worker.run(functools.partial(self._encode, None))
            finally:
                self._worker.run(self._container.close)

    def write(self, samples: np.ndarray) -> None:
        """Appends samples."""
        if self._format == "s16":
            samples = (samples >> 16).astype(np.int16)
        planes = samples.T if self._format.endswith("p") else samples.reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(planes), self._format, self._stream.layout.name
        )
        frame.sample_rate = self._stream.sample_rate
        frame.time_base = Fraction(1, frame.sample_rate)
        frame.pts = self._written
        self._written += len(samples)
        self._worker.run(functools.partial(self._encode, frame))

    def _encode(self, frame: av.AudioFrame | None) -> None:
        self._container.mux(self._stream.encode(frame))
