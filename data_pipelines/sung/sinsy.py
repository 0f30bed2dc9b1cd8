"""Singing with sinsy: a score in MusicXML becomes Japanese singing."""

import collections
import functools
import tempfile
import warnings
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
_HEAD = """\
<?xml version='1.0' encoding='utf-8'?>
<score-partwise version="2.0"><part-list><score-part id="P1"><part-name /></score-part></part-list>\
<part id="P1">"""
_FIRST_BAR = (
    f"<attributes><divisions>{_TICKS}</divisions><key><fifths>0</fifths></key>"
    "<time><beats>4</beats><beat-type>4</beat-type></time></attributes>"
    f'<direction><sound tempo="{_TEMPO}" /></direction>'
)


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
    bars: dict[int, str] = collections.defaultdict(str)
    for bar, begin, end, note, lyric in _pieces(notes, lyrics):
        bars[bar] += _note_xml(begin, end, note, lyric)
    measures = (
        f'<measure number="{bar}">{_FIRST_BAR * (bar == 1)}{content}</measure>'
        for bar, content in bars.items()
    )
    return f"{_HEAD}{''.join(measures)}</part></score-partwise>".encode()


def _note_xml(begin: int, end: int, note: Note | None, lyric: str) -> str:
    """A piece of a note, or of a rest, from one tick to another."""
    duration = f"<duration>{end - begin}</duration>"
    if note is None:
        return f"<note><rest />{duration}</note>"
    octave, height = divmod(round(note.pitch), 12)
    step, alter = _STEPS[height], int(_STEPS[height - 1] == _STEPS[height])
    pitch = f"<step>{step}</step><alter>{alter}</alter><octave>{octave - 1}</octave>"
    first, last = begin == _ticks(note.start), end == _ticks(note.end)
    ties = '<tie type="stop" />' * (not first) + '<tie type="start" />' * (not last)
    text = f"<lyric><text>{lyric or 'ー'}</text></lyric>" * first
    return f"<note><pitch>{pitch}</pitch>{duration}{ties}{text}</note>"


def _ticks(seconds: float) -> int:
    return round(seconds * _TEMPO / 60 * _TICKS)


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
