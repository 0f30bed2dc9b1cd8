"""Tags and cover of a song, which its stems inherit."""

import base64
import contextlib
import dataclasses
import io
import os
import struct
from collections.abc import Mapping
from typing import NamedTuple

import av
from av.container import OutputContainer
from av.stream import Disposition

# Those that hold for a stem, too; gains, fingerprints and names of encoders do not.
_NAMES = (
    *("title", "artist", "album", "album_artist", "composer", "genre", "date", "track", "disc"),
    *("copyright", "comment"),
)
_LARGEST_COVER_BYTES = 10_000_000  # FLAC holds no more than 16 MiB
_MIME_TYPES = {"mjpeg": "image/jpeg", "png": "image/png"}


class Cover(NamedTuple):
    """A picture as it was in the file, jpeg or png."""

    codec: str
    width: int
    height: int
    data: bytes


@dataclasses.dataclass(frozen=True)
class Tags:
    """Texts by FFmpeg's names of tags, and the cover."""

    texts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    cover: Cover | None = None


NO_TAGS = Tags()


def read_tags(path: str | os.PathLike[str]) -> Tags:
    """The tags of an audio file; none where they cannot be read."""
    options = {"protocol_whitelist": "file", "max_probe_packets": "1"}
    texts, cover = {}, None
    with (
        contextlib.suppress(av.FFmpegError),
        av.open(f"file:{path}", options=options, metadata_errors="replace") as container,
    ):
        is_ogg = container.format.name == "ogg"
        found = container.streams.audio[0].metadata if is_ogg else container.metadata
        texts = {name.lower(): text for name, text in found.items()}
        for stream in container.streams.video:
            codec = stream.codec_context
            if stream.disposition & Disposition.attached_pic and codec.name in _MIME_TYPES:
                data = bytes(next(container.demux(stream)))
                # A damaged picture has no size, and could not be written.
                if codec.width and len(data) <= _LARGEST_COVER_BYTES:
                    cover = Cover(codec.name, codec.width, codec.height, data)
                break
    return Tags({name: texts[name] for name in _NAMES if texts.get(name)}, cover)


def write_tags(container: OutputContainer, tags: Tags) -> None:
    """Adds tags to a file to which all streams were added, and nothing was written."""
    container.metadata.update(tags.texts)
    cover = tags.cover
    if cover is None:
        return
    if container.format.name == "opus":
        mime = _MIME_TYPES[cover.codec].encode()
        head = struct.pack(">II", 3, len(mime)) + mime + struct.pack(">I", 0)
        sizes = struct.pack(">IIIII", cover.width, cover.height, 24, 0, len(cover.data))
        picture = base64.b64encode(head + sizes + cover.data).decode()
        container.metadata["METADATA_BLOCK_PICTURE"] = picture
        return
    stream = container.add_mux_stream(cover.codec, width=cover.width, height=cover.height)
    stream.disposition = Disposition.attached_pic
    stream.metadata["comment"] = "Cover (front)"
    container.start_encoding()
    packet = av.Packet(cover.data)
    packet.stream = stream
    packet.pts = packet.dts = 0
    container.mux(packet)


def id3_tag(tags: Tags) -> bytes:
    """What comes before the audio of an mp3 file."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp3", options={"write_xing": "0"}) as container:
        container.add_mux_stream("mp3", rate=44_100)
        write_tags(container, tags)
        container.start_encoding()
    return file.getvalue()
