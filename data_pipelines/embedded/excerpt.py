"""A real song with known vocals: the six-second multitrack excerpt in the package `stempeg`.

It is The Easton Ellises, "Falcon 69", under CC BY-NC-SA 3.0. It is read from the installed package
and is not part of this repository. (`import stempeg` needs ffmpeg; its data file does not.)
"""

import importlib.util
from pathlib import Path
from typing import NamedTuple

from jaxtyping import Float32
from numpy import ndarray

from diffsep_jax.audio.read import read_audio
from diffsep_jax.errors import UserError

TITLE = "The Easton Ellises, Falcon 69"
ORIGIN = "the excerpt in the package stempeg"
LICENCE = "CC BY-NC-SA 3.0"

# Audio streams of the file. Stream 0 is the mixture, but coded by itself: not quite their sum.
_DRUMS, _BASS, _OTHER, _VOCALS = 1, 2, 3, 4

# The codec's delay and padding lie outside.
_FIRST_SAMPLE, _END_SAMPLE = 4_096, 264_600


class Excerpt(NamedTuple):
    """Two stems, whose sum is the mixture, and their rate in Hz."""

    vocals: Float32[ndarray, "time 2"]
    accompaniment: Float32[ndarray, "time 2"]
    sample_rate: int


def load_excerpt() -> Excerpt:
    """The excerpt, 5.9 s in stereo. Raises `UserError` if `stempeg` is not installed."""
    path = _stem_file()

    def stem(stream: int) -> Float32[ndarray, "time 2"]:
        return read_audio(path, stream)[0][_FIRST_SAMPLE:_END_SAMPLE]

    return Excerpt(
        vocals=stem(_VOCALS),
        accompaniment=stem(_DRUMS) + stem(_BASS) + stem(_OTHER),
        sample_rate=read_audio(path)[1],
    )


def _stem_file() -> Path:
    spec = importlib.util.find_spec("stempeg")
    folders = spec.submodule_search_locations if spec else None
    files = sorted(Path(folders[0]).glob("data/*.stem.mp4")) if folders else []
    if not files:
        raise UserError(
            "the package stempeg, which holds the excerpt of a real song, is not installed; "
            "pip install stempeg"
        )
    return files[0]
