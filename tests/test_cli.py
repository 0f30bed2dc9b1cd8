"""The command and the Python interface, from files to files, with a model that halves its input."""

import contextlib
import dataclasses
import io
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
import soundfile as sf

from diffsep_jax import cli, encoding
from diffsep_jax.audio import read_audio
from diffsep_jax.encoding import FORMATS
from diffsep_jax.errors import PreemptedError, UserError
from diffsep_jax.inference import separator as separator_module
from diffsep_jax.inference.pretrained import save_model
from diffsep_jax.inference.separator import Separator
from diffsep_jax.inference.settings import PRESETS, SamplerSettings
from diffsep_jax.inference.track import STEMS
from diffsep_jax.models.conditioner import Conditioner
from diffsep_jax.models.generator import Generator
from diffsep_jax.output import replacing_together
from diffsep_jax.separation_model import Params, SeparationModel

RATE = 44_100

NETWORK = {
    "widths": (16, 16, 16),
    "factors": (4, 4),
    "patch_size": 8,
    "attention_levels": 1,
    "attention_width": 16,
    "attention_heads": 2,
    "injection_levels": 1,
}
TINY = SeparationModel(
    segment=4096,
    generator=Generator(blocks=(1, 1), fourier_features=16, embedding_width=16, **NETWORK),
    conditioner=Conditioner(
        transformer_layers=1, transformer_width=16, transformer_heads=2, **NETWORK
    ),
)


class Halving:
    """In place of the compiled chunk program: vocals = mixture / 2; remembers its settings."""

    segment = 4096
    stride = 128
    sample_rate = RATE
    settings: SamplerSettings
    guess: np.ndarray | None

    def __init__(self, model: object, params: object, *, batch_size: int) -> None:
        self.batch_size = batch_size

    def __call__(
        self,
        mixture: np.ndarray,
        start: np.ndarray,
        settings: SamplerSettings,
        guess: np.ndarray | None = None,
    ) -> np.ndarray:
        Halving.settings = settings
        Halving.guess = guess
        return mixture / 2


def load_halving(name_or_dir: str) -> tuple[SeparationModel, Params]:
    if name_or_dir != "small":
        raise UserError(f"unknown model {name_or_dir!r}; known models: small")
    return TINY, {}


