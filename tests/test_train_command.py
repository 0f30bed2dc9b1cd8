"""`train.py` as its users run it: killed and started again, and with bad input."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import micro_config
import numpy as np
import pytest
import soundfile
from runs import assert_equal, restored

import configs
import train
from diffsep_jax.errors import PreemptedError, UserError
from diffsep_jax.inference.pretrained import load_default_preset, load_model
from diffsep_jax.training.checkpoint import CHECKPOINTS

ROOT = pathlib.Path(__file__).parents[1]
MICRO = ROOT / "tests" / "micro_config.py"


def start(*arguments):
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(MICRO.parent)}
    return subprocess.Popen(
        [sys.executable, ROOT / "train.py", *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return out


SLOWLY = """
import time

import micro_config
from data_pipelines import pipeline

def get():
    iterate = pipeline.iterate

    def slowly(*given):
        for batch in iterate(*given):
            time.sleep(0.2)
            yield batch

    pipeline.iterate = slowly
    return micro_config.get()
"""


@pytest.mark.slow
def test_a_run_killed_by_sigkill_and_started_again_equals_one_left_alone(tmp_path):
    cache = f"--data.cache-dir={tmp_path / 'cache'}"
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    finish(start(MICRO, "--workdir", alone, cache))
    slow = tmp_path / "slow.py"
    slow.write_text(SLOWLY)
    victim = start(slow, "--workdir", killed, cache)
    log = killed / "log.jsonl"
    while not (killed / CHECKPOINTS / "3").exists():
        assert victim.poll() is None, victim.stderr.read()
        time.sleep(0.02)
    victim.send_signal(signal.SIGKILL)
    assert victim.wait() == -signal.SIGKILL
    victim.communicate()
    assert not (killed / "model").exists()
    output = finish(start(MICRO, "--workdir", killed, cache))
    assert "resumed from the checkpoint of step" in output
    experiment = micro_config.get()
    states = (restored(each, 15, experiment.model, experiment.train) for each in (killed, alone))
    assert_equal(*states)
    weights = [(run / "model" / "model.safetensors").read_bytes() for run in (killed, alone)]
    assert weights[0] == weights[1]
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == [*range(1, 16), 15]  # each step once, and the validation of the last


SPECTRAL = """
import dataclasses

import micro
import micro_config

def get():
    return dataclasses.replace(micro_config.get(), model=micro.SPECTRAL)
"""


@pytest.mark.slow
def test_two_stages_by_way_of_an_export(tmp_path):
    """The conditioner is trained, exported and stays; then the generator."""
    first, second, spectral = tmp_path / "first", tmp_path / "second", tmp_path / "spectral.py"
    spectral.write_text(SPECTRAL)
    common = [f"--data.cache-dir={tmp_path / 'cache'}", "--train.num-steps=3"]
    run_here(spectral, "--workdir", first, *common, "--train.freeze=generator")
    last = json.loads((first / "log.jsonl").read_text().splitlines()[-1])
    assert "utterance_sdr_direct" in last
    assert "utterance_sdr_ddim" not in last
    assert load_default_preset(str(first / "model")) == "fast"
    (first / "model" / "config.json").unlink()
    run_here(spectral, "--workdir", first, "--export-only")
    assert load_default_preset(str(first / "model")) == "fast"

    given = [*common, "--init-from", first / "model"]
    run_here(spectral, "--workdir", second, *given, "--train.freeze=conditioner")
    assert json.loads((second / "run_config.json").read_text())["fixed"]["init_from"]
    assert load_default_preset(str(second / "model")) == "balanced"
    before, after = (load_model(str(run / "model"))[1] for run in (first, second))
    assert_equal(before["conditioner"], after["conditioner"])
    assert not np.array_equal(
        before["generator"]["out_0"]["bias"], after["generator"]["out_0"]["bias"]
    )

    for config, workdir, message in (
        (MICRO, tmp_path / "third", "the models must be the same"),
        (spectral, first, "init_from is missing there"),
    ):
        with pytest.raises(UserError, match=message):
            run_here(config, "--workdir", workdir, *given, "--model.segment=4096")


def test_sigterm_while_the_data_is_prepared_ends_the_run_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "open_data", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(PreemptedError, match="nothing to save; run the same command again"):
        run_here("tiny", "--workdir", tmp_path)


def run_here(*arguments):
    """The command in this process, which keeps its own handler of SIGTERM."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        train.main([str(each) for each in arguments])
    finally:
        signal.signal(signal.SIGTERM, before)


def test_help_lists_the_fields_with_their_meaning(capsys):
    with pytest.raises(SystemExit):
        train.parse(["--help"])
    text = capsys.readouterr().out
    for words in ("--train.optimizer.learning-rate", "peak, after the warm-up", "--workdir"):
        assert words in text


