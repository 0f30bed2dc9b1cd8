"""eval.py: from songs to a result, restarted, repeated, with every problem told and counted."""

import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scored
import soundfile as sf

import eval as eval_script
from diffsep_jax.audio.read import read_audio
from diffsep_jax.errors import UserError, one_line_errors
from diffsep_jax.evaluation import evaluate as evaluation
from diffsep_jax.evaluation.excerpts import keep_excerpt, loudest_part
from diffsep_jax.evaluation.protocols import METRICS, PROTOCOLS
from diffsep_jax.evaluation.result_files import read_result, track_file
from diffsep_jax.evaluation.results import Result
from diffsep_jax.inference.separator import Separation, Separator
from diffsep_jax.inference.settings import SamplerOptions

QUICK = SamplerOptions(sampler="ddim", steps=2, eta=0.1)
SWEPT = SamplerOptions(sampler="ddim")


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return scored.write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def songs(tmp_path):
    return scored.write_songs(tmp_path / "songs")


def run(tmp_path, **options) -> Result:
    fields = {
        "out": tmp_path / "out",
        "cache_dir": str(tmp_path / "cache"),
        "data": str(tmp_path / "songs"),
        "metrics": "sdr",
        "batch_size": 8,
    } | options
    if "estimates" not in fields:
        fields.setdefault("sampling", SWEPT if fields.get("sweep") else QUICK)
    eval_script.main(eval_script.Evaluate(**fields))
    return read_result(fields["out"])


def not_compiled(monkeypatch, separate):
    """Takes the model's place."""

    def from_pretrained(cls, name, *, batch_size):
        return object.__new__(cls)

    monkeypatch.setattr(Separator, "from_pretrained", classmethod(from_pretrained))
    monkeypatch.setattr(Separator, "warm_up", lambda self, **settings: None)
    monkeypatch.setattr(Separator, "separate", separate)


@pytest.fixture
def halving(monkeypatch):
    """A separator that halves, without compiling; counts what it separates."""
    separated = []

    def separate(self, mixture, sample_rate, *, settings, **_):
        separated.append(settings.seed)
        return Separation(mixture / 2, mixture / 2)

    not_compiled(monkeypatch, separate)
    return separated


def scores(result):
    """Everything but times."""

    def timeless(track):
        estimates = {
            name: tuple(dataclasses.replace(each, seconds=None) for each in repeats)
            for name, repeats in track.estimates.items()
        }
        return dataclasses.replace(track, estimates=estimates)

    conditions = {
        name: dataclasses.replace(each, real_time_factor=None)
        for name, each in result.summary.conditions.items()
    }
    return dataclasses.replace(
        result,
        tracks=tuple(map(timeless, result.tracks)),
        summary=dataclasses.replace(result.summary, conditions=conditions),
    )


def test_from_a_folder_of_songs_to_a_result(tmp_path, model_dir, capsys):
    scored.write_songs(tmp_path / "songs", silent=["two"], seconds=2)
    result = run(tmp_path, model=str(model_dir), metrics=None)
    assert result.settings["model"] == str(model_dir)
    expected = [name for name, metric in METRICS.items() if metric.group != "calibration"]
    assert list(result.protocols) == expected
    one, two = result.tracks
    (score,) = one.estimates["T=2 eta=0.1 fc=5000"]
    assert list(score.metrics) == expected
    assert score.undefined.keys() == {"leakage"}  # noise sings all the time
    assert all(np.isfinite(v) for name, v in score.metrics.items() if name != "leakage")
    assert score.seed == 0
    assert score.chunk_frames == 2
    assert score.seconds > 0
    assert one.audio_seconds == 2
    assert one.references["mixture"].metrics["utterance_sdr"] == pytest.approx(0, abs=0.2)
    assert two.silent
    silent = two.estimates["T=2 eta=0.1 fc=5000"][0].metrics
    assert [name for name, value in silent.items() if value is not None] == ["leakage"]
    assert result.summary.problems == {"silent vocals": 1}
    printed = capsys.readouterr()
    assert PROTOCOLS["utterance_sdr"] in " ".join(printed.out.split())
    assert "1 x silent vocals" in printed.out
    assert "problem: two: the true vocals are silent" in printed.err
    assert {"python", "jax", "diffsep-jax"} <= result.versions.keys()
    assert result.hardware["platform"] == "cpu"


