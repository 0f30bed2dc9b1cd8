"""Decoders: soundfile for wav, flac, ogg and the like, PyAV for mp3 and what libsndfile refuses.

A file is never shortened in silence: what its headers promise and what decodes are compared.
An mp3 without a Xing or Info header and an ADTS stream promise nothing, so there a cut at the end
of a frame cannot be seen. Encoder delay and padding stay as the decoder leaves them.
"""

import functools
import re
from collections.abc import Callable, Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
import soundfile as sf
from av.container import InputContainer
from jaxtyping import Float32

from diffsep_jax.errors import UserError

Block = Float32[np.ndarray, "time channel"]

BLOCK_FRAMES = 65_536

# Sample rate in Hz, channels, and what decodes the file from its start.
Format = tuple[int, int, Callable[[Path], Iterator[Block]]]


def probe(path: Path, stream: int = 0) -> Format | None:
    """How to read a file, or None if it is not audio. UserError if it is not whole.

    `stream` counts the audio streams of a container; libsndfile's formats have one.
    """
    # libsndfile has one stream, and its mp3 decoder writes what it notices to the terminal.
    reads_sndfile = stream == 0 and not _is_mp3(path) and path.suffix.lower() != ".mp3"
    return (_probe_sndfile(path) if reads_sndfile else None) or _probe_av(path, stream)


def _probe_sndfile(path: Path) -> Format | None:
    try:
        with sf.SoundFile(path) as file:
            if file.frames > 2**62:
                return None  # a flac that was piped: libsndfile cannot tell where it ends
            # libsndfile shortens these without an error; its log tells.
            short = re.search(
                r"^ *(?:data|SSND) : (\d+) \(should be (\d+)\)", file.extra_info, re.M
            )
            # Just under 2^31 or 2^32 is how a program that writes to a pipe says "unknown".
            if short and int(short[1]) % 2**31 < 2**31 - 2**16:
                raise _damaged(path, f"{short[2]} of the promised {short[1]} bytes are there")
            if file.format == "OGG" and not _ogg_ends(path):
                raise _damaged(path, "the Ogg stream has no end")
            return file.samplerate, file.channels, _decode_sndfile
    except (sf.SoundFileError, TypeError):  # TypeError: a name that ends in .raw
        return None


