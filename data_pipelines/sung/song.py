"""A song sung by synthesised voices over sampled or procedural instruments, from a seed.

Voice, band, effects, balance and master are random. `facts` records the choices, so that songs can
be selected and counted.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

from data_pipelines import dsp, mastering
from data_pipelines.dsp import Stereo
from data_pipelines.embedded import band as procedural_band
from data_pipelines.embedded.composition import Composition, Note, compose
from data_pipelines.embedded.production import balance, lead_position, shifted
from data_pipelines.song_folders import Song
from data_pipelines.source import active_blocks, block_rms
from data_pipelines.sung import band, effects, voices
from data_pipelines.sung.codec import CODECS, through_codec

VERSION = 3
"""Increased whenever the sound of any song changes; part of every song's seed."""

SAMPLE_RATE = 44_100

VOICE_SHARES = {"procedural": 1 / 3, "world": 2 / 3}
"""Share of the songs that each kind of voice sings, if both are used."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SongConfig:
    """What all songs of a data set share.

    Attributes:
        seconds: length of a song.
        voices: kinds of voices that sing, of `VOICE_SHARES`.
        fonts: sound fonts; each song draws one of them.
    """

    seed: int
    seconds: float
    voices: tuple[str, ...]
    fonts: tuple[Path, ...]


def render(config: SongConfig, number: int) -> Song:
    """Song `number`: a pure function of its arguments, `VERSION` and the sound fonts."""
    entropy = np.random.SeedSequence([VERSION, config.seed, number])
    rng = np.random.Generator(np.random.Philox(entropy))
    shares = np.array([VOICE_SHARES[name] for name in config.voices])
    engine = config.voices[int(rng.choice(len(shares), p=shares / shares.sum()))]
    voice = voices.draw_voice(rng, engine)
    score = compose(rng, config.seconds, voice.centre, voice.density)
    score = dataclasses.replace(score, melody=_with_rests(rng, score))
    n = round(config.seconds * SAMPLE_RATE)

    vocals, style = _sing(rng, voice, score, n)
    desk = effects.Desk(rng, SAMPLE_RATE, score.tempo_bpm)
    vocals, used = effects.apply(desk, vocals)
    accompaniment, band_facts = _play(rng, score, n, config.fonts)
    ratio_db = float(np.clip(rng.normal(0.5, 4.0), -9.0, 8.0))
    vocals *= np.float32(balance(vocals, accompaniment, SAMPLE_RATE, ratio_db))
    vocals, accompaniment, master = _master(rng, vocals, accompaniment)
    activity = active_blocks(block_rms(vocals), dsp.rms(vocals + accompaniment))
    return Song(
        vocals=vocals,
        accompaniment=accompaniment,
        facts={
            "version": VERSION,
            "seed": config.seed,
            "song": number,
            "engine": engine,
            "voice": dataclasses.asdict(voice),
            "style": style,
            "effects": used,
            "tempo_bpm": round(score.tempo_bpm, 1),
            "band": band_facts,
            "vocals_to_band_db": round(ratio_db, 1),
            "sung_share": round(float(activity.mean()), 3),
            "master": master,
        },
    )


def _with_rests(rng: Generator, score: Composition) -> tuple[Note, ...]:
    """The melody without some of its phrases: notes sound for 45 to 80% of the song at most."""
    melody = score.melody
    most = rng.uniform(0.45, 0.8) * score.seconds
    for phrase in rng.permutation(1 + melody[-1].phrase)[:-1]:
        if sum(note.end - note.start for note in melody) <= most:
            break
        melody = tuple(note for note in melody if note.phrase != phrase)
    return melody


def _sing(rng: Generator, voice: voices.Voice, score: Composition, n: int) -> tuple[Stereo, str]:
    """Lead and backing vocals, panned, without effects."""
    lead = voices.sing(rng, voice, score.melody, n, SAMPLE_RATE)
    mix = dsp.pan(lead, lead_position(rng, 0.15))
    style = str(rng.choice(["solo", "double", "harmony", "choir"], p=[0.64, 0.15, 0.13, 0.08]))
    backed = [note for note in score.melody if score.section_at(note).backing]
    if style == "solo" or not backed:
        return mix, "solo"
    steps = {"double": (0, 0), "harmony": (int(rng.choice([2, -3, 4])),), "choir": (0, 2, 4, -3)}
    width, level = rng.uniform(0.2, 0.95), dsp.db_to_gain(float(rng.uniform(-10, -2)))
    for place, interval in enumerate(steps[style]):
        other = voice if style == "double" else voices.relative(rng, voice)
        late = float(rng.uniform(-0.02, 0.035))
        notes = [shifted(score, note, interval, late) for note in backed]
        track = voices.sing(rng, other, notes, n, SAMPLE_RATE) * np.float32(level)
        mix += dsp.pan(track, float(width * (1 if place % 2 else -1)))
    return mix, style


def _play(
    rng: Generator, score: Composition, n: int, fonts: tuple[Path, ...]
) -> tuple[Stereo, dict[str, Any]]:
    """The accompaniment: two in five bands are procedural; its treble is turned down at random."""
    facts: dict[str, Any] = {"kind": "procedural"}
    if rng.random() < 0.4:
        accompaniment = procedural_band.play(rng, score, n, SAMPLE_RATE)
    else:
        font = fonts[int(rng.integers(len(fonts)))]
        accompaniment, facts = band.play(rng, score, n, SAMPLE_RATE, font=font)
        facts["font"] = font.name
    darker_db = float(rng.uniform(0.0, 10.0))
    curve = [(2500.0, 0.0), (8000.0, -darker_db), (15_000.0, -1.7 * darker_db)]
    return dsp.equalise(accompaniment, SAMPLE_RATE, curve), {
        **facts,
        "darker_db": round(darker_db, 1),
    }


def _master(
    rng: Generator, vocals: Stereo, accompaniment: Stereo
) -> tuple[Stereo, Stereo, dict[str, Any]]:
    """Equaliser, limiter or clipper, and codec, applied to both stems alike.

    The limiter's or clipper's gain is computed from the mixture.
    """
    stems = [vocals, accompaniment]
    facts: dict[str, Any] = {}
    if rng.random() < 0.5:
        tilt = float(rng.normal(0, 1.5))
        curve = [(50.0, -tilt), (1000.0, 0.0), (15000.0, tilt)]
        stems = [dsp.equalise(stem, SAMPLE_RATE, curve) for stem in stems]
        facts["tilt_db"] = round(tilt, 1)
    if rng.random() < 0.6:
        drive_db = float(rng.uniform(0, 8))
        clips = bool(rng.random() < 0.4)
        mixture = stems[0] + stems[1]
        if clips:
            gain = _clipper(mixture, drive_db)
        else:
            gain = mastering.limiter_gain(mixture, SAMPLE_RATE, drive_db)[:, None]
        stems = [stem * gain for stem in stems]
        facts |= {"drive_db": round(drive_db, 1), "clips": clips}
    if rng.random() < 1 / 3:
        codec, strength = str(rng.choice(CODECS)), float(rng.uniform(0, 1))
        peak = max(1.0, *(float(np.abs(stem).max()) for stem in stems)) / 0.9
        stems = [through_codec(s / np.float32(peak), codec, strength, SAMPLE_RATE) for s in stems]
        facts |= {"codec": codec, "codec_strength": round(strength, 2)}
    loudest = max(float(np.abs(x).max(initial=1e-9)) for x in (*stems, stems[0] + stems[1]))
    level = np.float32(dsp.db_to_gain(float(rng.uniform(-9, -0.2))) / loudest)
    return stems[0] * level, stems[1] * level, facts


def _clipper(mixture: Stereo, drive_db: float) -> Stereo:
    """Gain of each sample by a soft clipper that is driven `drive_db` above full scale."""
    peak = float(np.abs(mixture).max(initial=1e-9))
    driven = np.abs(mixture) * np.float32(dsp.db_to_gain(drive_db) / peak)
    return np.tanh(driven) / np.maximum(driven, 1e-6)
