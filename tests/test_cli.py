"""The commands, from files to files, with a model that halves its input."""

import os
import re
import sys
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile as sf
from halving import RATE, Halving, fails, noise, run, song
from processes import python

import diffsep_jax
from diffsep_jax import cli
from diffsep_jax.audio.read import AudioFile, read_audio
from diffsep_jax.audio.write import FORMATS
from diffsep_jax.commands.reporting import Style
from diffsep_jax.commands.separate import seconds_of
from diffsep_jax.inference.limiter import LIMIT
from diffsep_jax.inference.settings import PRESETS, SamplerSettings
from diffsep_jax.inference.track import STEMS
from diffsep_jax.runtime import DeviceOption
from diffsep_jax.samplers import SAMPLERS

pytestmark = pytest.mark.usefixtures("halving")


@pytest.mark.parametrize("num_channels", [1, 2])
@pytest.mark.parametrize("rate", [22_050, 44_100, 48_000])
def test_file_to_files(tmp_path, capsys, rate, num_channels):
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
    assert re.search(r"\d s, real-time factor \d+\.\d\d$", summary.strip())
    assert summary.count("\n") == 1


def test_options_reach_the_sampler(tmp_path):
    options = ["--steps", 7, "--eta", 0.1, "--cutoff-hz", 0, "--seed", 5]
    options += ["--sampler", "ddim", "--start-sigma", 0.5, "--ensemble", 3]
    options += ["--schedule", 3, "--temperature", 0.9, "--crossover-hz", 5000]
    run(song(tmp_path / "a.wav"), "--out", tmp_path, *options)
    assert Halving.settings == SamplerSettings(
        sampler="ddim",
        steps=7,
        eta=0.1,
        cutoff_hz=0.0,
        start_sigma=0.5,
        schedule=3.0,
        temperature=0.9,
        crossover_hz=5000.0,
        ensemble=3,
        seed=5,
    )
    assert Halving.guess is None
    run(song(tmp_path / "a.wav"), "--out", tmp_path)
    assert Halving.settings == PRESETS["balanced"]  # the model's own


def test_an_earlier_result_is_refined(tmp_path):
    """Its level relative to the mixture's is kept, and it may be the file that is replaced."""
    path = song(tmp_path / "a.wav", noise(4096, 2))
    run(path, "--out", tmp_path)
    refine = ["--refine", tmp_path / "a" / "vocals.wav", "--start-sigma", 0.3]
    run(path, "--out", tmp_path, "--batch-size", 1, *refine)
    mixture, _ = read_audio(path)
    level = np.sqrt(np.mean(np.square(mixture)))
    np.testing.assert_allclose(Halving.guess[0], mixture / 2 / level, rtol=1e-5)
    assert read_audio(tmp_path / "a" / "vocals.wav")[0].shape == mixture.shape


def test_a_folder_is_one_job_and_resume_does_what_is_left(tmp_path, capsys):
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
    assert "\n2 files: " in capsys.readouterr().out
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.wav")}
    (out / "cd2/b/vocals.wav").unlink()
    run(tmp_path / "album", "--out", out, "--resume")
    assert "1 finished before, 1 to do" in capsys.readouterr().out
    changed = {path.parent.name for path in before if path.stat().st_mtime_ns != before[path]}
    assert changed == {"b"}


def test_shards_share_a_folder_and_any_machine_does_what_is_left(tmp_path, capsys, monkeypatch):
    for name in "abcde":
        song(tmp_path / f"{name}.wav")
    out = tmp_path / "out"

    def done():
        return "".join(sorted(path.parent.name for path in out.rglob("vocals.wav")))

    run(tmp_path, "--out", out, "--shard", "1/3")
    assert done() == "be"
    for name, value in {"ID": "1", "MIN": "1", "MAX": "3", "COUNT": "3"}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    run(tmp_path, "--out", out)
    assert done() == "abde"
    assert "note: shard 0/3, from the job array" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(tmp_path / "a.wav", "--out", out)
    assert "of 1 input(s); expected an array of at most as many" in capsys.readouterr().err
    run(tmp_path, "--out", out, "--shard", "0/1", "--resume")
    assert done() == "abcde"
    assert "4 finished before, 1 to do" in capsys.readouterr().out


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
def test_formats(tmp_path, options, info):
    path = song(tmp_path / "a.wav", noise(30_011, 2))
    run(path, "--out", tmp_path, "--stems", "vocals", *options)
    [result] = (tmp_path / "a").iterdir()
    assert result.stem == "vocals"
    written = sf.info(result)
    assert (written.format, written.subtype) == info
    vocals, rate = read_audio(result)
    assert (vocals.shape, rate) == ((30_011, 2), RATE)