def test_files_of_a_result(tmp_path, songs, halving):
    result = run(tmp_path)
    assert scored.tree(tmp_path / "out") == sorted(
        [
            "report.html",
            "summary.json",
            *(f"tracks/{name}.json" for name in ("one", "two")),
            *(
                f"excerpts/{name}/{stem}.flac"
                for name in ("one", "two")
                for stem in ("mixture", "vocals", "estimate")
            ),
        ]
    )
    song = scored.song()
    vocals, rate = read_audio(tmp_path / "out" / "excerpts" / "one" / "vocals.flac")
    assert rate == result.tracks[0].sample_rate
    # The songs are at half the source's rate, which is the model's.
    np.testing.assert_allclose(np.std(vocals), np.std(song.vocals), rtol=0.05)


def test_repeats_have_seeds_of_their_own_and_a_spread(tmp_path, songs, model_dir, capsys):
    result = run(tmp_path, model=str(model_dir), repeats=3)
    (repeats, _) = [track.estimates["T=2 eta=0.1 fc=5000"] for track in result.tracks]
    assert [score.seed for score in repeats] == [0, 1, 2]
    values = [score.metrics["utterance_sdr"] for score in repeats]
    assert len(set(values)) == 3
    statistic = result.summary.conditions["T=2 eta=0.1 fc=5000"].statistics["utterance_sdr"]
    assert statistic.median == pytest.approx(np.mean(statistic.repeat_medians))
    assert statistic.spread > 0
    assert "±" in capsys.readouterr().out


def test_repeats_tell_their_calibration_but_not_with_sdr_alone(tmp_path, songs, halving):
    """Equal repeats have no spread at all."""
    (condition,) = (result := run(tmp_path, repeats=2, metrics="quick")).conditions
    names = [name for name, metric in METRICS.items() if metric.group != "chunk"]
    assert list(result.protocols) == names
    for score in result.tracks[0].estimates[condition.name]:
        assert score.metrics["calibration_1_5khz"] == 0
    result = run(tmp_path, repeats=2, metrics="sdr", overwrite=True)
    assert list(result.protocols) == ["utterance_sdr", "si_sdr"]


