"""Songs as files in the layouts of data sets, for tests, and the data sets built from them."""

import numpy as np
import soundfile

from data_pipelines.builders.builder import BuildConfig, RecordsBuilder
from data_pipelines.records import RecordSongs

RATE = 44_100
SMALL = {"record_samples": 2**15, "overlap_samples": 2**13, "min_samples": 2**13}
MUSDB_STEMS = ("drums", "bass", "other", "vocals")


def noise(seed, num_samples=RATE, channels=2, level=0.1):
    rng = np.random.default_rng(seed)
    return (level * rng.standard_normal((num_samples, channels))).astype(np.float32)


def sixteen_bits(audio):
    return np.rint(audio * 32768).astype(np.int16)


def write(path, audio, rate=RATE, subtype="PCM_16"):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, audio, rate, subtype=subtype)


def write_musdb18hq_song(folder, seed=0, num_samples=RATE):
    """Four stems and their sum, exact in 16 bits."""
    stems = {name: sixteen_bits(noise(seed + i, num_samples)) for i, name in enumerate(MUSDB_STEMS)}
    stems["mixture"] = sum(stems.values())
    for name, audio in stems.items():
        write(folder / f"{name}.wav", audio)
    return {name: audio.astype(np.float32) / 32768 for name, audio in stems.items()}


def built(layout, source, out, *, run=None, **fields):
    config = BuildConfig(layout=layout, source=source, **(SMALL | fields))
    builder = RecordsBuilder(config, run, data_dir=str(out))
    builder.build()
    return builder.folder


def songs(folder, split="train", **fields):
    return RecordSongs(path=str(folder), split=split, **fields)


def whole(source, song=0):
    return source.segment(song, 0, source.num_samples(song))