def test_another_sample_rate_and_an_excerpt(tmp_path):
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


@pytest.mark.parametrize(("format_", "rate"), [("opus", 48_000), ("m4a", 44_100)])
def test_opus_and_m4a(tmp_path, format_, rate):
    """Opus is always at 48 kHz: a song at another rate is resampled."""
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(30_011)[:, None] / RATE)
    path = song(tmp_path / "a.wav", np.repeat(tone, 2, axis=1).astype(np.float32))
    run(path, "--out", tmp_path, "--format", format_, "--bitrate-kbps", 160)
    sources = [AudioFile(tmp_path / "a" / f"{stem}.{format_}") for stem in STEMS]
    assert [source.sample_rate for source in sources] == [rate, rate]
    total = sum(np.concatenate(list(source.blocks())) for source in sources)
    mixture = np.concatenate(list(AudioFile(path, sample_rate=rate).blocks()))
    assert total.shape == mixture.shape
    assert np.square(total - mixture).mean() < 0.01 * np.square(mixture).mean()


def test_clipping_is_counted_and_reported(tmp_path, capsys):
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


def test_help_begins_with_one_screen(capsys):
    for arguments in (["--help"], ["separate", "-h"], ["song.mp3", "--help"]):
        cli.main(arguments)
        assert capsys.readouterr().out == cli.FIRST_SCREEN
    lines = cli.FIRST_SCREEN.splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 40
    with pytest.raises(SystemExit) as end:
        cli.main([])
    assert end.value.code == 2
    assert capsys.readouterr().err == cli.FIRST_SCREEN


def test_the_rest_of_the_help_has_every_option_and_needs_no_networks():
    code = (
        "import sys\n"
        "from diffsep_jax import cli\n"
        "try: cli.main(['song.mp3', '--help-all'])\n"
        "finally: assert 'flax' not in sys.modules, 'flax was imported'"
    )
    result = python("-c", code)
    assert result.returncode == 0, result.stderr
    printed = " ".join(result.stdout.replace("│", "").split())
    assert "None" not in printed
    for name, sampler in SAMPLERS.items():
        assert f"{name}: {sampler.help}" in printed
    assert max(map(len, result.stdout.splitlines())) <= 80
    boxes = dict(re.findall(r"─ ([\w ]+): options ─(.*?)╰", result.stdout, flags=re.DOTALL))
    groups = dict(re.findall(r"^([A-Z][a-z ]+)\n((?: .*\n)+)", cli.FIRST_SCREEN, re.MULTILINE))
    assert list(boxes) == list(groups)
    for title, options in groups.items():
        assert set(re.findall(r"--[a-z-]+", options)) <= set(re.findall(r"--[a-z-]+", boxes[title]))
    for option, names in {
        "format": FORMATS,
        "preset": PRESETS,
        "progress": get_args(Style),
        "device": get_args(DeviceOption),
    }.items():
        (line,) = re.findall(f"--{option} [A-Z]+ +(.*)", cli.FIRST_SCREEN)
        assert set(names) <= set(re.findall(r"\w+", line))
        assert f"--{option} {{{','.join(names)}}}" in printed


def test_a_misspelt_option_is_suggested_with_the_command_that_lists_all(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["song.mp3", "--stpes", "3"])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert "--steps INT" in error
    assert error.endswith("\ndiffsep --help-all lists all options\n")


def test_models_are_listed_with_their_cards(capsys, monkeypatch, tmp_path):
    card = "---\nlicense: apache-2.0\n---\n\n# small\n\nSeparates on a laptop.\n\nMore.\n"
    (tmp_path / "pretrained" / "small").mkdir(parents=True)
    (tmp_path / "pretrained" / "small" / "README.md").write_text(card)
    names = ["small", "cardless"]
    monkeypatch.setattr("diffsep_jax.inference.pretrained.known_models", lambda: names)
    monkeypatch.setattr("importlib.resources.files", lambda package: tmp_path)
    cli.main(["models"])
    assert capsys.readouterr().out == "small        Separates on a laptop.\ncardless\n"