@pytest.fixture(autouse=True)
def halving(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(separator_module, "ChunkSeparator", Halving)
    monkeypatch.setattr(separator_module, "load_model", load_halving)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():  # the command's own are for its process
        signal.signal(number, handler)


def noise(*shape: int) -> np.ndarray:
    return np.float32(0.1) * np.random.default_rng(0).standard_normal(shape, np.float32)


def song(path: Path, audio: np.ndarray | None = None, rate: int = RATE) -> Path:
    sf.write(path, noise(20_011, 2) if audio is None else audio, rate)
    return path


def run(*args: object) -> None:
    cli.main(["separate", *map(str, args)])


def fails(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    """Runs a command that must end with status 2 and no traceback; returns its message."""
    with pytest.raises(SystemExit) as error:
        run(*args)
    assert error.value.code == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return message


# --- The command.


@pytest.mark.parametrize("num_channels", [1, 2])
@pytest.mark.parametrize("rate", [22_050, 44_100, 48_000])
def test_file_to_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rate: int, num_channels: int
) -> None:
    path = song(tmp_path / "my song.wav", noise(30_011, num_channels), rate)
    run(path, "--out", tmp_path / "new" / "out")
    folder = tmp_path / "new" / "out" / "my song"
    mixture, _ = read_audio(path)
    stems = {}
    for stem in STEMS:
        info = sf.info(folder / f"{stem}.wav")
        assert (info.samplerate, info.channels) == (rate, num_channels)
        assert (info.frames, info.subtype) == (len(mixture), "FLOAT")
        stems[stem], _ = read_audio(folder / f"{stem}.wav")
    assert np.array_equal(stems["accompaniment"], mixture - stems["vocals"])
    if rate == RATE:
        np.testing.assert_allclose(stems["vocals"], mixture / 2, rtol=1e-6)
    assert sorted(folder.iterdir()) == sorted(folder / f"{stem}.wav" for stem in STEMS)
    summary = capsys.readouterr().out
    assert "my song.wav -> " in summary
    assert "s, real-time factor 0." in summary
    assert summary.count("\n") == 1


def test_options_reach_the_sampler(tmp_path: Path) -> None:
    options = ["--steps", 7, "--eta", 0.1, "--cutoff-hz", "None", "--seed", 5]
    options += ["--sampler", "dpm2m", "--start-sigma", 0.5, "--ensemble", 3]
    run(song(tmp_path / "a.wav"), "--out", tmp_path, *options)
    assert Halving.settings == SamplerSettings(
        sampler="dpm2m", steps=7, eta=0.1, cutoff_hz=None, start_sigma=0.5, ensemble=3, seed=5
    )
    assert Halving.guess is None
    run(song(tmp_path / "a.wav"), "--out", tmp_path)
    assert Halving.settings == SamplerSettings()


def test_an_earlier_result_is_refined(tmp_path: Path) -> None:
    """Its level relative to the mixture's is kept, and it may be the file that is replaced."""
    path = song(tmp_path / "a.wav", noise(4096, 2))
    run(path, "--out", tmp_path)
    refine = ["--refine", tmp_path / "a" / "vocals.wav", "--start-sigma", 0.3]
    run(path, "--out", tmp_path, "--batch-size", 1, *refine)
    mixture, _ = read_audio(path)
    level = np.sqrt(np.mean(np.square(mixture)))
    np.testing.assert_allclose(Halving.guess[0], mixture / 2 / level, rtol=1e-5)
    assert read_audio(tmp_path / "a" / "vocals.wav")[0].shape == mixture.shape


def test_a_refinement_that_cannot_be_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, short = song(tmp_path / "a.wav"), song(tmp_path / "short.wav", noise(20_009, 2))
    out = ["--out", tmp_path / "out"]
    for arguments, message in [
        ([path, "--refine", path], "start_sigma 1 is pure noise"),
        ([path, "--refine", path, "--start-sigma", 0.3, "--sampler", "direct"], "ddim or dpm2m"),
        ([path, short, "--refine", path, "--start-sigma", 0.3], "expected one input"),
        (
            [path, "--refine", short, "--start-sigma", 0.3],
            f"{short}: 20009 samples at 44100 Hz, expected the length of {path}, 20011 samples",
        ),
        ([path, "--refine", tmp_path / "gone.wav", "--start-sigma", 0.3], "No such file"),
    ]:
        error = fails(capsys, *arguments, *out)
        assert message in error
        assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_song_without_earlier_vocals_does_not_stop_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [song(tmp_path / name) for name in ("a.wav", "b.wav", "c.wav")]
    run(*paths[::2], "--out", tmp_path / "first")
    capsys.readouterr()
    options = ["--refine", tmp_path / "first", "--start-sigma", 0.3]
    error = fails(capsys, *paths, "--out", tmp_path / "out", *options)
    expected = tmp_path / "first" / "b" / "vocals.wav"
    assert error.splitlines() == [
        f"error: {paths[1]}: no vocals to refine, expected {expected}",
        "1 of 3 files failed",
    ]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a", "c"]


def test_several_inputs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [song(tmp_path / name) for name in ("a.wav", "b.flac", "c.mp3")]
    run(*paths, "--out", tmp_path / "out", "--batch-size", 2, "--overlap", 0.5)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a", "b", "c"]
    assert capsys.readouterr().out.count("real-time factor") == 3


@pytest.mark.parametrize("audio", [np.zeros((RATE, 2), np.float32), noise(RATE), noise(1, 2)])
def test_silence_one_second_and_one_sample(tmp_path: Path, audio: np.ndarray) -> None:
    run(song(tmp_path / "a.wav", audio), "--out", tmp_path)
    vocals, _ = read_audio(tmp_path / "a" / "vocals.wav")
    assert len(vocals) == len(audio)
    assert vocals.any() == audio.any()


def bad_files(folder: Path) -> list[tuple[Path, str, bool]]:
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
        (song(folder / "wide.wav", noise(100, 6)), "6 channels, expected mono or stereo", True),
    ]


