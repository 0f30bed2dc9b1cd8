"""The band of a sung song: sound fonts, arrangements, amplifier, mix."""

import json
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import Float

from data_pipelines.embedded import composition
from data_pipelines.sung import amplifier, arrangement, band, soundfont
from data_pipelines.sung.arrangement import KINDS, arrange
from data_pipelines.sung.drummer import KITS, ORCHESTRA_KIT
from data_pipelines.sung.parts import PROGRAMS
from diffsep_jax.errors import UserError

RATE = 22050
VOICE_PROGRAMS = {52, 53, 54, 55, 78, 85, 88, 90, 91, 94, 96, 100, 101, 102, 121, 126}
"""Choir, voices, orchestra hit, whistle, pads and effects of sung samples, breath, applause."""


@pytest.fixture(scope="module")
def font() -> Path:
    return soundfont.find_fonts()[-1]


def score_of(seed: int, seconds: float = 6.0) -> composition.Composition:
    return composition.compose(np.random.default_rng(seed), seconds, 62.0)


def power(x: Float[np.ndarray, "time"], low_hz: float, high_hz: float) -> float:
    spectrum = np.abs(np.fft.rfft(x)) ** 2
    f = np.fft.rfftfreq(len(x), 1 / RATE)
    return float(spectrum[(f >= low_hz) & (f < high_hz)].sum())


@pytest.mark.parametrize("kind", KINDS)
def test_a_band_is_a_function_of_its_generator_and_says_what_it_played(
    kind: str, font: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrangement, "KINDS", {kind: 1.0})
    n, seed = 4 * RATE + 3, 1

    def play(seed: int) -> tuple[np.ndarray, dict]:
        return band.play(np.random.default_rng(seed), score_of(seed), n, RATE, font=font)

    audio, description = play(seed)
    assert audio.shape == (n, 2)
    assert audio.dtype == np.float32
    assert audio.std() > 1e-3
    assert json.loads(json.dumps(description))["kind"] == kind
    assert description["parts"]
    assert not np.array_equal(play(seed + 1)[0], audio)  # and nothing of it is left to be heard
    np.testing.assert_array_equal(play(seed)[0], audio)


def test_no_arrangement_holds_a_voice_and_many_instruments_come_up() -> None:
    seen: set[int] = set()
    kits: set[int] = set()
    for seed in range(200):
        rng = np.random.default_rng(seed)
        for part in arrange(rng, score_of(seed)).parts:
            (kits if part.sound == "drums" else seen).update(part.programs)
            if part.sound == "drums":  # 71 and 72 are whistles, 78 and 79 cuicas
                assert {note.pitch for note in part.notes} <= {*range(35, 71), *range(73, 78)}
            if part.programs == (ORCHESTRA_KIT,) and part.sound == "drums":
                assert {note.pitch for note in part.notes} <= {35, 38, *range(41, 54), 57, 59}
            if part.sound in ("saw", "noise", "glide"):
                assert not part.programs
    assert not seen & VOICE_PROGRAMS
    assert not {program for family in PROGRAMS.values() for program in family} & VOICE_PROGRAMS
    assert kits <= {*KITS, ORCHESTRA_KIT}
    assert len(seen) >= 80


def test_notes_start_where_they_are_written(font: Path) -> None:
    note = composition.Note(1.0, 1.5, 60.0, 0.8)
    audio = soundfont.play_notes([note], 2 * RATE, RATE, font=font, program=0)
    onset = np.flatnonzero(np.abs(audio).max(axis=1) > 0.01)[0] / RATE
    assert 0.98 < onset < 1.03


def test_a_kit_that_the_font_lacks_is_played_on_the_first(font: Path) -> None:
    note = composition.Note(0.0, 0.5, 38.0, 0.8)
    lacking, first = (
        soundfont.play_notes([note], RATE, RATE, font=font, bank=128, program=program)
        for program in (127, 0)
    )
    assert first.any()
    np.testing.assert_array_equal(lacking, first)


def test_bends_and_tuning_move_the_pitch(font: Path) -> None:
    def pitch_hz(cents: float, bend: float) -> float:
        note = composition.Note(0.0, 1.0, 69.0, 0.8)
        bends = np.full(RATE // soundfont.BEND_HOP, bend)
        x = soundfont.play_notes([note], RATE, RATE, font=font, program=73, cents=cents, bend=bends)
        spectrum = np.abs(np.fft.rfft(x[:, 0] * np.hanning(RATE), 8 * RATE))
        return float(np.argmax(spectrum) / 8)

    plain = pitch_hz(0.0, 0.0)
    assert pitch_hz(30.0, 0.0) / plain == pytest.approx(2 ** (30 / 1200), rel=2e-3)
    assert pitch_hz(0.0, 2.0) / plain == pytest.approx(2 ** (2 / 12), rel=2e-3)


def test_distortion_fills_the_range_of_the_voice(font: Path) -> None:
    notes = [composition.Note(0.0, 2.0, float(pitch), 0.8) for pitch in (40, 47, 52)]
    clean = soundfont.play_notes(notes, 2 * RATE, RATE, font=font, program=27)[:, 0]
    loud = amplifier.amplify(np.random.default_rng(0), clean, RATE, drive_db=35.0)
    before = power(clean, 1000, 4000) / power(clean, 60, 1000)
    after = power(loud, 1000, 4000) / power(loud, 60, 1000)
    assert after > 4 * before


def test_a_missing_fluidsynth_names_the_package(
    monkeypatch: pytest.MonkeyPatch, font: Path
) -> None:
    soundfont.library.cache_clear()
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
    with pytest.raises(UserError, match="install the system package fluidsynth"):
        soundfont.check(font)


def test_no_font_names_the_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(soundfont, "FOLDERS", (str(tmp_path),))
    with pytest.raises(UserError, match="install fluid-soundfont-gm or musescore-general"):
        soundfont.find_fonts()


@pytest.mark.parametrize("content", [b"", b"RIFF\0\0\0\0WAVEfmt ", b"RIFF\x10\0\0\0sfbkLIST"])
def test_what_is_not_a_sound_font_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "song.sf2"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"song\.sf2: not a sound font; expected \.sf2 or \.sf3"):
        soundfont.play_notes([], 100, RATE, font=path, program=0)
    with pytest.raises(UserError, match=r"gone\.sf2: no such sound font; install"):
        soundfont.check(tmp_path / "gone.sf2")