def test_a_misspelt_override_is_suggested(capsys):
    with pytest.raises(SystemExit):
        train.parse(["tiny", "--workdir", "run", "--train.num-stpes", "3"])
    assert "--train.num-steps" in capsys.readouterr().err


def test_the_config_comes_first():
    with pytest.raises(UserError, match="tiny, tiny_spectral, small"):
        train.parse(["--workdir", "run", "tiny"])


def test_an_unknown_config_lists_the_known_ones():
    with pytest.raises(UserError, match=r"config is 'smal'; .*tiny, tiny_spectral, small,"):
        configs.get("smal")


CONFIG = """
import dataclasses

import micro_config

def get():
    micro = micro_config.get()
    return dataclasses.replace(micro, train=dataclasses.replace(micro.train, STATEMENT))
"""


@pytest.mark.slow
def test_a_run_by_a_config_of_ones_own_and_its_continuation_by_a_copy(toy, tmp_path, capsys):
    options = ["--workdir", tmp_path / "run", f"--data.cache-dir={tmp_path / 'cache'}"]
    for name, steps in (("first.py", 2), ("tiny.py", 3)):
        path = tmp_path / name
        path.write_text(CONFIG.replace("STATEMENT", f"num_steps={steps}"))
        run_here(path, *options)
        settings = json.loads((tmp_path / "run" / "run_config.json").read_text())["settings"]
        assert settings["config"] == str(path)
        assert settings["train"]["num_steps"] == steps
    printed = capsys.readouterr().out
    assert "resumed from the checkpoint of step 2" in printed
    assert f"config was {tmp_path / 'first.py'}, now {path}" in printed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"config is '.*/bad.py'; expected the path of a file"),
        ("def get(:", r"bad\.py: SyntaxError: .*line 1"),
        ("import nothing_of_that_name", r"bad\.py: line 1: ModuleNotFoundError: No module named"),
        ("x = 1", r"bad\.py: get\(\) is missing or gives NoneType; expected it to give an Exp"),
        ("\ndef get():\n    return 1", r"bad\.py: get\(\) is missing or gives int; expected"),
        (CONFIG.replace("STATEMENT", "steps=1"), r"bad\.py: line 8: TypeError: .*steps"),
        (CONFIG.replace("STATEMENT", "log_every=0"), r"bad\.py: line 8: log_every is 0; expected"),
    ],
)
def test_a_bad_config_of_ones_own(tmp_path, text, message):
    path = tmp_path / "bad.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        train.main([str(path), "--workdir", str(tmp_path / "run")])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_nan_in_a_song_ends_the_run_in_one_line_that_names_the_file(toy, tmp_path):
    audio = 0.1 * np.random.default_rng(0).standard_normal((44_100, 2)).astype(np.float32)
    for split, bad in (("train", True), ("validation", False)):
        song = tmp_path / "songs" / split / "a song [live]"
        song.mkdir(parents=True)
        for name in ("vocals", "drums", "bass"):
            stem = audio.copy()
            if bad and name == "bass":
                stem[20_000] = np.nan
            soundfile.write(song / f"{name}.wav", stem, 44_100, subtype="FLOAT")
    with pytest.raises(UserError, match=r"bass\.wav.*20000") as caught:
        run_here("tiny", "--workdir", tmp_path / "run", f"--data.source={tmp_path / 'songs'}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--best"], "--best has no effect without --export-only"),
        (["--export-only", "--init-from", "small"], "--init-from has no effect with --export-only"),
        (["--export-only", "--tracker", "a:b"], "--tracker has no effect with --export-only"),
        (["--inspect", "a.html", "--tracker", "a:b"], "--tracker has no effect with --inspect"),
        (["--inspect", "a.html", "--export-preset", "fast"], "--export-preset has no effect with"),
        (["--data.source", "a", "--data.num-songs", "9"], "--data.num-songs has no effect without"),
        (
            ["--data.pipeline.num-workers", "2", "--data.pipeline.num-threads", "9"],
            "--data.pipeline.num-threads has no effect with worker processes",
        ),
    ],
)
def test_options_without_effect_are_refused(tmp_path, options, message):
    with pytest.raises(UserError, match=f"^{message}"):
        train.main(["Tiny", "--workdir", str(tmp_path), *options])


def test_a_work_folder_whose_name_is_a_pattern_is_refused_before_it_is_made(tmp_path):
    with pytest.raises(UserError, match="treats as a pattern; choose another --workdir"):
        train.main(["tiny", "--workdir", str(tmp_path / "lr[1e-4]")])
    assert not list(tmp_path.iterdir())
