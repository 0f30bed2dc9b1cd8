"""Pages to look at and listen to, each one HTML file that loads nothing from elsewhere."""

import base64
import importlib.resources
import importlib.util
import io
from typing import Any, Literal

import numpy as np
import soundfile
import soxr
from jaxtyping import Float32

from diffsep_jax.audio.write import SAMPLE_RATES
from diffsep_jax.errors import UserError


def missing_packages() -> str | None:
    """What to install before a page can be written; None if everything is installed."""
    needed = ("jinja2", "matplotlib")
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        return f"pages need {' and '.join(missing)}; pip install {' '.join(missing)}"
    return None


def render(package: str, template: str, **values: Any) -> str:
    """The page by a Jinja template in `package`, which escapes all values; encodable as UTF-8.

    Raises UserError if a package is not installed.
    """
    if missing := missing_packages():
        raise UserError(missing)
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package, "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(template).render(**values)
    return page.encode("utf-8", "replace").decode()  # file names may have other bytes


def players_script() -> str:
    """JavaScript: `switchSounds(card)` for the figures with players in an element."""
    return (importlib.resources.files("diffsep_jax") / "players.js").read_text(encoding="utf-8")


def clock(seconds: float) -> str:
    """A time or a duration as minutes:seconds."""
    minutes, rest = divmod(round(seconds, 1), 60.0)
    return f"{minutes:.0f}:{rest:04.1f}"


def data_uri(media_type: str, data: bytes) -> str:
    """A data: URI, to embed the data in a page."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def audio_uri(
    audio: Float32[np.ndarray, "time channel"],
    sample_rate: int,
    encoding: Literal["flac", "mp3"],
) -> str:
    """Audio as a data URI that browsers play: 16-bit FLAC, or MP3 of about 150 kbit/s.

    MP3 supports few sample rates; audio at any other is resampled to 48 kHz.
    """
    file = io.BytesIO()
    if encoding == "flac":
        soundfile.write(file, audio, sample_rate, format="FLAC", subtype="PCM_16")
        return data_uri("audio/flac", file.getvalue())
    if sample_rate not in SAMPLE_RATES["mp3"]:
        audio, sample_rate = soxr.resample(audio, sample_rate, 48_000), 48_000
    soundfile.write(file, audio, sample_rate, format="MP3")
    return data_uri("audio/mpeg", file.getvalue())
