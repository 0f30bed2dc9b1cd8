"""An inline SVG of a piece of audio: its waveform over its log spectrogram.

Drawn without matplotlib, which a training machine need not have: the spectrogram is a small png
inside the SVG, and the axes are its text. The page's style colours the class `wave` and the text.
"""

import base64
import struct
import zlib

import numpy as np
import scipy.signal
from jaxtyping import Float, Float32, UInt8

from diffsep_jax.pages.document import escape

WINDOW = 4096
LOWEST_HZ, HIGHEST_HZ = 60.0, 16_000.0
RANGE_DB = 70.0
COLUMNS, BANDS = 430, 128
_LEFT, _TOP, _WAVE, _GAP = 54, 6, 70, 10
_IMAGE_TOP = _TOP + _WAVE + _GAP
_BOTTOM = _IMAGE_TOP + BANDS
_MAGMA = ((0, 0, 4), (81, 18, 124), (183, 55, 121), (252, 137, 97), (252, 253, 191))


def band_power(
    audio: Float32[np.ndarray, "time channel"], sample_rate: int
) -> Float[np.ndarray, "band frame"]:
    """Mean power in `BANDS` bands of equal width in octaves, the lowest first, over all channels.

    Frame i is centred on sample i x hop; there are `COLUMNS` frames at most.
    """
    hop = -(-len(audio) // COLUMNS)
    num_frames = -(-len(audio) // hop)
    window = scipy.signal.get_window("hann", WINDOW)
    transform = scipy.signal.ShortTimeFFT(window, hop, sample_rate)
    audio = np.pad(audio, ((0, max(0, WINDOW - len(audio))), (0, 0)))  # scipy refuses less
    spectrum = transform.stft(audio, axis=0, p0=0, p1=num_frames)
    power = np.square(np.abs(spectrum)).mean(axis=1)
    # A band may be narrower than a bin, or hold many: integrate, then take differences.
    integral = np.pad(np.cumsum(power, axis=0), ((1, 0), (0, 0)))
    edges = np.geomspace(LOWEST_HZ, min(HIGHEST_HZ, sample_rate / 2), BANDS + 1)
    bins = edges * WINDOW / sample_rate
    below = bins.astype(int)
    share = (bins - below)[:, None]
    at_edges = (1.0 - share) * integral[below] + share * integral[below + 1]
    return np.diff(at_edges, axis=0) / np.diff(bins)[:, None]


def brightness(
    power: Float[np.ndarray, "band frame"], loudest: float
) -> UInt8[np.ndarray, "band frame"]:
    """255 at the power `loudest`, 0 at `RANGE_DB` below it and less."""
    decibels = 10.0 * np.log10(power / loudest + 1e-12)
    return np.clip(255.0 * (1.0 + decibels / RANGE_DB), 0, 255).astype(np.uint8)


def svg(
    title: str,
    audio: Float32[np.ndarray, "time channel"],
    power: Float[np.ndarray, "band frame"],
    sample_rate: int,
    *,
    peak: float,
    loudest: float,
) -> str:
    """The picture of `audio` and its `band_power`.

    `peak` is the amplitude at the waveform's edge and `loudest` the power at 0 dB, both > 0: give
    the pictures that are to be compared the same two.
    """
    image = base64.b64encode(png(brightness(power, loudest)[::-1])).decode()
    title = escape(title)
    return (
        f'<svg viewBox="0 0 {_LEFT + COLUMNS + 6} {_BOTTOM + 20}" role="img" aria-label="{title}">'
        f"<title>{title}</title>"
        f'<path class="wave" d="{_waveform(audio, peak)}"/>'
        f'<image x="{_LEFT}" y="{_IMAGE_TOP}" width="{COLUMNS}" height="{BANDS}"'
        f' preserveAspectRatio="none" href="data:image/png;base64,{image}"/>'
        f"{_axes(len(audio) / sample_rate, sample_rate)}</svg>"
    )


def _waveform(audio: Float32[np.ndarray, "time channel"], peak: float) -> str:
    """The outline of all channels: along the highest samples, back along the lowest."""
    columns = min(COLUMNS, len(audio))
    starts = np.arange(columns) * len(audio) // columns
    x = _LEFT + np.arange(columns) * COLUMNS / columns
    scale = 0.5 * _WAVE / peak
    middle = _TOP + 0.5 * _WAVE
    high = middle - scale * np.maximum.reduceat(audio.max(axis=1), starts) - 0.4
    low = middle - scale * np.minimum.reduceat(audio.min(axis=1), starts) + 0.4
    outline = np.column_stack([np.append(x, x[::-1]), np.append(high, low[::-1])])
    return "M" + "L".join(f"{px:.0f} {py:.1f}" for px, py in outline) + "Z"


def _axes(seconds: float, sample_rate: int) -> str:
    highest = min(HIGHEST_HZ, sample_rate / 2)
    texts = []
    for label, hz in (("100 Hz", 100.0), ("1 kHz", 1000.0), ("10 kHz", 10_000.0)):
        if hz < highest:
            height = BANDS * np.log(hz / LOWEST_HZ) / np.log(highest / LOWEST_HZ)
            y = _BOTTOM - height + 4
            texts.append(f'<text x="{_LEFT - 4}" y="{y:.0f}" text-anchor="end">{label}</text>')
    step = next(
        (s for s in (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10) if seconds / s <= 6), seconds / 6
    )
    for i in range(int(seconds / step) + 1):
        x = _LEFT + COLUMNS * i * step / seconds
        label = f"{i * step:.3g}" if i else "0 s"
        texts.append(f'<text x="{x:.0f}" y="{_BOTTOM + 15}" text-anchor="middle">{label}</text>')
    return "".join(texts)


def png(levels: UInt8[np.ndarray, "row column"]) -> bytes:
    """A png of 256 colours: black, violet, orange, pale yellow."""
    positions = np.linspace(0.0, 255.0, len(_MAGMA))
    palette = np.stack(
        [np.interp(np.arange(256), positions, channel) for channel in zip(*_MAGMA, strict=True)], 1
    )
    rows = np.pad(levels, ((0, 0), (1, 0)))  # each row begins with its filter's number, 0: none
    height, width = levels.shape
    bits, indexed = 8, 3
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in (
            (b"IHDR", struct.pack(">IIBBBBB", width, height, bits, indexed, 0, 0, 0)),
            (b"PLTE", palette.round().astype(np.uint8).tobytes()),
            (b"IDAT", zlib.compress(rows.tobytes(), 9)),
            (b"IEND", b""),
        )
    )