def test_a_bad_header_is_told_before_the_model_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(name: str) -> None:
        raise AssertionError("loaded")

    files = bad_files(tmp_path / "bad")
    for path, message, in_header in files:
        if in_header:
            monkeypatch.setattr(separator_module, "load_model", load)
        else:
            monkeypatch.setattr(separator_module, "load_model", load_halving)
        error = fails(capsys, path, "--out", tmp_path / "out")
        assert error.startswith(f"error: {path}: ")
        assert message in error
        assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_bad_files_are_told_and_the_others_separated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
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
    assert printed.out.count("real-time factor") == 2
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a", "z"]


# --- Options of the results.


def test_a_folder_is_one_job_and_resume_does_what_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("album/a.wav", "album/cd2/b.flac"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        song(tmp_path / name)
    out = tmp_path / "out"
    run(tmp_path / "album", "--out", out, "--batch-size", 3)
    results = sorted(path.relative_to(out) for path in out.rglob("*.wav"))
    assert [str(path) for path in results] == [
        "a/accompaniment.wav",
        "a/vocals.wav",
        "cd2/b/accompaniment.wav",
        "cd2/b/vocals.wav",
    ]
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.wav")}
    (out / "cd2/b/vocals.wav").unlink()
    capsys.readouterr()
    run(tmp_path / "album", "--out", out, "--resume")
    assert "1 finished before, 1 to do" in capsys.readouterr().out
    changed = {path.parent.name for path in before if path.stat().st_mtime_ns != before[path]}
    assert changed == {"b"}


@pytest.mark.parametrize(
    ("options", "info"),
    [
        (["--format", "flac"], ("FLAC", "PCM_24")),
        (["--format", "flac", "--subtype", "pcm16"], ("FLAC", "PCM_16")),
        (["--subtype", "pcm24"], ("WAV", "PCM_24")),
        (["--format", "mp3", "--bitrate-kbps", 192], ("MP3", "MPEG_LAYER_III")),
        (["--format", "ogg"], ("OGG", "VORBIS")),
    ],
)
def test_formats(tmp_path: Path, options: list[object], info: tuple[str, str]) -> None:
    path = song(tmp_path / "a.wav", noise(30_011, 2))
    run(path, "--out", tmp_path, "--stems", "vocals", *options)
    [result] = (tmp_path / "a").iterdir()
    assert result.stem == "vocals"
    written = sf.info(result)
    assert (written.format, written.subtype) == info
    vocals, rate = read_audio(result)
    assert (vocals.shape, rate) == ((30_011, 2), RATE)


def test_another_sample_rate_and_an_excerpt(tmp_path: Path) -> None:
    """The stems add up to the mixture at the new rate, and an excerpt is a part of the whole."""
    path = song(tmp_path / "a.wav", noise(60_000, 2))
    rate = ["--sample-rate", 22_050]
    run(path, "--out", tmp_path / "whole", *rate)
    run(path, "--out", tmp_path / "part", *rate, "--start", 0.5, "--duration", 0.25)
    for stem in STEMS:
        whole, _ = read_audio(tmp_path / "whole" / "a" / f"{stem}.wav")
        part, part_rate = read_audio(tmp_path / "part" / "a" / f"{stem}.wav")
        assert part_rate == 22_050
        assert len(whole) == 30_000
        assert np.array_equal(part, whole[11_025 : 11_025 + 5512])


def test_clipping_is_counted_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    audio = np.zeros((5000, 2), np.float32)
    audio[100:110] = 3.0
    sf.write(tmp_path / "a.wav", audio, RATE, subtype="FLOAT")
    run(tmp_path / "a.wav", "--out", tmp_path, "--subtype", "pcm16")
    error = capsys.readouterr().err
    assert error.count("20 samples past full scale were clipped (the peak is 1.50)") == 2
    assert read_audio(tmp_path / "a" / "vocals.wav")[0].max() == 32767 / 32768
    run(tmp_path / "a.wav", "--out", tmp_path)
    assert capsys.readouterr().err == ""
    np.testing.assert_allclose(read_audio(tmp_path / "a" / "vocals.wav")[0].max(), 1.5, rtol=1e-6)
    run(tmp_path / "a.wav", "--out", tmp_path, "--subtype", "pcm24", "--clip", "rescale")
    assert "multiplied by 0.6667" in capsys.readouterr().err
    message = fails(
        capsys, tmp_path / "a.wav", "--out", tmp_path, "--subtype", "pcm24", "--clip", "refuse"
    )
    assert "vocals.wav" in message


def test_progress_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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


def test_a_dry_run_plans_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = song(tmp_path / "a.wav", noise(40_000, 2))
    run(path, "--out", tmp_path / "out", "--dry-run", "--steps", 7, "--ensemble", 2)
    printed = capsys.readouterr().out
    # 4096 samples of which 768 overlap, a multiple of the stride.
    chunks = 1 + math.ceil((40_000 - 4096) / (4096 - 768))
    for text in (
        f"{path} -> {tmp_path / 'out' / 'a' / 'vocals.wav'}, ",
        f"in all: 0.9 s of audio, at most {chunks} chunks",
        f"{chunks} conditioner calls, {14 * chunks} generator calls",
    ):
        assert text in printed
    assert f"{math.ceil(chunks / 4)} batches of 4 chunks" in printed
    assert not (tmp_path / "out").exists()


def test_a_dry_run_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, gone = song(tmp_path / "a.wav", noise(40_000, 2)), tmp_path / "gone.wav"
    with pytest.raises(SystemExit) as error:
        run(path, gone, "--out", tmp_path / "out", "--dry-run", "--progress", "json", "--steps", 7)
    assert error.value.code == 2
    printed = capsys.readouterr()
    assert printed.err == ""
    plan, failure, total = [json.loads(line) for line in printed.out.splitlines()]
    chunks = 1 + math.ceil((40_000 - 4096) / (4096 - 768))
    work = {
        "audio_seconds": 40_000 / RATE,
        "chunks": chunks,
        "conditioner_calls": chunks,
        "generator_calls": 7 * chunks,
    }
    outputs = {stem: str(tmp_path / "out" / "a" / f"{stem}.wav") for stem in STEMS}
    assert plan == {"event": "plan", "file": str(path), "outputs": outputs, **work}
    assert (failure["event"], failure["file"]) == ("error", str(gone))
    assert total.pop("seconds") >= 0
    batches = math.ceil(chunks / 4)
    assert total == {"event": "total", "files": 1, "failed": 1, "batches": batches, **work}


def test_no_event_before_the_model_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = song(tmp_path / "a.wav")
    with pytest.raises(SystemExit):
        run(path, "--out", tmp_path / "out", "--progress", "json", "--model", "smal")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "error: unknown model 'smal'; known models: small\n"


@pytest.mark.parametrize("refine", [False, True])
def test_the_seconds_of_the_first_file_are_without_compiling(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    refine: bool,
) -> None:
    compiled = set()

    def compiles(self: Halving, mixture: np.ndarray, *arguments: object) -> np.ndarray:
        program = arguments[-1] is not None  # with a guess it is another program
        if program not in compiled:
            time.sleep(2)
            compiled.add(program)
        return mixture / 2

    monkeypatch.setattr(Halving, "__call__", compiles)
    path = song(tmp_path / "a.wav")
    options = ["--refine", path, "--start-sigma", 0.3] if refine else []
    run(path, "--out", tmp_path / "out", "--progress", "json", *options)
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert compiled == {refine}
    assert events[-2]["event"] == "done"
    assert events[-2]["seconds"] < 1.5


def test_a_moment_has_no_real_time_factor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = song(tmp_path / "a.wav", noise(1, 2))
    run(path, "--out", tmp_path)
    run(path, "--out", tmp_path, "--dry-run")
    printed = capsys.readouterr().out
    assert printed.count("0.0 s of audio") == 3
    assert "factor" not in printed


@pytest.mark.parametrize("form", [("--preset", "fast"), ("--preset=fast",)])
def test_single_options_go_before_the_presets(tmp_path: Path, form: tuple[str, ...]) -> None:
    path = song(tmp_path / "a.wav")
    run(path, "--out", tmp_path, *form)
    assert Halving.settings == PRESETS["fast"].settings
    run(path, "--out", tmp_path, "--seed", 7, *form)
    assert Halving.settings == dataclasses.replace(PRESETS["fast"].settings, seed=7)


def test_the_same_bytes_twice(tmp_path: Path) -> None:
    path = song(tmp_path / "a.wav", noise(30_011, 2))
    for extension in FORMATS:
        runs = []
        for out in ("first", "second"):
            run(path, "--out", tmp_path / out, "--format", extension)
            runs.append((tmp_path / out / "a" / f"vocals.{extension}").read_bytes())
        assert runs[0] == runs[1]


# --- Bad options.


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--steps", 0, "steps 0, expected 1 to 1000000"),
        ("--steps", 2**31, "steps 2147483648, expected 1 to 1000000"),
        ("--eta", 1.5, "eta 1.5, expected 0 to 1"),
        ("--cutoff-hz", -1, "cutoff_hz -1.0, expected"),
        ("--cutoff-hz", 22_050, "cutoff_hz 22050.0, expected less than 22050.0"),
        ("--seed", -1, "seed -1, expected"),
        ("--start-sigma", 0, "start_sigma 0.0, expected 1e-06 to 1"),
        ("--start-sigma", 1.1, "start_sigma 1.1, expected 1e-06 to 1"),
        ("--start-sigma", "nan", "start_sigma nan, expected 1e-06 to 1"),
        ("--ensemble", 0, "ensemble 0, expected 1 to 10000"),
        ("--overlap", 0.6, "overlap 0.6, expected"),
        ("--batch-size", 0, "batch size 0, expected at least 1"),
        ("--model", "smal", "unknown model 'smal'; known models: small"),
        ("--step", 3, "--steps"),  # a suggestion
        ("--sampler", "dim", "ddim"),
        ("--preset", "quick", "balanced"),
        ("--start", -1, "start -1.0, expected 0 seconds or more"),
        ("--start", 9, "start at 9 s, expected less than its length"),
        ("--duration", 0, "duration 0.0, expected more than 0 seconds"),
        ("--sample-rate", 10, "sample rate 10, expected 1000 to 1000000 Hz"),
        ("--name", "{title}", "{title} is unknown"),
        ("--bitrate-kbps", 320, "bitrate 320 kbps with wav"),
        ("--list", "gone.txt", "gone.txt: cannot be read: No such file"),
    ],
)
def test_bad_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: object, message: str
) -> None:
    song(tmp_path / "a.wav")
    assert message in fails(capsys, tmp_path / "a.wav", "--out", tmp_path / "out", option, value)
    assert not (tmp_path / "out").exists()


