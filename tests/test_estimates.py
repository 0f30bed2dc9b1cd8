"""Folders of finished estimates: every layout is found, nothing bad passes in silence."""

import dataclasses
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import scored
import soundfile as sf

from diffsep_jax.errors import UserError
from diffsep_jax.evaluation.checked_audio import EstimateError, read_estimate
from diffsep_jax.evaluation.estimates import EstimateFolder
from diffsep_jax.evaluation.estimators import FolderEstimates

SONG = scored.song("A. Band - A Song [live]")
LAYOUTS = {
    "ours": ("{}/vocals.wav", ["{}/accompaniment.wav"]),
    "demucs": (
        "htdemucs/{}/vocals.flac",
        ["htdemucs/{}/drums.flac", "htdemucs/{}/bass.flac", "htdemucs/{}/other.flac"],
    ),
    "demucs, two stems": ("htdemucs_ft/{}/vocals.mp3", ["htdemucs_ft/{}/no_vocals.mp3"]),
    "open-unmix": ("{}/vocals.wav", ["{}/drums.wav", "{}/bass.wav", "{}/other.wav"]),
    "open-unmix, vocals alone": ("{}/vocals.wav", []),
    "msst": ("{}/vocals.wav", ["{}/instrumental.wav"]),
    "msst, two stems": ("{}/vocals.flac", ["{}/other.flac"]),
    "msst, flat": ("{}_vocals.wav", ["{}_instrumental.wav"]),
    "demucs, flat": ("htdemucs/{}_vocals.wav", ["htdemucs/{}_no_vocals.wav"]),
    "audio-separator": (
        "{}_(Vocals)_model_bs_roformer_ep_317_sdr_12.9755.wav",
        ["{}_(Instrumental)_model_bs_roformer_ep_317_sdr_12.9755.wav"],
    ),
}


def write(path, audio, rate=scored.RATE):
    path.parent.mkdir(parents=True, exist_ok=True)
    subtype = {".wav": "FLOAT", ".flac": "PCM_24"}.get(path.suffix)
    sf.write(path, audio, rate, subtype=subtype)
    return path


