"""`train.py` as its users run it: two stages, and bad input."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
import soundfile

import train
from diffsep_jax.errors import UserError
from diffsep_jax.inference.pretrained import load_default_preset, load_model

ROOT = pathlib.Path(__file__).parents[1]
SMALL_RUN = [
    "--model.segment=4096",
    "--train.num-steps=15",
    "--train.checkpoint-every=3",
    "--train.log-every=1",
    "--train.validate-every=15",
    "--train.validation-batches=1",
    "--train.validation-sampler-steps=2",
    "--data.num-songs=1",
    "--data.validation-songs=1",
    "--data.song-seconds=5",
    "--data.pipeline.batch-size=2",
]


def start(*arguments, cwd=ROOT):
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        [sys.executable, ROOT / "train.py", *map(str, arguments)],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return out


@pytest.mark.slow
def test_two_stages_by_way_of_an_export(tmp_path):
    """The conditioner is trained, exported and stays; then the generator."""
    first, second = tmp_path / "first", tmp_path / "second"
    common = [f"--data.cache-dir={tmp_path / 'cache'}", *SMALL_RUN, "--train.num-steps=3"]
    finish(start("tiny_spectral", "--workdir", first, *common, "--train.freeze=generator"))
    last = json.loads((first / "log.jsonl").read_text().splitlines()[-1])
    assert "utterance_sdr_direct" in last
    assert "utterance_sdr_ddim" not in last
    assert load_default_preset(str(first / "model")) == "fast"
    (first / "model" / "config.json").unlink()
    train.main(["tiny_spectral", "--workdir", str(first), "--export-only"])
    assert load_default_preset(str(first / "model")) == "fast"

    given = ["--workdir", second, *common, "--init-from", first / "model"]
    finish(start("tiny_spectral", *given, "--train.freeze=conditioner"))
    assert json.loads((second / "run_config.json").read_text())["fixed"]["init_from"]
    assert load_default_preset(str(second / "model")) == "balanced"
    before, after = (load_model(str(run / "model"))[1] for run in (first, second))
    jax.tree.map(np.testing.assert_array_equal, before["conditioner"], after["conditioner"])
    assert not np.array_equal(
        before["generator"]["out_0"]["bias"], after["generator"]["out_0"]["bias"]
    )

    error = fails("tiny", "--workdir", tmp_path / "third", *common, "--init-from", first / "model")
    assert "the models must be the same" in error
    error = fails("tiny_spectral", "--workdir", first, *common, "--init-from", first / "model")
    assert "init_from is missing there" in error


def fails(*arguments):
    """The one line that a wrong command ends in."""
    process = start(*arguments)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 2, err
    assert "Traceback" not in err
    return err


def test_help_lists_the_fields_with_their_meaning(capsys):
    with pytest.raises(SystemExit):
        train.parse(["--help"])
    text = capsys.readouterr().out
    for words in ("--train.optimizer.learning-rate", "peak, after the warm-up", "--workdir"):
        assert words in text


def test_a_misspelt_override_is_suggested(capsys):
    with pytest.raises(SystemExit) as error:
        train.parse(["tiny", "--workdir=w", "--train.num-stpes=3"])
    assert error.value.code == 2
    assert "--train.num-steps" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workdir=w", "tiny"], "no config; give one of tiny, tiny_spectral, small"),
        (["smal", "--workdir=w"], r"unknown config 'smal'; .*tiny, tiny_spectral, small,"),
    ],
)
def test_the_config_comes_first_and_is_a_known_one(arguments, message):
    with pytest.raises(UserError, match=message):
        train.parse(arguments)


@pytest.mark.slow
def test_a_nan_in_a_song_ends_the_run_in_one_line_that_names_the_file(tmp_path):
    audio = 0.1 * np.random.default_rng(0).standard_normal((44_100, 2)).astype(np.float32)
    for split, bad in (("train", True), ("validation", False)):
        song = tmp_path / "songs" / split / "a song [live]"
        song.mkdir(parents=True)
        for name in ("vocals", "drums", "bass"):
            stem = audio.copy()
            if bad and name == "bass":
                stem[20_000] = np.nan
            soundfile.write(song / f"{name}.wav", stem, 44_100, subtype="FLOAT")
    err = fails("tiny", "--workdir", tmp_path / "run", f"--data.source={tmp_path / 'songs'}")
    (line,) = [line for line in err.splitlines() if not line.startswith("WARNING")]
    assert line.startswith("error: ")
    assert "bass.wav" in line
    assert "20000" in line