def test_no_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "expected at least one audio file" in fails(capsys, "--out", tmp_path)


def test_out_that_is_not_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = song(tmp_path / "a.wav")
    for out in (path, path / "under"):
        assert "cannot be written: Not a directory" in fails(capsys, path, "--out", out)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").write_text("a file where the song's folder should be")
    assert "cannot be made: File exists" in fails(capsys, path, "--out", tmp_path / "out")


def test_results_that_would_collide(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "vocals").mkdir()
    first, second = song(tmp_path / "a.wav"), song(tmp_path / "A.flac")
    assert "would be that of" in fails(capsys, first, second, "--out", tmp_path / "out")
    own = song(tmp_path / "vocals" / "vocals.wav")
    assert "is an input and would be replaced" in fails(capsys, own, "--out", tmp_path)


@pytest.mark.parametrize("error", [KeyboardInterrupt, PreemptedError, UserError])
def test_interrupt_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def interrupted(self: Halving, mixture: np.ndarray, start: np.ndarray, *_: object):
        if start[0] > 0:
            raise error
        return mixture

    monkeypatch.setattr(Halving, "__call__", interrupted)
    path = song(tmp_path / "a.wav", noise(90_000, 2))
    with pytest.raises(SystemExit) as exit_:
        run(path, "--out", tmp_path / "out")
    assert exit_.value.code == {KeyboardInterrupt: 130, PreemptedError: 75, UserError: 2}[error]
    assert not (tmp_path / "out").exists()
    run(song(tmp_path / "short.wav", noise(4000, 2)), "--out", tmp_path / "out")  # one chunk
    with pytest.raises(SystemExit):
        run(path, "--out", tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["short"]


def test_sigterm_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def terminated(self: Halving, mixture: np.ndarray, start: np.ndarray, *_: object):
        if start[0] > 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return mixture

    monkeypatch.setattr(Halving, "__call__", terminated)
    with pytest.raises(SystemExit) as exit_:
        run(song(tmp_path / "a.wav", noise(90_000, 2)), "--out", tmp_path / "out")
    assert exit_.value.code == 75
    assert "preempted: finished files stay" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_second_signal_does_not_disturb_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C again while the files are cleaned up, and the system's SIGTERM on top."""

    def interrupted(self: Halving, mixture: np.ndarray, start: np.ndarray, *_: object):
        if start[0] > 100_000:  # when something is being written
            os.kill(os.getpid(), signal.SIGINT)
        return mixture

    def again(paths: object) -> Iterator[list[Path]]:
        with replacing_together(paths) as temporaries:
            try:
                yield temporaries
            finally:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGTERM)
                cleaned_up.append(len(temporaries))

    cleaned_up: list[int] = []
    monkeypatch.setattr(Halving, "__call__", interrupted)
    monkeypatch.setattr(encoding, "replacing_together", contextlib.contextmanager(again))
    with pytest.raises(SystemExit) as exit_:
        run(song(tmp_path / "a.wav", noise(300_000, 2)), "--out", tmp_path / "out")
    assert exit_.value.code == 130
    assert cleaned_up == [2]
    assert not (tmp_path / "out").exists()


