"""Samples and headers of wav files: float32 and PCM of 16, 24 and 32 bits, RF64 past 4 GiB.

The bytes depend on the samples alone: libsndfile, by contrast, stamps float files with the time of
day.
"""

import struct

import numpy as np
from jaxtyping import Int32, Num

from diffsep_jax.decoding import Block

# Bits of a sample by subtype. The integers are signed and full scale is 2^(bits - 1).
BITS = {"float32": 32, "pcm16": 16, "pcm24": 24, "pcm32": 32}


def quantize(
    block: Num[np.ndarray, "time channel"], bits: int
) -> tuple[Int32[np.ndarray, "time channel"], int]:
    """PCM samples rounded to nearest, and how many of them were clipped.

    A sample is clipped if its rounded value is not one of -2^(bits-1) ... 2^(bits-1) - 1: so +1
    counts and -1 does not.
    """
    full_scale = 2.0 ** (bits - 1)
    rounded = np.rint(block.astype(np.float64) * full_scale)
    clipped = int(np.count_nonzero((rounded < -full_scale) | (rounded > full_scale - 1)))
    return np.clip(rounded, -full_scale, full_scale - 1).astype(np.int32), clipped


def pcm_bytes(samples: Int32[np.ndarray, "time channel"], bits: int) -> bytes:
    """The little-endian low `bits` of each sample."""
    as_bytes = samples.astype("<i4").reshape(-1, 1).view(np.uint8)
    return as_bytes[:, : bits // 8].tobytes()


def float_bytes(block: Block) -> bytes:
    """Little-endian float32."""
    return block.astype("<f4").tobytes()


def wav_header(subtype: str, *, sample_rate: int, num_channels: int, num_frames: int) -> bytes:
    """What comes before the samples. Data of an odd size takes `padding` after it."""
    bits = BITS[subtype]
    frame_bytes = bits // 8 * num_channels
    data_bytes = frame_bytes * num_frames
    is_float = subtype == "float32"
    pcm, ieee_float = 1, 3
    fmt = struct.pack(
        "<HHIIHH",
        *(ieee_float if is_float else pcm, num_channels),
        *(sample_rate, sample_rate * frame_bytes, frame_bytes, bits),
    )
    if is_float:
        fmt += struct.pack("<H", 0)  # what is not PCM says how long its extension is
    chunks = b"fmt " + struct.pack("<I", len(fmt)) + fmt
    unknown = 0xFFFFFFFF  # in RF64: look in the chunk ds64
    is_large = data_bytes + 100 > unknown
    if is_float:
        chunks += b"fact" + struct.pack("<II", 4, unknown if is_large else num_frames)
    riff_bytes = 4 + len(chunks) + 8 + data_bytes + len(padding(subtype, num_channels, num_frames))
    if not is_large:
        sizes = struct.pack("<I", riff_bytes), struct.pack("<I", data_bytes)
        return b"RIFF" + sizes[0] + b"WAVE" + chunks + b"data" + sizes[1]
    ds64 = b"ds64" + struct.pack("<IQQQI", 28, 36 + riff_bytes, data_bytes, num_frames, 0)
    size = struct.pack("<I", unknown)
    return b"RF64" + size + b"WAVE" + ds64 + chunks + b"data" + size


def padding(subtype: str, num_channels: int, num_frames: int) -> bytes:
    """A chunk ends at an even position."""
    return bytes(BITS[subtype] // 8 * num_channels * num_frames % 2)
