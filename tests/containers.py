"""Audio files that FFmpeg writes, for tests."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def encode(
    path: Path,
    audio: np.ndarray,
    codec: str,
    *,
    sample_format: str = "fltp",
    rate: int = 44_100,
    start: float = 0.0,
    video: str | None = None,
    **options: str,
) -> None:
    """Writes a file with a title in its tags.

    Args:
      path: its ending names the container.
      audio: `[time, channel]`.
      codec, sample_format: FFmpeg's names.
      rate: in Hz.
      start: time of the first sample in seconds.
      video: codec of a picture of noise that lasts as long.
      options: of the container.
    """
    layout = "mono" if audio.shape[1] == 1 else "stereo"
    with av.open(str(path), "w", container_options=options) as container:
        container.metadata["title"] = "A title that damage may strike"
        packets = []
        if video is not None:
            picture = container.add_stream(video, rate=10)
            picture.width = picture.height = 64
            picture.pix_fmt = "yuv420p"
            rng = np.random.default_rng(0)
            for index in range(10 * len(audio) // rate):
                pixels = rng.integers(0, 256, (64, 64, 3), np.uint8)
                image = av.VideoFrame.from_ndarray(pixels, "rgb24")
                image.pts, image.time_base = index, Fraction(1, 10)
                packets += picture.encode(image)
            packets += picture.encode(None)
        stream = container.add_stream(codec, rate=rate, layout=layout, format=sample_format)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(audio.T), "fltp", layout)
        frame.sample_rate = rate
        if start or video:
            frame.pts, frame.time_base = round(start * rate), Fraction(1, rate)
        packets += [*stream.encode(frame), *stream.encode(None)]
        if video is not None:
            packets.sort(key=lambda packet: packet.dts * packet.time_base)
        for packet in packets:
            container.mux(packet)