def test_a_thread_that_is_left_does_not_hold_up_the_commands_end() -> None:
    """Python's own end would, or would abort: it is passed over, with the same exit status."""
    code = (
        "import atexit, time\n"
        "from diffsep_jax import cli\n"
        "from diffsep_jax.inference.background import in_background\n"
        "def items():\n"
        "    yield 1\n"
        "    time.sleep(100)\n"
        "def interrupted():\n"
        "    for _ in in_background(items(), 1):\n"
        "        raise KeyboardInterrupt\n"
        "atexit.register(print, 'the end of Python')\n"
        "cli.list_models = interrupted\n"
        "cli.main()\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, "models"], capture_output=True, text=True, timeout=60
    )
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "interrupted\n")


def test_brackets_in_a_songs_name_are_no_markup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then draws the bar
    for name in ("Song [live]", "Song [b]"):
        run(song(tmp_path / f"{name}.wav"), "--out", tmp_path / "out")
        printed = capsys.readouterr()
        assert name in printed.out
        assert name in printed.err
    # A closing tag as in "[/b]" can come in an input's path alone.
    (tmp_path / "[").mkdir()
    run(song(tmp_path / "[" / "b].wav"), "--out", tmp_path / "out")


def test_help_is_quick_and_needs_no_jax() -> None:
    code = (
        "import sys\n"
        "from diffsep_jax import cli\n"
        "try: cli.main(['separate', '--help'])\n"
        "finally: assert 'jax' not in sys.modules, 'jax was imported'"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "--cutoff-hz" in result.stdout


def test_models_are_listed_with_their_cards(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    card = "---\nlicense: apache-2.0\n---\n\n# small\n\nSeparates on a laptop.\n\nMore.\n"
    (tmp_path / "pretrained" / "small").mkdir(parents=True)
    (tmp_path / "pretrained" / "small" / "README.md").write_text(card)
    names = ["small", "cardless"]
    monkeypatch.setattr("diffsep_jax.inference.pretrained.known_models", lambda: names)
    monkeypatch.setattr("importlib.resources.files", lambda package: tmp_path)
    cli.main(["models"])
    assert capsys.readouterr().out == "small        Separates on a laptop.\ncardless\n"


@pytest.mark.slow
def test_a_real_model_in_a_real_process(tmp_path: Path) -> None:
    """The installed command with a model directory: stems add up, batches change nothing."""
    shapes = jax.eval_shape(TINY.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: noise(*leaf.shape), shapes)
    save_model(tmp_path / "model", TINY, params)
    path = song(tmp_path / "a.mp3", noise(20_011, 1), 48_000)
    outs = []
    for batch_size in ("1", "3"):
        outs.append(tmp_path / f"out{batch_size}" / "a")
        arguments = [path, "--out", outs[-1].parent, "--model", tmp_path / "model", "--steps", "2"]
        result = subprocess.run(
            [
                sys.executable,
                "-m",
                "diffsep_jax.cli",
                "separate",
                *map(str, arguments),
                "--batch-size",
                batch_size,
            ],
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr
        assert "real-time factor" in result.stdout
    mixture, _ = read_audio(path)
    vocals, accompaniment = (read_audio(outs[0] / f"{stem}.wav")[0] for stem in STEMS)
    assert vocals.any()
    assert np.array_equal(accompaniment, mixture - vocals)
    other = read_audio(outs[1] / "vocals.wav")[0]
    assert np.abs(other - vocals).max() <= 1e-4


# --- The Python interface.


@pytest.mark.parametrize("shape", [(9000,), (9000, 1), (9000, 2)])
def test_waveform_to_waveforms(shape: tuple[int, ...]) -> None:
    mixture = noise(*shape)
    result = Separator.from_pretrained("small").separate(mixture, RATE)
    assert result.vocals.shape == result.accompaniment.shape == shape
    assert result.vocals.dtype == np.float32
    np.testing.assert_allclose(result.vocals, mixture / 2, rtol=1e-6)
    assert np.array_equal(result.accompaniment, mixture - result.vocals)


@pytest.mark.parametrize("num_channels", [1, 2])
def test_a_waveform_to_refine(num_channels: int) -> None:
    mixture, guess = noise(5000, 2), noise(5000, num_channels)[::-1]
    separator = Separator.from_pretrained("small", batch_size=2)
    separator.separate(mixture, RATE, refine=guess, start_sigma=0.3, overlap=0.0)
    level = np.sqrt(np.mean(np.square(mixture)))
    given = Halving.guess.reshape(-1, 2)
    np.testing.assert_allclose(given[:5000], np.broadcast_to(guess / level, (5000, 2)), rtol=1e-5)
    assert not given[5000:].any()
    for options, message in [
        ({"refine": guess[:4998], "start_sigma": 0.3}, "refine: 4998 samples"),
        ({"refine": guess}, "start_sigma 1"),
        ({"refine": guess[None], "start_sigma": 0.3}, "refine is float32"),
    ]:
        with pytest.raises(UserError, match=message):
            separator.separate(mixture, RATE, **options)


def test_files_and_waveforms_go_one_way(tmp_path: Path) -> None:
    separator = Separator.from_pretrained("small", batch_size=1)
    path = song(tmp_path / "a.wav", rate=48_000)
    in_memory = separator.separate(*read_audio(path), overlap=0.1)
    files = separator.separate_file(path, tmp_path / "out", overlap=0.1)
    for stem, file in files.items():
        assert np.array_equal(getattr(in_memory, stem), read_audio(file)[0])


@pytest.mark.parametrize(
    ("waveform", "message"),
    [
        (np.zeros((0, 2), np.float32), "waveform: no samples"),
        (np.zeros((0,), np.float32), "waveform: no samples"),
        (np.full((9, 2), np.nan, np.float32), "waveform: NaN or infinity at sample 0"),
        (np.zeros((9, 2), np.int16), r"waveform is int16 \[9, 2\], expected floating point"),
        (np.zeros((9, 2, 1), np.float32), r"float32 \[9, 2, 1\], expected floating point \[time\]"),
        (np.zeros((2, 99), np.float32), r"99 channels, expected \[time, channel\]"),
    ],
)
def test_bad_waveforms(waveform: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Separator.from_pretrained("small").separate(waveform, RATE)


def test_misspelt_option_in_python() -> None:
    with pytest.raises(TypeError, match="step"):
        Separator.from_pretrained("small").separate(noise(99), RATE, step=3)


def test_warm_up_checks_options_and_takes_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    separator = Separator.from_pretrained("small")
    separator.warm_up(steps=500, ensemble=9, eta=0.3, sampler="ddim")
    assert Halving.settings == SamplerSettings(steps=1, eta=0.3)
    assert Halving.guess is None
    separator.warm_up(refines=True, start_sigma=0.3)
    assert Halving.guess is not None
    for options in ({"cutoff_hz": 23_000.0}, {"overlap": 0.7}, {"steps": 0}, {"refines": True}):
        expected = next(iter(options)).replace("refines", "start_sigma 1 is pure noise")
        with pytest.raises(UserError, match=expected):
            separator.warm_up(**options)


def test_a_waveform_beyond_float32_is_refused() -> None:
    with pytest.raises(UserError, match="waveform: NaN or infinity at sample 0"):
        Separator.from_pretrained("small").separate(np.full((9, 2), 1e300), RATE)


def test_separator_works_from_a_thread() -> None:
    """Nothing on the way needs the main thread, as a GUI will not give it."""
    separator = Separator.from_pretrained("small")
    results = []
    thread = threading.Thread(target=lambda: results.append(separator.separate(noise(99), RATE)))
    thread.start()
    thread.join()
    assert len(results) == 1


def test_output_that_nobody_reads_ends_in_one_line() -> None:
    code = (
        "import sys\n"
        "from diffsep_jax.errors import one_line_errors\n"
        "with one_line_errors():\n"
        "    while True:\n"
        "        print('{}', flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    with process.stderr as stderr:
        assert stderr.read() == "stopped: nobody reads the output any more\n"
    assert process.wait() == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no disk that is always full")
@pytest.mark.parametrize("flush", [False, True])
def test_output_to_a_full_disk_ends_in_one_line(flush: bool) -> None:
    """Also where what is printed is written at the end."""
    code = (
        "from diffsep_jax.errors import one_line_errors\n"
        "with one_line_errors():\n"
        f"    print('words', flush={flush})\n"
    )
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert result.stderr == "stopped: the output cannot be written: No space left on device\n"
    assert result.returncode == 1


def test_a_song_whose_name_the_terminal_cannot_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = song(tmp_path / "s\u00f6ng.wav")
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding="ascii"))
    run(path, "--out", tmp_path / "out")
    sys.stdout.flush()
    assert b"s\\xf6ng.wav -> " in printed.getvalue()
    assert (tmp_path / "out" / "s\u00f6ng" / "vocals.wav").is_file()
