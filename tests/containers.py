"""Audio files that FFmpeg writes, for tests."""

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
    **options: str,
) -> None:
    """Writes a file with a title in its tags; `options` are the container's."""
    layout = "mono" if audio.shape[1] == 1 else "stereo"
    with av.open(str(path), "w", container_options=options) as container:
        container.metadata["title"] = "A title that damage may strike"
        stream = container.add_stream(codec, rate=rate, layout=layout, format=sample_format)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(audio.T), "fltp", layout)
        frame.sample_rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