def estimated(folder, song=SONG):
    """The one estimate of the song in a folder."""
    estimates = FolderEstimates(folder, [song.name])
    (found,) = estimates.estimate(song, estimates.conditions[0], lambda share: None)
    return found


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", [SONG.name, "a.b", "Käse 100%"])
def test_each_layout_is_found_by_the_tracks_name(tmp_path, layout, name):
    vocals, accompaniment = LAYOUTS[layout]
    audio = scored.noise(100, 2)
    for other in (name, f"{name} II", f"x{name}"):
        for path in (vocals, *accompaniment):
            write(tmp_path / path.format(other), audio)
    found = EstimateFolder(tmp_path).find(name)
    assert found.vocals == tmp_path / vocals.format(name)
    assert set(found.accompaniment) == {tmp_path / path.format(name) for path in accompaniment}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("track_form", "file_form"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_letters_of_one_character_or_two_are_the_same(tmp_path, layout, track_form, file_form):
    name = "Käse é" if "{}/" not in LAYOUTS[layout][0] else "Álbum/Käse é"  # as records have
    in_files, in_source = (unicodedata.normalize(form, name) for form in (file_form, track_form))
    assert in_files != in_source
    vocals, accompaniment = LAYOUTS[layout]
    for path in (vocals, *accompaniment):
        write(tmp_path / path.format(in_files), scored.noise(100, 2))
    found = EstimateFolder(tmp_path).find(in_source)
    assert found.vocals == tmp_path / vocals.format(in_files)
    assert len(found.accompaniment) == len(accompaniment)


def test_the_whole_accompaniment_goes_before_its_parts(tmp_path):
    for stem in ("vocals", "drums", "no_vocals"):
        write(tmp_path / "a" / f"{stem}.wav", scored.noise(100, 2))
    assert EstimateFolder(tmp_path).find("a").accompaniment == (tmp_path / "a" / "no_vocals.wav",)


def test_of_two_formats_the_lossless_one_is_taken(tmp_path):
    for suffix in ("mp3", "flac"):
        write(tmp_path / "a" / f"Vocals.{suffix}", scored.noise(2000, 2))
    assert EstimateFolder(tmp_path).find("a").vocals.name == "Vocals.flac"


def test_two_models_are_ambiguous(tmp_path):
    audio = scored.noise(100, 2)
    for model in ("htdemucs", "mdx"):
        write(tmp_path / "nested" / model / "a" / "vocals.wav", audio)
        write(tmp_path / "flat" / f"a_(Vocals)_{model}.wav", audio)
    for layout, places in (("nested", "htdemucs/a.*mdx/a"), ("flat", "_htdemucs.*_mdx")):
        with pytest.raises(UserError, match=f"a: 2 estimates of its vocals .*{places}"):
            EstimateFolder(tmp_path / layout).find("a")
    assert EstimateFolder(tmp_path / "nested" / "mdx").find("a") is not None


def test_a_folder_without_any_of_the_tracks_is_refused(tmp_path):
    write(tmp_path / "b" / "vocals.wav", scored.noise(100, 2))
    message = r"an estimate of none of the 2 tracks; looked for a/vocals\.\*, a_vocals\.\*"
    with pytest.raises(UserError, match=message):
        FolderEstimates(tmp_path, ["a", "c"])
    with pytest.raises(UserError, match="no such folder"):
        FolderEstimates(tmp_path / "gone", ["a"])
    FolderEstimates(tmp_path, ["a", "b"])


def test_accompaniment_is_the_sum_of_its_files_or_the_rest(tmp_path):
    vocals = 0.5 * SONG.vocals
    write(tmp_path / SONG.name / "vocals.wav", vocals)
    found = estimated(tmp_path)
    assert np.array_equal(found.vocals, vocals)
    assert np.array_equal(found.accompaniment, SONG.mixture - vocals)
    assert found.problems == []
    parts = [scored.noise(*vocals.shape, seed=seed) for seed in (5, 6)]
    for part, stem in zip(parts, ("drums", "other"), strict=True):
        write(tmp_path / SONG.name / f"{stem}.wav", part)
    np.testing.assert_allclose(estimated(tmp_path).accompaniment, sum(parts), atol=1e-6)


def test_an_estimate_at_another_rate_is_resampled_and_told(tmp_path):
    time = np.arange(44_100)[:, None] / 44_100
    tone = np.float32(0.1 * np.sin(2 * np.pi * 440 * time) * np.ones((1, 2)))
    for extra in (-1, 0, 1):  # programs round a length in their own ways
        audio = np.pad(tone, ((0, 1), (0, 0)))[: len(tone) + extra]
        path = write(tmp_path / "vocals.wav", audio, 44_100)
        found, (problem,) = read_estimate(path, SONG)
        assert found.shape == SONG.vocals.shape
        np.testing.assert_allclose(found[500:-500], tone[::2][500:-500], atol=1e-3)
        assert problem.kind == "sample rate differs"
        told = f"{path}: 44100 Hz, resampled to 22050 Hz, at which songs are scored"
        assert problem.message == told


def bad_estimates(folder):
    """Files by the problem that they have."""
    audio = SONG.vocals
    nan = audio.copy()
    nan[7, 1] = np.nan
    (folder / "text.wav").write_text("no audio")
    whole = write(folder / "cut.wav", audio).read_bytes()
    (folder / "cut.wav").write_bytes(whole[:-1000])
    return [
        (write(folder / "mono.wav", audio[:, 0]), "channels differ", "1 channels, expected 2"),
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
        assert caught.value.kind == kind
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
        with pytest.raises(EstimateError, match="1 channels, expected 2"):
            read_estimate(path, dataclasses.replace(SONG, **{stem: spread[stem]}))


def test_a_bad_accompaniment_costs_the_vocals_no_score(tmp_path):
    """The mixture less the vocals is taken in its place, and told."""
    for i, (bad, _, message) in enumerate(bad_estimates(tmp_path)):
        folder = tmp_path / str(i)
        write(folder / SONG.name / "vocals.wav", 0.5 * SONG.vocals)
        write(folder / SONG.name / "drums.wav", SONG.accompaniment)
        bad.rename(folder / SONG.name / "bass.wav")
        found = estimated(folder)
        assert np.array_equal(found.vocals, np.float32(0.5) * SONG.vocals)
        assert np.array_equal(found.accompaniment, SONG.mixture - found.vocals)
        (problem,) = found.problems
        assert problem.kind == "bad accompaniment"
        assert str(folder / SONG.name / "bass.wav") in problem.message
        assert message in problem.message
        assert problem.message.endswith("mixture - vocals is taken in its place")


def test_an_accompaniment_is_the_sum_of_its_files(tmp_path):
    write(tmp_path / SONG.name / "vocals.wav", SONG.vocals)
    stems = {name: scored.noise(*SONG.vocals.shape, seed=i) for i, name in enumerate("ab")}
    for name, audio in zip(("drums", "bass"), stems.values(), strict=True):
        write(tmp_path / SONG.name / f"{name}.wav", audio)
    found = estimated(tmp_path)
    np.testing.assert_allclose(found.accompaniment, stems["a"] + stems["b"], atol=1e-6)
    assert found.problems == []


def test_silence_is_told_unless_there_is_nothing_to_hear(tmp_path):
    write(tmp_path / SONG.name / "vocals.wav", 0 * SONG.vocals)
    (problem,) = estimated(tmp_path).problems
    assert problem.kind == "silent estimate"
    assert str(tmp_path / SONG.name / "vocals.wav") in problem.message
    silent = scored.song(SONG.name, silent=True)
    assert estimated(tmp_path, silent).problems == []


def test_a_stamp_changes_with_the_files(tmp_path):
    estimates = [write(tmp_path / name / "vocals.wav", SONG.vocals) for name in ("a", "b")]
    folder = FolderEstimates(tmp_path, ["a", "b", "c"])
    before = [folder.stamp(name) for name in "abc"]
    write(estimates[0], SONG.vocals[:-5])
    write(tmp_path / "c" / "vocals.wav", SONG.vocals)
    after = [FolderEstimates(tmp_path, ["a"]).stamp(name) for name in "abc"]
    assert [old == new for old, new in zip(before, after, strict=True)] == [False, True, False]


def test_a_silent_accompaniment_costs_the_vocals_nothing(tmp_path):
    """BSS Eval would leave out every frame."""
    write(tmp_path / SONG.name / "vocals.wav", 0.5 * SONG.vocals)
    write(tmp_path / SONG.name / "accompaniment.wav", 0 * SONG.vocals)
    found = estimated(tmp_path)
    assert np.array_equal(found.accompaniment, SONG.mixture - found.vocals)
    (problem,) = found.problems
    assert problem.kind == "bad accompaniment"
    assert "accompaniment.wav: silent" in problem.message


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(UserError, match=f"{tmp_path}: cannot be listed: Permission denied"):
        FolderEstimates(tmp_path, ["a"])
