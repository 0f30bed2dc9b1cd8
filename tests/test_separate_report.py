"""What `diffsep separate` tells: lines, events, seconds."""

import io
import json
import re
import sys
import time

import jax.numpy as jnp
import pytest
from halving import RATE, Halving, noise, run, song

pytestmark = pytest.mark.usefixtures("halving")


def test_progress_for_programs(tmp_path, capsys):
    path, gone = song(tmp_path / "a.wav"), tmp_path / "gone.wav"
    with pytest.raises(SystemExit):
        run(path, gone, "--out", tmp_path / "out", "--progress", "json")
    printed = capsys.readouterr()
    events = [json.loads(line) for line in printed.out.splitlines()]
    assert printed.err == ""
    kinds = [event["event"] for event in events]
    assert kinds == ["begin", *["progress"] * (len(events) - 4), "done", "error", "end"]
    total = events[1]["chunks"]
    assert [event["chunks_done"] for event in events[1:-3]] == list(range(total + 1))
    assert events[-3]["outputs"]["vocals"] == str(tmp_path / "out" / "a" / "vocals.wav")
    assert events[-2] | {"message": ""} == {"event": "error", "file": str(gone), "message": ""}
    assert events[-1] == {"event": "end", "done": 1, "failed": 1}
    run(path, "--out", tmp_path / "out", "--progress", "quiet")
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "")


def test_no_event_before_the_model_is_there(tmp_path, capsys):
    path = song(tmp_path / "a.wav")
    with pytest.raises(SystemExit):
        run(path, "--out", tmp_path / "out", "--progress", "json", "--model", "smal")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "error: unknown model 'smal'; known models: small\n"


@pytest.mark.parametrize("refine", [False, True])
def test_the_seconds_of_the_first_file_are_without_compiling(
    tmp_path,
    capsys,
    monkeypatch,
    refine,
):
    compiled = set()

    def compile_(self, settings, *, refines):
        if refines not in compiled:  # with a guess it is another program
            time.sleep(2)
            compiled.add(refines)

    def call(self, mixture, start, settings, guess):
        compile_(self, settings, refines=guess is not None)
        return jnp.asarray(mixture / 2)

    monkeypatch.setattr(Halving, "compile", compile_)
    monkeypatch.setattr(Halving, "__call__", call)
    path = song(tmp_path / "a.wav")
    options = ["--refine", path, "--start-sigma", 0.3] if refine else []
    run(path, "--out", tmp_path / "out", "--progress", "json", *options)
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert compiled == {refine}
    assert events[-2]["event"] == "done"
    assert events[-2]["seconds"] < 1.5


def test_a_moment_has_no_real_time_factor(tmp_path, capsys):
    path = song(tmp_path / "a.wav", noise(1, 2))
    run(path, "--out", tmp_path)
    printed = capsys.readouterr().out
    assert printed.count("0.0 s of audio") == 1
    assert "factor" not in printed


def test_brackets_in_a_songs_name_are_no_markup(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then draws the bar
    for name in ("Song [live]", "Song [b]"):
        run(song(tmp_path / f"{name}.wav"), "--out", tmp_path / "out")
        printed = capsys.readouterr()
        assert name in printed.out
        assert name in printed.err
    # A closing tag as in "[/b]" can come in an input's path alone.
    (tmp_path / "[").mkdir()
    run(song(tmp_path / "[" / "b].wav"), "--out", tmp_path / "out")


def test_one_bar_over_all_songs_fits_a_narrow_terminal(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then draws the bar
    monkeypatch.setenv("COLUMNS", "80")
    songs = [song(tmp_path / f"{number}{'x' * 90}.wav", noise(RATE)) for number in range(3)]
    run(*songs, "--out", tmp_path / "out")
    printed = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    bars = [line.strip() for line in re.split(r"[\r\n]", printed) if "%" in line]
    assert all(len(line) < 80 for line in bars)
    last = bars[-1]
    assert re.fullmatch(r"3/3 2x+\S+ \S+ 100% 0:00:02 of audio, left: 0:00:00", last), last


def test_a_song_whose_name_the_terminal_cannot_show(tmp_path, monkeypatch):
    path = song(tmp_path / "s\u00f6ng.wav")
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding="ascii"))
    run(path, "--out", tmp_path / "out")
    sys.stdout.flush()
    assert b"s\\xf6ng.wav -> " in printed.getvalue()
    assert (tmp_path / "out" / "s\u00f6ng" / "vocals.wav").is_file()
