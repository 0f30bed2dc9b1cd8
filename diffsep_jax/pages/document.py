"""What every page has: the head with its policy, and text and audio that are safe inside HTML."""

import base64
import html
import io
from typing import Literal

import numpy as np
import soundfile
import soxr
from jaxtyping import Float32

# The policy has the browser refuse anything from outside the file, and all scripts.
_DOCUMENT = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<main>
{body}</main>
</body>
</html>
"""

_MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)


def document(*, title: str, style: str, body: str) -> str:
    """A whole page. `title` is plain text; `style` is CSS and `body` HTML, and they are trusted."""
    return _DOCUMENT.format(title=escape(title), style=style, body=body)


def escape(text: str) -> str:
    """Any text as HTML, in elements and in quoted attributes."""
    return html.escape(_encodable(text))


def printable(text: str) -> str:
    """Text on one line, with "?" for what no terminal or page can show."""
    return _encodable(" ".join(text.split()))


def clock(seconds: float) -> str:
    """A time or a length as minutes:seconds."""
    minutes, rest = divmod(round(seconds, 1), 60.0)
    return f"{minutes:.0f}:{rest:04.1f}"


def audio_uri(
    audio: Float32[np.ndarray, "time channel"],
    sample_rate: int,
    encoding: Literal["flac", "mp3"],
) -> str:
    """A data URI that browsers play: FLAC of 16 bits per sample, or MP3 of some 150 kbit/s.

    MP3 knows few sample rates; audio of another one is resampled to 48 kHz.
    """
    file = io.BytesIO()
    if encoding == "flac":
        soundfile.write(file, audio, sample_rate, format="FLAC", subtype="PCM_16")
        return _data_uri("audio/flac", file)
    if sample_rate not in _MP3_RATES:
        audio, sample_rate = soxr.resample(audio, sample_rate, 48_000), 48_000
    soundfile.write(file, audio, sample_rate, format="MP3")
    return _data_uri("audio/mpeg", file)


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")  # bytes of no encoding in file names


def _data_uri(media_type: str, file: io.BytesIO) -> str:
    return f"data:{media_type};base64,{base64.b64encode(file.getvalue()).decode()}"
