"""What the headers of audio files state: bytes, seconds, and where the samples end."""

import math
import os
import re
from pathlib import Path
from typing import Literal

import av
from av.container import InputContainer

# Up to this many zeros after the end are padding; more of them are digital silence.
_PADDING_BYTES = 2**17

MPEG_FRAME = rb"\xff[\xe2-\xe5\xf2-\xf5\xfa-\xfd]"
"""How an mp2 or mp3 frame begins."""

# In the first frame: a name, flags, how many frames, how many bytes.
_ENCODER_TAG = re.compile(rb"(?:Xing|Info)\0\0\0[\x03\x07\x0b\x0f].{4}(.{4})", re.DOTALL)


def stated_seconds(container: InputContainer, stream: av.AudioStream) -> tuple[float, bool]:
    """The length that the header states, and whether it is of `stream`, not of the longest one.

    The length is 0 if the header states none, where FFmpeg would guess.
    """
    seconds = float((stream.duration or 0) * (stream.time_base or 0))
    file_seconds = (container.duration or 0) / av.time_base
    match container.format.name.split(",")[0]:
        case "flv" | "matroska":
            return (0.0 if seconds else file_seconds), False
        case "mov":  # an edit list may leave less, and a picture may last longer
            return min(seconds, file_seconds), True
        case "mp3":  # the tag with the length also states the delay
            return (seconds if stream.start_time else 0.0), True
        case "flac":  # a file cut from a longer one keeps its header
            return (0.0 if stream.start_time else seconds), True
        case "caf" if stream.codec_context.name.startswith("pcm"):
            return stream.frames / (stream.sample_rate or math.inf), True  # 0 Hz: a damaged header
        case "caf":  # to the end of the last packet, which may hold less
            return seconds, False
        case "aiff" | "ape" | "au" | "nistsphere" | "tta" | "wv":
            return seconds, True
    return 0.0, True


def stated_bytes(path: Path) -> int:
    """The size that a file's header states, or 0: RIFF (wav, avi) and its relatives, wma, mp3."""
    with path.open("rb") as file:
        header = file.read(4096)
    match header[:4]:
        case b"RIFF" | b"RIFX" | b"FORM":
            size = int.from_bytes(header[4:8], "little" if header[:4] == b"RIFF" else "big")
            # Programs that cannot go back to the header leave it empty, or just under 2^31 or 2^32.
            return size + 8 if 100 < size % 2**31 < 2**31 - 2**16 else 0
        case b"RF64" | b"BW64":
            return int.from_bytes(header[20:28], "little") + 8
        case b"riff":
            size = int.from_bytes(header[16:24], "little")
            return size if size < 2**63 else 0  # all ones: written to a pipe
        case b"Crea":  # voc
            return chunks_end(path, int.from_bytes(header[20:22], "little"), 1, 3, "little")
        case b"2BIT":  # avr
            frame_bytes = (header[15] // 8) * (2 if any(header[12:14]) else 1)
            return 128 + int.from_bytes(header[26:30]) * frame_bytes
        case b"0&\xb2u":  # wma, wmv: 24 bytes into the object of the file's properties
            at = header.find(bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")) + 40
            return int.from_bytes(header[at : at + 8], "little") if at >= 40 else 0
    tag = _ENCODER_TAG.search(header[:64])
    return int.from_bytes(tag[1]) if tag and re.match(MPEG_FRAME, header) else 0


def joined_mp3_end(path: Path) -> int:
    """Where the last of several joined mp3 files ends, according to their encoders' tags.

    The size of the file if one of them has no such tag; 0 for a single mp3 and other formats.
    """
    end, count, size = 0, 0, path.stat().st_size
    with path.open("rb") as file:
        while end < size:
            file.seek(end)
            header = file.read(64)
            if header.startswith(b"ID3"):
                end += 10 + sum(
                    n << bits for n, bits in zip(header[6:10], (21, 14, 7, 0), strict=False)
                )
            elif header.startswith(b"TAG"):
                end += 128
            elif re.match(MPEG_FRAME, header):
                tag = _ENCODER_TAG.search(header)
                end = end + int.from_bytes(tag[1]) if tag and any(tag[1]) else size
                count += 1
            else:
                break
    return end if count > 1 else 0


def samples_end(path: Path) -> int:
    """Where the samples of a wav or aiff end, according to its header; 0 if that leaves it open."""
    with path.open("rb") as file:
        header = file.read(36)
        if header[:4] not in (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM"):
            return 0
        order: Literal["little", "big"] = "big" if header[:4] in (b"RIFX", b"FORM") else "little"
        file.seek(12)
        while len(chunk := file.read(8)) == 8:
            size = int.from_bytes(chunk[4:], order)
            if chunk[:4] in (b"data", b"SSND"):
                if header[:4] in (b"RF64", b"BW64"):
                    size = int.from_bytes(header[28:36], order)
                # The same sizes as in `stated_bytes` mean that none was stated.
                return file.tell() + size if size % 2**31 in range(1, 2**31 - 2**16) else 0
            file.seek(size + size % 2, os.SEEK_CUR)
    return 0


def chunks_end(
    path: Path, start: int, name_bytes: int, size_bytes: int, order: Literal["little", "big"]
) -> int:
    """Where a file's last chunk ends, according to its header; 0 if it extends to the end."""
    end, size = start, path.stat().st_size
    with path.open("rb") as file:
        while end + name_bytes + size_bytes <= size:
            file.seek(end + name_bytes)
            length = int.from_bytes(file.read(size_bytes), order, signed=size_bytes == 8)
            if length < 0:
                return 0
            end += name_bytes + size_bytes + length
    return end


def has_rest(path: Path, end: int) -> bool:
    """Whether more than chunks, tags or padding follows the end of the samples."""
    with path.open("rb") as file:
        num_bytes = file.seek(0, os.SEEK_END) - end
        file.seek(end)
        rest = file.read(32).lstrip(b"\0")
    if not rest:
        return num_bytes > _PADDING_BYTES
    if re.match(rb"ID3|TAG|APETAGEX|LYRICS|[ -~]{4}\xf3\xac\xd3\x11", rest):  # the last in w64
        return False
    sizes = (int.from_bytes(rest[4:8], order) for order in ("little", "big"))
    return not (re.match(rb"(?!RIFF|FORM)[ -~]{4}", rest) and min(sizes) <= num_bytes)


def ogg_streams(path: Path) -> tuple[int, bool]:
    """How many streams begin in an Ogg file, and whether its last page is whole and ends one."""
    begun, flags = 0, 0
    with path.open("rb") as file:
        while (page := file.read(27))[:4] == b"OggS" and len(page) == 27:
            flags = page[5]
            begun += flags >> 1 & 1
            file.seek(sum(file.read(page[26])), os.SEEK_CUR)
        return begun, bool(flags & 4) and file.tell() <= path.stat().st_size
