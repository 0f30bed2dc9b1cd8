"""What mp3 and Ogg Vorbis can hold, and how libsndfile is made to write them.

Both come back from a decoder with every sample in its place: the LAME info in an mp3's first frame
and the positions of Ogg pages tell what the encoder added, and decoders that know them (libsndfile,
and so `read_audio`) take it away again.
"""

import functools
import io
import struct
import zlib
from typing import IO, Any

import numpy as np
import soundfile as sf

# Bitrates of an mp3 in kbps, from the rate in Hz at which they begin to hold. Those left out are so
# low that the first frame has no room for the LAME info, or have the encoder change the rate.
_MP3_BITRATES = {
    32_000: (64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    16_000: (64, 80, 96, 112, 128, 144, 160),
    8_000: (32, 40, 48, 56, 64),
}
MP3_SAMPLE_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
MP3_BITRATES = tuple(sorted(set().union(*_MP3_BITRATES.values())))

# libvorbis encodes other rates, too, but libsndfile crashes where it does not.
VORBIS_SAMPLE_RATES = (8_000, 200_000)
# Over all sample rates and channels, in kbps.
VORBIS_BITRATES = (14, 500)

# For these rates libvorbis knows a bitrate for each quality.
_VORBIS_RATED = (8_000, 50_000)


def mp3_bitrates(sample_rate: int) -> tuple[int, ...]:
    """The constant bitrates in kbps for a rate of `MP3_SAMPLE_RATES`."""
    return next(rates for least, rates in _MP3_BITRATES.items() if sample_rate >= least)


def mp3_options(sample_rate: int, bitrate_kbps: int) -> dict[str, Any]:
    """Arguments of `soundfile.SoundFile` for a constant bitrate."""
    # libsndfile's scale: from 0, the highest bitrate at this rate, to 1 (excluded).
    highest = mp3_bitrates(sample_rate)[-1]
    lowest = 32 if sample_rate >= 32_000 else 8
    level = (highest - bitrate_kbps) / (highest - lowest)
    return {
        "format": "MP3",
        "subtype": "MPEG_LAYER_III",
        "bitrate_mode": "CONSTANT",
        "compression_level": level,
    }


def mp3_level(bitrate_kbps: int) -> float:
    """What LAME multiplies samples by at a bitrate, as room for its own overshoot.

    Whoever wants stems that add up to the mixture divides by it first.
    """
    return 0.95 if bitrate_kbps < 192 else {192: 0.97, 224: 0.98}.get(bitrate_kbps, 1.0)


def vorbis_bitrates(sample_rate: int, num_channels: int) -> tuple[int, int]:
    """The lowest and the highest nominal bitrate in kbps."""
    rates = _vorbis_nominal_rates(sample_rate, num_channels)
    return round(rates[0] / 1000), round(rates[-1] / 1000)


def vorbis_options(sample_rate: int, num_channels: int, bitrate_kbps: int) -> dict[str, Any]:
    """Arguments of `soundfile.SoundFile` for a nominal bitrate.

    Vorbis has a variable bitrate: this is the quality that libvorbis rates at `bitrate_kbps`, and
    the header says so. Above 50 kHz, where it rates nothing, it is the quality at 44.1 kHz.
    """
    rates = _vorbis_nominal_rates(sample_rate, num_channels)
    quality = float(np.interp(1000 * bitrate_kbps, rates, np.linspace(0, 1, len(rates))))
    return {"format": "OGG", "subtype": "VORBIS", "compression_level": 1 - quality}


def _vorbis_nominal_rates(sample_rate: int, num_channels: int) -> tuple[int, ...]:
    low, high = _VORBIS_RATED
    return _probe_vorbis(sample_rate if low <= sample_rate <= high else 44_100, num_channels)


@functools.cache
def _probe_vorbis(sample_rate: int, num_channels: int) -> tuple[int, ...]:
    """Bits per second by libvorbis for quality 0, 0.1, ..., 1; it is linear in between."""
    rates = []
    for tenths in range(11):
        file = io.BytesIO()
        quality = {"format": "OGG", "subtype": "VORBIS", "compression_level": 1 - tenths / 10}
        with sf.SoundFile(file, "w", sample_rate, num_channels, **quality) as sound:
            sound.write(np.zeros((1, num_channels), np.float32))
        data = file.getvalue()
        identification = data.index(b"\x01vorbis")
        rates.append(struct.unpack_from("<i", data, identification + 20)[0])
    return tuple(rates)


def set_ogg_serial(file: IO[bytes], serial: int) -> None:
    """Gives the stream of an Ogg file another serial number, in place: libsndfile's is random."""
    position = 0
    while True:
        file.seek(position)
        head = file.read(27)
        if not head:
            return
        lengths = file.read(head[26])
        body = file.read(sum(lengths))
        page = bytearray(head + lengths + body)
        page[14:26] = struct.pack("<I", serial) + page[18:22] + bytes(4)
        page[22:26] = struct.pack("<I", _ogg_checksum(page))
        file.seek(position)
        file.write(page)
        position += len(page)


_REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _ogg_checksum(page: bytes | bytearray) -> int:
    """CRC-32 with the highest bit first, from 0, not inverted: zlib's, seen in a mirror."""
    mirrored = zlib.crc32(page.translate(_REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)