def test_a_song_is_enough(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    song(tmp_path / "a.wav")
    cli.main(["a.wav"])
    assert (tmp_path / "separated" / "a" / "vocals.wav").is_file()
    assert re.match(r"small on \d+ CPU cores?; the first run compiles", capsys.readouterr().err)
    cli.main(["a.wav", "-o", "other"])
    assert (tmp_path / "other" / "a" / "vocals.wav").is_file()


def test_times_are_seconds_or_as_on_a_clock():
    times = {
        "0": 0,
        "90": 90,
        "1:30": 90,
        "0:01.5": 1.5,
        "1:01:30.25": 3690.25,
        ".5": 0.5,
        "9.": 9,
        "-1": -1,
    }
    for text, seconds in times.items():
        assert seconds_of(text) == seconds
    for text in ("", "-1:00", "1:", ":30", "1:90", "1:2:3:4", "nan", "1m"):
        with pytest.raises(ValueError, match="expected seconds, or a time such as 1:30"):
            seconds_of(text)


def test_a_description_for_a_bug_report(capsys):
    cli.main(["info"])
    printed = capsys.readouterr().out
    for subject in (
        "diffsep ",
        "jax ",
        "device     cpu: cpu",
        "models     small",
        "extra      dev",
    ):
        assert subject in printed


def test_the_version(capsys):
    cli.main(["--version"])
    assert capsys.readouterr().out == f"diffsep {diffsep_jax.__version__}\n"


def test_a_page_without_gradio_is_a_line(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "diffsep_jax.app", raising=False)
    with pytest.raises(SystemExit) as end:
        cli.main(["app"])
    assert end.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("error: the page needs the package gradio")
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    "options", [["--host", "203.0.113.1"], ["--port", "99999"], ["--max-minutes", "0"]]
)
def test_bad_options_of_the_page_are_a_line(capsys, options):
    with pytest.raises(SystemExit) as end:
        cli.main(["app", *options])
    assert end.value.code == 2
    message = capsys.readouterr().err
    assert options[1] in message
    assert message.count("\n") == 1


def test_want_of_memory_is_one_line_that_names_the_option(tmp_path, capsys, monkeypatch):
    def exhausted(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nallocating 9 bytes.")

    monkeypatch.setattr(Halving, "__call__", exhausted)
    monkeypatch.setattr(Halving, "lower_batch_size", lambda *_: False, raising=False)
    message = fails(capsys, song(tmp_path / "a.wav"), "--out", tmp_path / "out")
    assert message == (
        "error: RESOURCE_EXHAUSTED: Out of memory; lower --batch-size, or take a larger device\n"
    )


def test_the_limit_of_vocals_can_be_turned_off(tmp_path, monkeypatch):
    def tripling(self, mixture, start, settings, guess=None):
        return jnp.asarray(3 * mixture)

    monkeypatch.setattr(Halving, "__call__", tripling)
    path = song(tmp_path / "a.wav")
    for arguments, gain in (((), LIMIT), (("--no-limit-vocals",), 3.0)):
        run(path, "--out", tmp_path / "out", *arguments)
        vocals, _ = read_audio(tmp_path / "out" / "a" / "vocals.wav")
        np.testing.assert_allclose(vocals, gain * read_audio(path)[0], rtol=1e-4)


def test_notes_on_an_input_are_printed(tmp_path, capsys):
    path = song(tmp_path / "a.wav")
    path.write_bytes(path.read_bytes()[:-4000])
    run(path, "--out", tmp_path, "--allow-damaged")
    warning = capsys.readouterr().err
    assert warning.startswith(f"warning: {path}: truncated or damaged: about 0.0")
    assert warning.count("\n") == 1
    run(path, "--out", tmp_path, "--allow-damaged", "--progress", "json")
    assert '"notes": ["truncated or damaged: about 0.0' in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run(path, "--out", tmp_path, "--allow-damaged", "--stream", 1)
    assert "has no audio stream 1; expected 0 to 0" in capsys.readouterr().err


def test_a_name_that_is_not_text_is_separated_and_printed(tmp_path, capsys):
    path = tmp_path / os.fsdecode(b"\xff.wav")
    try:
        song(tmp_path / "a.wav").rename(path)
    except OSError:
        pytest.skip("the file system takes UTF-8 names only")
    run(path, "--out", tmp_path)
    assert len(list(tmp_path.rglob("vocals.wav"))) == 1


def test_control_characters_in_a_name_stay_off_the_terminal(tmp_path, capsys):
    path = tmp_path / "two\nlines\x1b[31m.wav"
    path.write_text("no audio")
    message = fails(capsys, path, "--out", tmp_path / "out")
    assert r"two\nlines\x1b[31m.wav" in message
    assert message.count("\n") == 1
    run(song(path), "--out", tmp_path / "out")
    assert capsys.readouterr().out.count("\n") == 1