def test_meta_json_tells_parts_and_bandwidths(tmp_path, songs, halving, capsys):
    notes = {
        "one": {"part": "sung", "bandwidth_hz": 11025, "licence": "CC0"},
        "two": {"part": "spoken"},
        "elsewhere": {},
    }
    (songs / "meta.json").write_text(json.dumps(notes))
    result = run(tmp_path, metrics="quick")
    assert [track.part for track in result.tracks] == ["sung", "spoken"]
    assert list(result.summary.parts) == ["spoken", "sung"]
    levels = [
        [score.metrics["level_5_10khz"], score.metrics["level_10_16khz"]]
        for track in result.tracks
        for (score,) in track.estimates.values()
    ]
    assert [[value is None for value in each] for each in levels] == [[False, True], [False] * 2]
    assert ", sung: " in capsys.readouterr().out
    (songs / "meta.json").write_text('{"one": {}}')
    assert run(tmp_path, out=tmp_path / "other").summary.parts == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected a JSON object with an object for each song"),
        ("[]", "expected a JSON object with an object for each song"),
        ('{"one": 3}', "expected a JSON object with an object for each song"),
        ('{"one": {"part": 3}}', "part of one is 3, expected a word"),
        ('{"one": {"part": ""}}', "part of one is '', expected a word"),
        ('{"one": {"bandwidth_hz": "11k"}}', "bandwidth_hz of one is '11k', expected Hz above 0"),
        ('{"one": {"bandwidth_hz": -1}}', "bandwidth_hz of one is -1, expected Hz above 0"),
    ],
)
def test_a_damaged_meta_json_is_told_in_one_line(tmp_path, text, message):
    (tmp_path / "meta.json").write_text(text)
    with pytest.raises(UserError, match=f"meta.json: {message}") as caught:
        eval_script.read_notes(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_restart_scores_only_what_is_missing(tmp_path, songs, halving):
    first = run(tmp_path)
    assert len(halving) == 2
    track_file(tmp_path / "out", "two").unlink()
    again = run(tmp_path)
    assert len(halving) == 3
    assert scores(again) == scores(first)
    assert again.tracks[0] == first.tracks[0]  # its time too
    run(tmp_path)
    assert len(halving) == 3


def test_other_settings_need_another_folder_or_overwrite(tmp_path, songs, halving):
    run(tmp_path)
    mine = [tmp_path / "out" / name for name in ("notes.txt", "tracks/a.wav", "excerpts/b/c.wav")]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    with pytest.raises(UserError, match="holds results of other settings"):
        run(tmp_path, sampling=SamplerOptions(sampler="ddim", steps=3))
    with pytest.raises(UserError, match="holds results of other settings"):
        run(tmp_path, metrics="all")
    result = run(tmp_path, sampling=SamplerOptions(sampler="ddim", steps=3), overwrite=True)
    assert [condition.name for condition in result.conditions] == ["T=3 eta=0.4 fc=5000"]
    assert all(path.exists() for path in mine)


def test_what_cannot_begin_overwrites_nothing(tmp_path, songs, halving):
    run(tmp_path)
    before = scored.tree(tmp_path / "out")
    with pytest.raises(UserError, match="repeats 0"):
        run(tmp_path, repeats=0, overwrite=True)
    with pytest.raises(UserError, match="at least one of the 2 tracks"):
        run(tmp_path, model=None, estimates=str(tmp_path / "{track}.wav"), overwrite=True)
    assert scored.tree(tmp_path / "out") == before


def test_train_songs_are_not_called_test_songs(tmp_path, halving, capsys):
    scored.write_songs(tmp_path / "songs" / "train")
    assert run(tmp_path).settings["split"] == "train"
    assert "songs has no test songs; its train songs are scored" in capsys.readouterr().err
    scored.write_songs(tmp_path / "songs" / "test")
    assert run(tmp_path, out=tmp_path / "other").settings["split"] == "test"
    assert (
        run(tmp_path, out=tmp_path / "no splits", data=str(tmp_path / "songs" / "test")).settings[
            "split"
        ]
        == "all"
    )
    assert "no test songs" not in capsys.readouterr().err


def test_a_song_without_accompaniment_has_no_chunk_scores_and_is_told(tmp_path, songs, halving):
    sf.write(songs / "two" / "band.wav", np.zeros((scored.RATE, 2)), scored.RATE)
    result = run(tmp_path, metrics="all")
    assert result.summary.problems == {"silent accompaniment": 1}
    assert result.tracks[1].problems[0].message.startswith("two: the true accompaniment is silent")


def test_a_lost_excerpt_is_made_again(tmp_path, songs, halving):
    run(tmp_path)
    lost = tmp_path / "out" / "excerpts" / "two" / "vocals.flac"
    before = lost.read_bytes()
    lost.unlink()
    run(tmp_path)
    assert lost.read_bytes() == before
    assert len(halving) == 3


def test_a_retrained_model_is_another(tmp_path, songs, model_dir, halving):
    model = tmp_path / "model"
    shutil.copytree(model_dir, model)
    run(tmp_path, model=str(model))
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (model / "model.safetensors").write_bytes(weights)
    with pytest.raises(UserError, match="of other settings"):
        run(tmp_path, model=str(model))


def test_a_sweep_from_the_command_to_its_page(tmp_path, songs, halving, capsys):
    result = run(tmp_path, sweep=("steps=2,4", "eta=0,0.4"), metrics=None)
    names = [condition.name for condition in result.conditions]
    assert names == [
        f"T={steps} {rest}" for steps in (2, 4) for rest in ("eta=0", "eta=0.4 fc=5000")
    ]
    assert list(result.protocols) == ["utterance_sdr", "si_sdr"]
    assert "Quality against time" in (tmp_path / "out" / "report.html").read_text()
    assert "4 points" in capsys.readouterr().out


def test_estimates_of_another_program_are_scored_with_their_problems(tmp_path, songs, capsys):
    """One good, one missing, one mono, and one song whose reference is broken."""
    scored.write_songs(tmp_path / "songs", names=("broken", "mono", "silent"), silent=["silent"])
    broken = scored.noise(scored.RATE, 2)
    broken[5] = np.nan
    sf.write(songs / "broken" / "vocals.wav", broken, scored.RATE, subtype="FLOAT")
    separated = tmp_path / "separated"
    estimates = str(separated / "{track}" / "vocals.wav")
    reference = {
        name: sf.read(songs / name / "vocals.wav", dtype="float32")[0] for name in ("one", "mono")
    }
    for name, audio in (
        ("one", 0.5 * reference["one"]),
        ("mono", reference["mono"][:, 0]),
        ("silent", scored.noise(scored.RATE, 2)),
        ("broken", scored.noise(scored.RATE, 2)),
    ):
        (separated / name).mkdir(parents=True)
        sf.write(separated / name / "vocals.wav", audio, scored.RATE, subtype="FLOAT")
    result = run(tmp_path, estimates=estimates)
    assert result.summary.problems == {
        "bad reference": 1,
        "channels differ": 1,
        "missing estimate": 1,
        "sample rate differs": 2,
        "silent vocals": 1,
    }
    assert result.summary.tracks == 5
    tracks = {track.name: track for track in result.tracks}
    (score,) = tracks["one"].estimates[estimates]
    assert score.metrics["utterance_sdr"] == pytest.approx(20 * np.log10(2), abs=0.05)
    assert score.seconds is None
    for name in ("mono", "two", "broken"):
        assert tracks[name].estimates == {estimates: ()}
        assert len(tracks[name].problems) == 1
    assert tracks["broken"].references == {}
    printed = capsys.readouterr()
    missing = f"problem: two: no estimate at {separated / 'two' / 'vocals.wav'}"
    for line in (missing, "mono/vocals.wav: 1 channels"):
        assert line in printed.err
    assert printed.err.count("\n") == sum(result.summary.problems.values())
    assert "1 x missing estimate" in printed.out

    # One is mended: it alone is scored again, with the reference that may have been.
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out/tracks").iterdir()}
    (separated / "two").mkdir()
    shutil.copy(separated / "one" / "vocals.wav", separated / "two" / "vocals.wav")
    mended = run(tmp_path, estimates=estimates)
    printed = capsys.readouterr()  # of the tracks that were scored before too
    assert printed.err.count("problem: ") == sum(mended.summary.problems.values())
    assert "missing estimate" not in mended.summary.problems
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out/tracks").iterdir()}
    assert sorted(name for name in after if after[name] != before[name]) == [
        "broken.json",
        "two.json",
    ]


def test_a_model_that_gives_nan_is_a_problem_of_its_tracks(tmp_path, songs, monkeypatch):
    def separate(self, mixture, sample_rate, *, settings, **_):
        bad = mixture + np.float32(np.nan if settings.seed else 0)
        return Separation(bad, mixture - bad)

    not_compiled(monkeypatch, separate)
    result = run(tmp_path, repeats=2)
    assert result.summary.problems == {"NaN in the estimate": 2}
    assert "one, T=2 eta=0.1 fc=5000, seed 1" in result.tracks[0].problems[0].message
    assert result.tracks[0].estimates == {"T=2 eta=0.1 fc=5000": ()}
    assert result.tracks[0].references["mixture"].metrics["utterance_sdr"] is not None


def test_processes_share_the_tracks_by_position(tmp_path, halving, monkeypatch):
    """The second of two takes the odd ones, the first the rest and the summary."""
    scored.write_songs(tmp_path / "songs", names=("a", "b", "c"))
    monkeypatch.setattr(evaluation, "wait_for_all", lambda what, timeout_seconds: None)
    monkeypatch.setattr("diffsep_jax.runtime.join_hosts", lambda multihost: None)
    monkeypatch.setattr("jax.process_count", lambda: 2)
    monkeypatch.setattr("jax.process_index", lambda: 1)
    with pytest.raises(UserError, match=r"no summary\.json"):
        run(tmp_path)
    assert [path.name for path in (tmp_path / "out" / "tracks").iterdir()] == ["b.json"]
    monkeypatch.setattr("jax.process_index", lambda: 0)
    result = run(tmp_path)
    assert [track.name for track in result.tracks] == ["a", "b", "c"]
    assert len(halving) == 3
    track_file(tmp_path / "out", "b").unlink()
    with pytest.raises(UserError, match=r"b\.json: not here .* a file system that they share"):
        run(tmp_path)


def test_seconds_are_without_compiling(tmp_path, songs, model_dir, monkeypatch):
    """By the time the first song is separated, the program is there."""
    compiled = []

    def separate(self, mixture, *args, **settings):
        compiled.append(self._chunks.num_compilations)
        return original(self, mixture, *args, **settings)

    original = Separator.separate
    monkeypatch.setattr(Separator, "separate", separate)
    run(tmp_path, model=str(model_dir), sampling=SamplerOptions(sampler="direct"))
    assert compiled == [1, 1]


def test_excerpts_are_where_the_singing_is_and_do_not_clip(tmp_path):
    song = scored.song(seconds=20.0)
    level = np.full((20 * scored.RATE, 1), 0.01, np.float32)
    level[11 * scored.RATE : 16 * scored.RATE] = 1
    song = dataclasses.replace(song, vocals=song.vocals * level)
    part = loudest_part(song)
    estimates = {"direct": song.vocals[part], "T=2 eta=0": 40 * song.vocals[part]}
    excerpt = keep_excerpt(tmp_path, song, estimates)
    assert 10 <= excerpt.start_seconds <= 11
    assert excerpt.seconds == 6
    assert excerpt.start_seconds == part.start / scored.RATE
    assert excerpt.conditions == ("direct", "T=2 eta=0")
    assert excerpt.gain == pytest.approx(1 / np.abs(40 * song.vocals[part]).max())
    for stem, expected in (
        ("mixture", song.mixture[part]),
        ("vocals", song.vocals[part]),
        ("estimate direct", song.vocals[part]),
        ("estimate T=2 eta=0", 40 * song.vocals[part]),
    ):
        audio, _ = read_audio(tmp_path / "excerpts" / "one" / f"{stem}.flac")
        np.testing.assert_allclose(audio, excerpt.gain * expected, atol=1e-4)


def test_of_few_settings_every_estimate_can_be_heard(tmp_path, songs, halving):
    result = run(tmp_path, sweep=("steps=2,4", "eta=0"))
    excerpt = result.tracks[0].excerpt
    assert excerpt.conditions == ("T=2 eta=0", "T=4 eta=0")
    files = {path.name for path in (tmp_path / "out" / "excerpts" / "one").iterdir()}
    assert files == {
        "mixture.flac",
        "vocals.flac",
        "estimate T=2 eta=0.flac",
        "estimate T=4 eta=0.flac",
    }
    many = run(tmp_path, sweep=("steps=2,3,4,5,6,7,8,9,10", "eta=0"), overwrite=True)
    assert many.tracks[0].excerpt.conditions == ("T=2 eta=0",)
    files = {path.name for path in (tmp_path / "out" / "excerpts" / "one").iterdir()}
    assert files == {"mixture.flac", "vocals.flac", "estimate.flac"}


def test_what_was_not_scored_is_not_heard(tmp_path, songs, monkeypatch):
    """Not even its first repeat, which was good."""

    def separate(self, mixture, sample_rate, *, settings, **_):
        bad = mixture + np.float32(np.nan if settings.seed and settings.steps == 2 else 0)
        return Separation(bad, mixture - bad)

    not_compiled(monkeypatch, separate)
    result = run(tmp_path, repeats=2, sweep=("steps=2,3", "eta=0"))
    assert result.tracks[0].excerpt.conditions == ("T=3 eta=0",)


class Twins:
    sample_rate = scored.RATE

    def __len__(self):
        return 3

    def name(self, song):
        return ["x", "Same", "same"][song]

    def num_samples(self, song):
        return 1

    def segment(self, song, start, length):
        raise AssertionError("not a sample is needed")


def test_songs_of_one_name_are_refused():
    with pytest.raises(UserError, match="songs named 'Same' and 'same'"):
        evaluation.track_names(Twins())


def test_an_unwritable_folder_is_found_before_anything_is_loaded(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "out").mkdir()
    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(UserError, match="out: cannot be written: Permission denied"):
        run(tmp_path, model="no-such-model", data=str(tmp_path / "gone"))


def test_errors_are_one_line(tmp_path, songs, model_dir, capsys):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    model = str(model_dir)
    for options, message in [
        ({"model": "no-such-model"}, "unknown model 'no-such-model'"),
        ({"data": str(tmp_path / "gone"), "model": model}, "not found"),
        ({"data": str(tmp_path / "empty"), "model": model}, "no songs"),
        ({"model": model, "out": tmp_path / "file" / "x"}, "cannot be written"),
        ({"model": model, "out": tmp_path / "file"}, "cannot be written"),
        ({"model": model, "overlap": 0.7}, "overlap 0.7"),
        ({"model": model, "sampling": SamplerOptions(cutoff_hz=30_000.0)}, "cutoff_hz is 30000.0"),
        ({"model": model, "estimates": "{track}"}, "--model and --estimates, expected one"),
        ({"estimates": "{track}", "repeats": 2}, "finished, expected no --sweep"),
        ({"estimates": str(tmp_path)}, "expected a path with {track} in it"),
        ({"estimates": "no/{track}.wav"}, "at least one of the 2 tracks, such as no/one.wav"),
        ({"estimates": "{track}", "sampling": QUICK}, "options beside --estimates, where they"),
        ({"model": model, "num_songs": 2}, "--num-songs beside --data"),
        ({"data": "embedded", "song_seconds": float("nan")}, "seconds=nan: expected at least"),
        ({"data": "embedded", "song_seconds": float("inf")}, "seconds=inf: expected at least"),
        ({"model": model, "sweep": ("steps=none",)}, "a value is no int"),
    ]:
        with pytest.raises(SystemExit) as exit_, one_line_errors():
            run(tmp_path, **options)
        assert exit_.value.code == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert message in error
        assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "cache").exists()  # nothing was rendered or resampled


