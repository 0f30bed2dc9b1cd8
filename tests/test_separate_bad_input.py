"""`diffsep separate` with bad files, options, names and folders: one line each, nothing written."""

import numpy as np
import pytest
import soundfile as sf
from halving import RATE, fails, noise, run, song

from diffsep_jax.inference import separator as separator_module

pytestmark = pytest.mark.usefixtures("halving")


def test_a_refinement_that_cannot_be_is_refused(tmp_path, capsys):
    path, short = song(tmp_path / "a.wav"), song(tmp_path / "short.wav", noise(20_009, 2))
    out = ["--out", tmp_path / "out", "--start-sigma", 0.3]
    for arguments, message in [
        ([path, short, "--refine", path], "expected one input"),
        (
            [path, "--refine", short],
            f"{short}: its length is 20009 samples at 44100 Hz; expected 20011",
        ),
    ]:
        error = fails(capsys, *arguments, *out)
        assert message in error
        assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_song_without_earlier_vocals_does_not_stop_the_others(tmp_path, capsys):
    paths = [song(tmp_path / name) for name in ("a.wav", "b.wav", "c.wav")]
    run(*paths[::2], "--out", tmp_path / "first")
    capsys.readouterr()
    options = ["--refine", tmp_path / "first", "--start-sigma", 0.3]
    error = fails(capsys, *paths, "--out", tmp_path / "out", *options)
    expected = tmp_path / "first" / "b" / "vocals.wav"
    assert error.splitlines() == [
        f"error: {paths[1]}: no vocals to refine; expected {expected}",
        "1 of 3 files failed",
    ]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a", "c"]


def bad_files(folder):
    """Each with a part of its message, and whether its header tells."""
    folder.mkdir()
    text = folder / "text.wav"
    text.write_text("words " * 99)
    empty = folder / "empty.wav"
    empty.touch()
    cut = song(folder / "cut.mp3")
    cut.write_bytes(cut.read_bytes()[:9000])
    nan = folder / "nan.wav"
    sf.write(nan, np.full((100, 2), np.nan), RATE, subtype="FLOAT")
    return [
        (folder / "gone.wav", "No such file", True),
        (text, "not an audio file", True),
        (empty, "the file is empty", True),
        (cut, "truncated or damaged", True),
        (song(folder / "none.wav", noise(0, 2)), "no samples", False),
        (nan, "NaN or infinity at sample 0", False),
        (song(folder / "wide.wav", noise(100, 6)), "6 channels; expected mono or stereo", True),
    ]


def test_a_bad_header_is_reported_before_the_model_is_loaded(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(separator_module, "load_model", pytest.fail)
    for path, _, in_header in bad_files(tmp_path / "bad"):
        if in_header:
            assert fails(capsys, path, "--out", tmp_path / "out").startswith(f"error: {path}: ")


def test_bad_files_are_reported_and_the_others_separated(tmp_path, capsys):
    files = bad_files(tmp_path / "bad")
    good = [song(tmp_path / name) for name in ("a.wav", "z.wav")]
    paths = [good[0], *(path for path, *_ in files), good[1]]
    with pytest.raises(SystemExit) as error:
        run(*paths, "--out", tmp_path / "out")
    assert error.value.code == 2
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    for line, (path, message, _) in zip(lines, files, strict=False):
        assert line.startswith(f"error: {path}: ")
        assert message in line
    assert lines[len(files) :] == ["7 of 9 files failed"]
    assert printed.out.count("real-time factor") == 3
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a", "z"]


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--steps", 0, "steps is 0; expected 1 to 1000000"),
        ("--batch-size", 0, "batch size is 0; expected at least 1"),
        ("--model", "smal", "unknown model 'smal'; known models: small"),
        ("--step", 3, "--steps"),  # a suggestion
        ("--sampler", "dim", "ddim"),
        ("--start", -1, "start is -1.0; expected 0 seconds or more"),
        ("--start", 9, "start is 9 s; expected less than its length"),
        ("--duration", 0, "duration is 0.0; expected more than 0 seconds"),
        ("--sample-rate", 10, "sample rate is 10; expected 1000 to 1000000 Hz"),
        ("--name", "{title}", "name is '{title}'; expected a path below --out"),
        ("--subtype", "pcm8", "subtype is pcm8 with wav; expected"),
    ],
)
def test_bad_options(tmp_path, capsys, option, value, message):
    song(tmp_path / "a.wav")
    assert message in fails(capsys, tmp_path / "a.wav", "--out", tmp_path / "out", option, value)
    assert not (tmp_path / "out").exists()


def test_out_that_is_not_a_folder(tmp_path, capsys):
    path = song(tmp_path / "a.wav")
    for out in (path, path / "under"):
        assert "cannot be written: Not a directory" in fails(capsys, path, "--out", out)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").write_text("a file where the song's folder should be")
    assert "cannot be created: File exists" in fails(capsys, path, "--out", tmp_path / "out")
