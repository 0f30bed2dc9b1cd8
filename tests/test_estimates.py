"""Finished estimates: found by a template, nothing bad passes in silence."""

import dataclasses
import unicodedata

import numpy as np
import pytest
import scored
import soundfile as sf

from diffsep_jax.errors import UserError
from diffsep_jax.evaluation.estimates import EstimateError, FileEstimates, read_estimate

SONG = scored.song("A. Band - A Song [live]")


def write(path, audio, rate=scored.RATE):
    path.parent.mkdir(parents=True, exist_ok=True)
    subtype = {".wav": "FLOAT", ".flac": "PCM_24"}.get(path.suffix)
    sf.write(path, audio, rate, subtype=subtype)
    return path


def estimated(template, song=SONG):
    """The one estimate of the song."""
    estimates = FileEstimates(str(template), [song.name])
    (condition,) = estimates.conditions
    (found,) = estimates.estimate(song, condition)
    return found


@pytest.mark.parametrize(
    "template",
    [
        "{track}/vocals.wav",
        "model/{track}_(Vocals)_v1.flac",
        "{track}/{track}.wav",
        "{x}/{track}.aiff",
    ],
)
@pytest.mark.parametrize("name", [SONG.name, "a.b", "Album/Käse 100% {1}"])
def test_a_template_names_the_file_of_a_track(tmp_path, template, name):
    song = dataclasses.replace(SONG, name=name)
    for other in (f"{name} II", f"x{name}"):
        write(tmp_path / template.replace("{track}", other), 0 * SONG.vocals)
    write(tmp_path / template.replace("{track}", name), 0.5 * SONG.vocals)
    found = estimated(tmp_path / template, song)
    np.testing.assert_allclose(found.vocals, 0.5 * SONG.vocals, atol=1e-4)
    assert found.problems == []


@pytest.mark.parametrize(("track_form", "file_form"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_letters_of_one_character_or_two_are_the_same(tmp_path, track_form, file_form):
    in_files, in_source = (
        unicodedata.normalize(form, "Álbum/Käse é") for form in (file_form, track_form)
    )
    assert in_files != in_source
    write(tmp_path / in_files / "vocals.wav", SONG.vocals)
    song = dataclasses.replace(SONG, name=in_source)
    assert np.array_equal(estimated(tmp_path / "{track}" / "vocals.wav", song).vocals, SONG.vocals)


def test_a_template_without_any_track_is_refused(tmp_path):
    write(tmp_path / "b" / "vocals.wav", SONG.vocals)
    template = str(tmp_path / "{track}" / "vocals.wav")
    message = r"at least one of the 2 tracks, such as .*/a/vocals\.wav$"
    with pytest.raises(UserError, match=message):
        FileEstimates(template, ["a", "c"])
    with pytest.raises(UserError, match=r"expected a path with \{track\} in it"):
        FileEstimates(str(tmp_path), ["a"])
    FileEstimates(template, ["a", "b"])


def test_a_missing_track_is_one_line(tmp_path):
    write(tmp_path / "b.wav", SONG.vocals)
    estimates = FileEstimates(str(tmp_path / "{track}.wav"), ["b", SONG.name])
    with pytest.raises(EstimateError) as caught:
        list(estimates.estimate(SONG, *estimates.conditions))
    assert caught.value.problem["kind"] == "missing estimate"
    assert str(caught.value) == f"{SONG.name}: no estimate at {tmp_path / SONG.name}.wav"


def test_an_estimate_at_another_rate_is_resampled_and_told(tmp_path):
    time = np.arange(44_100)[:, None] / 44_100
    tone = np.float32(0.1 * np.sin(2 * np.pi * 440 * time) * np.ones((1, 2)))
    for extra in (-1, 0, 1):  # programs round a length in their own ways
        audio = np.pad(tone, ((0, 1), (0, 0)))[: len(tone) + extra]
        path = write(tmp_path / "vocals.wav", audio, 44_100)
        found, (problem,) = read_estimate(path, SONG)
        assert found.shape == SONG.vocals.shape
        np.testing.assert_allclose(found[500:-500], tone[::2][500:-500], atol=1e-3)
        assert problem["kind"] == "sample rate differs"
        told = f"{path}: 44100 Hz, resampled to 22050 Hz, at which songs are scored"
        assert problem["message"] == told


def bad_estimates(folder):
    """Files by the problem that they have."""
    audio = SONG.vocals
    nan = audio.copy()
    nan[7, 1] = np.nan
    (folder / "text.wav").write_text("no audio")
    whole = write(folder / "cut.wav", audio).read_bytes()
    (folder / "cut.wav").write_bytes(whole[:-1000])
    return [
        (write(folder / "mono.wav", audio[:, 0]), "channels differ", "1 channels; expected 2"),
        (write(folder / "long.wav", np.pad(audio, ((0, 1), (0, 0)))), "length differs", "22051"),
        (write(folder / "short.wav", audio[:-1]), "length differs", "22049 samples"),
        (write(folder / "fast.wav", audio, 44_100), "length differs", "expected 44100"),
        (write(folder / "nan.wav", nan), "NaN in the estimate", "at sample 7"),
        (folder / "text.wav", "unreadable estimate", "not an audio file"),
        (folder / "cut.wav", "unreadable estimate", "truncated"),
    ]


def test_bad_estimates_are_told_in_one_line(tmp_path):
    for path, kind, message in bad_estimates(tmp_path):
        with pytest.raises(EstimateError) as caught:
            read_estimate(path, SONG)
        assert caught.value.problem["kind"] == kind
        assert str(path) in str(caught.value)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_mono_estimate_of_a_mono_song_is_spread_as_the_song_was(tmp_path):
    spread = {
        stem: np.repeat(getattr(SONG, stem)[:, :1], 2, axis=1)
        for stem in ("vocals", "accompaniment")
    }
    path = write(tmp_path / "vocals.wav", SONG.vocals[:, 0])
    found, problems = read_estimate(path, dataclasses.replace(SONG, **spread))
    assert np.array_equal(found, spread["vocals"])
    assert problems == []
    for stem in spread:  # one stem in the middle makes no mono song
        with pytest.raises(EstimateError, match="1 channels; expected 2"):
            read_estimate(path, dataclasses.replace(SONG, **{stem: spread[stem]}))


def test_silence_is_reported_unless_there_is_nothing_to_hear(tmp_path):
    path = write(tmp_path / SONG.name / "vocals.wav", 0 * SONG.vocals)
    template = tmp_path / "{track}" / "vocals.wav"
    (problem,) = estimated(template).problems
    assert problem["kind"] == "silent estimate"
    assert str(path) in problem["message"]
    assert estimated(template, scored.song(SONG.name, silent=True)).problems == []


def test_a_stamp_changes_with_the_file(tmp_path):
    template = str(tmp_path / "{track}.wav")
    for name in ("a", "b"):
        write(tmp_path / f"{name}.wav", SONG.vocals)
    estimates = FileEstimates(template, ["a", "b", "c"])
    before = [estimates.stamp(name) for name in "abc"]
    write(tmp_path / "a.wav", SONG.vocals[:-5])
    write(tmp_path / "c.wav", SONG.vocals)
    after = [estimates.stamp(name) for name in "abc"]
    assert [old == new for old, new in zip(before, after, strict=True)] == [False, True, False]