def test_the_summary_is_json_that_others_can_read(tmp_path, songs, halving):
    run(tmp_path)
    text = Path(tmp_path / "out" / "summary.json").read_text()
    summary = json.loads(text, parse_constant=pytest.fail)  # no NaN, no Infinity
    statistics = summary["summary"]["conditions"]["T=2 eta=0.1 fc=5000"]["statistics"]
    found = [
        json.loads(track_file(tmp_path / "out", name).read_text())["estimates"]
        for name in ("one", "two")
    ]
    values = [each["T=2 eta=0.1 fc=5000"][0]["metrics"]["utterance_sdr"] for each in found]
    assert statistics["utterance_sdr"]["median"] == pytest.approx(np.median(values))


@pytest.mark.slow
def test_two_processes_give_the_result_of_one(tmp_path, model_dir):
    """Real ones, over loopback, each with its own device."""
    data = scored.write_songs(tmp_path / "songs", names=("a", "b", "c"))
    one = run(tmp_path, model=str(model_dir), sampling=SamplerOptions(sampler="direct"))
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    root = Path(eval_script.__file__).parent
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1", "PYTHONPATH": str(root)}
    command = [
        *(sys.executable, eval_script.__file__, f"--model={model_dir}", f"--data={data}"),
        *("--sampler=direct", "--metrics=sdr", f"--cache-dir={tmp_path / 'cache'}"),
        *("--batch-size=8", f"--out={tmp_path / 'two'}", "--multihost"),
    ]
    environment |= {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    started = [
        subprocess.Popen(
            command,
            env=environment | {"JAX_PROCESS_ID": str(i)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=400) for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], outputs
    two = read_result(tmp_path / "two")
    assert two.hardware["processes"] == 2
    assert [track.name for track in two.tracks] == ["a", "b", "c"]
    for ours, theirs in zip(one.tracks, two.tracks, strict=True):
        found = [track.estimates["direct"][0].metrics for track in (ours, theirs)]
        assert found[0] == pytest.approx(found[1], abs=1e-3)
    assert "SDR" in outputs[0][0]  # the first process prints the tables, the other nothing
    assert outputs[1][0] == ""