def _decode_sndfile(path: Path) -> Iterator[Block]:
    decoded = 0
    try:
        with sf.SoundFile(path) as file:
            promised = file.frames
            while len(block := file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
                decoded += len(block)
                yield block
    except sf.SoundFileError:
        raise _damaged(path, f"it cannot be decoded past sample {decoded}") from None
    if decoded < promised:
        raise _damaged(path, f"{decoded} of the promised {promised} samples decode")


def _is_mp3(path: Path) -> bool:
    with path.open("rb") as file:
        _skip_id3(file, 0)
        return _is_mpeg_frame(file.read(2))


def _check_mp3(path: Path) -> bool:
    """Whether `path` is an mp3 that tells its size. UserError if it ends before, or goes on after.

    The first header counts the bytes: fewer are there when the file is cut, and more when two files
    were joined, of which it tells the first one's length only.
    """
    with path.open("rb") as file:
        start = _skip_id3(file, 0)
        frame = file.read(200)
        at = max(frame.find(b"Xing", 0, 64), frame.find(b"Info", 0, 64))
        if not _is_mpeg_frame(frame) or at < 0:
            return False
        if len(frame) < at + 16:  # what follows the word: flags, frames, bytes
            raise _damaged(path, "its header is cut")
        if not frame[at + 7] & 2:
            return False
        at += 12 if frame[at + 7] & 1 else 8  # the frame count comes first, if it is there
        end = start + int.from_bytes(frame[at : at + 4])
        if end > (size := path.stat().st_size):
            raise _damaged(path, f"{size} of the promised {end} bytes are there")
        _skip_id3(file, end)
        if _is_mpeg_frame(file.read(2)):
            raise _damaged(path, f"audio goes on after the end of the mp3 at byte {end}")
        return True


def _is_mpeg_frame(data: bytes) -> bool:
    is_synchronous = len(data) >= 2 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0
    return is_synchronous and data[1] & 0b110 != 0  # no layer: ADTS


def _skip_id3(file: BinaryIO, start: int) -> int:
    """Moves to what follows an ID3v2 tag at `start`, or to `start`; returns the position."""
    file.seek(start)
    header = file.read(10)
    if len(header) == 10 and header[:3] == b"ID3":
        size = 0
        for byte in header[6:]:
            size = size << 7 | byte & 0x7F
        start += 10 + size
    return file.seek(start)


def _ogg_ends(path: Path) -> bool:
    """Whether the last Ogg page is whole and flagged as the end of its stream."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 2**17))  # a page has at most 65,307 bytes
        tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < 27 or not page[5] & 4:
        return False
    num_segments = page[26]
    lengths = page[27 : 27 + num_segments]
    return len(lengths) == num_segments and 27 + num_segments + sum(lengths) <= len(page)


def _probe_av(path: Path, stream: int) -> Format | None:
    try:
        if _is_mp3(path):
            _check_mp3(path)
        frames = _av_frames(path, stream)
        first = next(frames, None)  # the true rate: a stream's header may give half of it
        frames.close()
    except av.FFmpegError:
        return None
    if first is None:
        raise UserError(f"{path}: no samples, expected at least one")
    decode = functools.partial(_decode_av, stream=stream)
    return first.sample_rate, first.layout.nb_channels, decode


def _av_frames(path: Path, stream_number: int) -> Generator[av.AudioFrame]:
    # A playlist must not make FFmpeg fetch anything.
    options = {"protocol_whitelist": "file"}
    # FFmpeg takes very short ones for something else.
    format_ = "mp3" if _is_mp3(path) else None
    with av.open(
        f"file:{path}", format=format_, options=options, metadata_errors="replace"
    ) as container:
        streams = container.streams.audio
        if not streams:
            raise UserError(f"{path}: has no audio stream, expected audio")
        if stream_number not in range(len(streams)):
            raise UserError(
                f"{path}: has no audio stream {stream_number}, expected 0 to {len(streams) - 1}"
            )
        stream = streams[stream_number]
        seconds = 0.0
        for frame in container.decode(stream):
            seconds += frame.samples / frame.sample_rate
            yield frame
        promised = _promised_seconds(path, container, stream)
        if seconds < promised - 0.1:  # codecs pad and trim by a frame or two
            raise _damaged(path, f"{seconds:.2f} of the promised {promised:.2f} s decode")


def _promised_seconds(path: Path, container: InputContainer, stream: av.AudioStream) -> float:
    """Duration by an index in the file; 0 where FFmpeg would only guess it."""
    if container.format.name == "mp3":
        return float(_mp3_seconds(path) or 0)
    if container.format.name.startswith("mov") and stream.duration and stream.time_base:
        # The one is before an edit list, the other may be a longer picture's.
        return min(float(stream.duration * stream.time_base), (container.duration or 0) / 1e6)
    if container.format.name.startswith("matroska") and len(container.streams) == 1:
        return (container.duration or 0) / 1e6
    return 0.0


def _mp3_seconds(path: Path) -> Fraction | None:
    """Length of an mp3 that tells it, without the encoder's delay and padding."""
    if not _is_mp3(path) or not _check_mp3(path):
        return None
    with av.open(f"file:{path}", format="mp3", metadata_errors="replace") as container:
        stream = container.streams.audio[0]
        return (stream.duration or 0) * (stream.time_base or Fraction(0)) or None


def _decode_av(path: Path, stream: int) -> Iterator[Block]:
    decoded = 0
    resampler = None
    seconds = _mp3_seconds(path)
    try:
        for frame in _av_frames(path, stream):
            shape = frame.sample_rate, frame.layout.nb_channels
            if resampler is None:
                first = shape
                resampler = av.AudioResampler("fltp", frame.layout, frame.sample_rate)
            if shape != first:
                raise _damaged(path, f"rate or channels change at sample {decoded}")
            for planar in resampler.resample(frame):
                block = np.ascontiguousarray(planar.to_ndarray().T)
                if seconds is not None:
                    # Of the padding, FFmpeg takes off no more than one of the codec's frames.
                    block = block[: round(seconds * frame.sample_rate) - decoded]
                decoded += len(block)
                yield block
    except av.FFmpegError:
        raise _damaged(path, f"it cannot be decoded past sample {decoded}") from None


def _damaged(path: Path, what: str) -> UserError:
    return UserError(
        f"{path}: truncated or damaged: {what}; get the whole file, "
        "or save what can be read with: ffmpeg -i INPUT rest.wav"
    )
