"""Singing with sinsy: a score in MusicXML becomes Japanese singing."""

import functools
import tempfile
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.ndimage
import soxr
from numpy.random import Generator

from data_pipelines.dsp import Mono
from data_pipelines.embedded.articulation import pitch_track
from data_pipelines.embedded.composition import Note
from data_pipelines.sung.syllables import Treatment
from data_pipelines.sung.world import RATE, analyse, count_frames, synthesise

SAMPLE_RATE = 24000
"""Rate of the analysis, below the 48 kHz of the singing: the band above 12 kHz holds little."""
_TICKS, _TEMPO = 480, 125
"""Ticks a beat and beats a minute: a tick is a millisecond."""
_PITCH = 67
"""Mean pitch of the songs that the synthesiser was made from, MIDI."""
_ONSET = 0.05
"""Seconds by which consonants delay vowels."""
_GAP = 0.08
"""Seconds of the shortest rest and note."""
_BAR = 4 * _TICKS
_STEPS = "CCDDEFFGGAAB"


@functools.cache
def synthesiser() -> Any:
    """The package's singer with its own voice."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It imports pkg_resources, which is deprecated.
        import pysinsy
    singer = pysinsy.Sinsy()
    singer.setLanguages("j", pysinsy.get_default_dic_dir())
    singer.loadVoices(pysinsy.get_default_htsvoice())
    return singer


def sing_score(
    rng: Generator,
    notes: Sequence[Note],
    lyrics: Sequence[str],
    num_samples: int,
    sample_rate: int,
    treatment: Treatment,
) -> Mono:
    """Sings notes on syllables in kana, one for each note; an empty one holds the vowel before.

    The synthesiser sings near its mean pitch, where it is voiced and in tune; WORLD puts the melody
    in place of its pitch.
    """
    mean = np.mean([note.pitch for note in notes])
    score: list[Note] = []
    for note in notes:
        start, end = max(_GAP, note.start - _ONSET), note.end - _ONSET
        if score:
            start = max(start, score[-1].start + _GAP)
            if start - score[-1].end < _GAP:
                score[-1] = score[-1]._replace(end=start)
        pitch = float(np.clip(round(note.pitch - mean + _PITCH), _PITCH - 4, _PITCH + 4))
        score.append(note._replace(start=start, end=max(end, start + _GAP), pitch=pitch))
    singer = synthesiser()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "score.xml"
        path.write_bytes(score_xml(score, lyrics))
        singer.loadScoreFromMusicXML(str(path))
    wave, rate = singer.synthesize()
    singer.clearScore()
    parts = analyse(
        soxr.resample(np.asarray(wave, np.float32) / 32768, rate, SAMPLE_RATE), SAMPLE_RATE
    )
    frames = min(count_frames(num_samples, sample_rate), len(parts.f0))
    # In rests the synthesiser hisses.
    near = np.zeros(frames)
    for note in notes:
        near[max(0, int(RATE * (note.start - 0.15))) : int(RATE * (note.end + 0.05))] = 1
    level = np.log(scipy.ndimage.uniform_filter1d(near, 9) + 1e-7).astype(np.float32)
    melody = pitch_track(rng, treatment.manner, notes, frames, RATE)
    return synthesise(
        np.where(parts.f0[:frames] > 0, melody, 0.0),
        parts.log_spectrum[:frames] + level[:, None],
        parts.aperiodicity[:frames],
        SAMPLE_RATE,
        num_samples,
        sample_rate,
        treatment,
    )


def score_xml(notes: Sequence[Note], lyrics: Sequence[str]) -> bytes:
    """MusicXML of a melody, to the millisecond, in bars of 4/4 with ties over their lines."""
    root = ET.Element("score-partwise", version="2.0")
    ET.SubElement(_child(root, "part-list"), "score-part", id="P1").append(ET.Element("part-name"))
    part = ET.SubElement(root, "part", id="P1")
    measure: ET.Element | None = None
    for bar, begin, end, note, lyric in _pieces(notes, lyrics):
        if measure is None or measure.get("number") != str(bar):
            measure = ET.SubElement(part, "measure", number=str(bar))
            if bar == 1:
                attributes = _child(measure, "attributes")
                _child(attributes, "divisions", _TICKS)
                _child(_child(attributes, "key"), "fifths", 0)
                time = _child(attributes, "time")
                _child(time, "beats", 4)
                _child(time, "beat-type", 4)
                ET.SubElement(_child(measure, "direction"), "sound", tempo=str(_TEMPO))
        element = _child(measure, "note")
        if note is None:
            _child(element, "rest")
        else:
            pitch, height = _child(element, "pitch"), round(note.pitch)
            _child(pitch, "step", _STEPS[height % 12])
            _child(pitch, "alter", int(_STEPS[height % 12 - 1] == _STEPS[height % 12]))
            _child(pitch, "octave", height // 12 - 1)
        _child(element, "duration", end - begin)
        if note is not None:
            ties = [("stop", begin > _ticks(note.start)), ("start", end < _ticks(note.end))]
            for kind in [kind for kind, tied in ties if tied]:
                ET.SubElement(element, "tie", type=kind)
            if begin == _ticks(note.start):
                _child(_child(element, "lyric"), "text", lyric or "ー")
    return ET.tostring(root, encoding="utf-8", xml_declaration=True)


def _ticks(seconds: float) -> int:
    return round(seconds * _TEMPO / 60 * _TICKS)


def _child(parent: ET.Element, tag: str, text: object = None) -> ET.Element:
    element = ET.SubElement(parent, tag)
    element.text = None if text is None else str(text)
    return element


def _pieces(
    notes: Sequence[Note], lyrics: Sequence[str]
) -> Iterator[tuple[int, int, int, Note | None, str]]:
    """Notes and the rests between them, cut at bar lines: (bar, start, end, note, lyric)."""
    line: list[tuple[int, int, Note | None, str]] = []
    now = 0
    for note, lyric in zip(notes, lyrics, strict=True):
        start, end = _ticks(note.start), _ticks(note.end)
        if start > now:
            line.append((now, start, None, ""))
        line.append((start, end, note, lyric))
        now = end
    line.append((now, (now // _BAR + 2) * _BAR, None, ""))
    for begin, end, piece, lyric in line:
        while begin < end:
            stop = min(end, (begin // _BAR + 1) * _BAR)
            yield begin // _BAR + 1, begin, stop, piece, lyric
            begin = stop
