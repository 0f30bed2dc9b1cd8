"""eval.py: from songs to a result, restarted, repeated, with every problem told and counted."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import scored
import soundfile as sf
from processes import places
from test_audio_write import files_up_to

import eval as eval_script
from diffsep_jax.audio.read import read_audio
from diffsep_jax.errors import UserError, one_line_errors
from diffsep_jax.evaluation import evaluate as evaluation
from diffsep_jax.evaluation import scores
from diffsep_jax.evaluation.excerpts import keep_excerpt, loudest_part
from diffsep_jax.evaluation.protocols import ANCHORS, METRICS, MIXTURE
from diffsep_jax.evaluation.scores import Result, read_result
from diffsep_jax.evaluation.summary import summarise
from diffsep_jax.inference.separator import Separation, Separator
from diffsep_jax.inference.settings import SamplerOptions

QUICK = SamplerOptions(sampler="ddim", steps=2, eta=0.1)
POINT = "T=2 eta=0.1 fc=5000"
SWEPT = SamplerOptions(sampler="ddim")


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return scored.write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def songs(tmp_path):
    return scored.write_songs(tmp_path / "songs")


@pytest.fixture(autouse=True)
def _quick_page(request, monkeypatch):
    """A page takes a second or two, which few tests need."""
    if "real_page" not in request.fixturenames:
        written = lambda path, result, summary: path.write_text("page")  # noqa: E731
        monkeypatch.setattr("diffsep_jax.evaluation.report.write_report", written)


@pytest.fixture
def real_page():
    """Has the page written as it is."""


def run(tmp_path, **options) -> Result:
    fields = {
        "out": tmp_path / "out",
        "cache_dir": str(tmp_path / "cache"),
        "data": str(tmp_path / "songs"),
        "metrics": "sdr",
    } | options
    if "estimates" not in fields:
        fields.setdefault("batch_size", 8)
        fields.setdefault("sampling", SWEPT if fields.get("sweep") else QUICK)
    eval_script.main(eval_script.Evaluate(**fields))
    return read_result(fields["out"])


def not_compiled(monkeypatch, separate):
    """Takes the model's place."""

    def from_pretrained(cls, name, *, batch_size, dtype):
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


def timeless(result):
    """Every row but for its time."""
    return [row | {"seconds": None} for row in result.rows]


def kinds(result):
    """How often there is each problem."""
    return dict(sorted(Counter(each["kind"] for each in result.problems).items()))


def test_from_a_folder_of_songs_to_a_result(tmp_path, model_dir, capsys, real_page):
    scored.write_songs(tmp_path / "songs", silent=["two"], seconds=2)
    result = run(tmp_path, model=str(model_dir), metrics=None)
    (made,) = result.runs.values()
    assert made["settings"]["model"] == str(model_dir)
    assert {"python", "jax", "diffsep-jax"} <= made["versions"].keys()
    assert made["hardware"]["platform"] == "cpu"
    expected = [name for name, metric in METRICS.items() if metric.group != "calibration"]
    assert list(result.protocols) == expected
    assert [row["condition"] for row in result.rows] == [*ANCHORS, POINT] * 2
    (row,) = result.repeats(POINT, "one")
    assert row["undefined"].keys() == {"leakage"}  # noise sings all the time
    assert all(np.isfinite(row[name]) for name in expected if name != "leakage")
    assert (row["seed"], row["chunk_frames"], row["audio_seconds"]) == (0, 2, 2)
    assert row["seconds"] > 0
    (mixture,) = result.repeats(MIXTURE, "one")
    assert mixture["utterance_sdr"] == pytest.approx(0, abs=0.2)
    assert (mixture["seed"], mixture["seconds"]) == (None, None)
    (silent,) = result.repeats(POINT, "two")
    assert [name for name in expected if silent[name] is not None] == ["leakage"]
    assert kinds(result) == {"silent vocals": 1}
    printed = capsys.readouterr()
    assert METRICS["utterance_sdr"].protocol in " ".join(printed.out.split())
    assert "1 x silent vocals" in printed.out
    assert "problem: two: the true vocals are silent" in printed.err
    assert "<dd>1 of 2 " in (tmp_path / "out" / "report.html").read_text()


def test_files_of_a_result(tmp_path, songs, halving):
    run(tmp_path)
    assert scored.tree(tmp_path / "out") == sorted(
        [
            *("lock", "report.html", "run.json", "scores.jsonl"),
            *(
                f"excerpts/{name}/{stem}.flac"
                for name in ("one", "two")
                for stem in ("mixture", "vocals", "estimate")
            ),
        ]
    )
    vocals, _ = read_audio(tmp_path / "out" / "excerpts" / "one" / "vocals.flac")
    # The songs are at half the source's rate, which is the model's.
    np.testing.assert_allclose(np.std(vocals), np.std(scored.song().vocals), rtol=0.05)


def test_without_the_pages_packages_there_are_scores_and_a_note(
    tmp_path, songs, halving, monkeypatch, capsys
):
    monkeypatch.setattr("diffsep_jax.pages.missing_packages", lambda: "pages need x")
    run(tmp_path)
    assert "note: pages need x; no page was written" in capsys.readouterr().err
    assert "report.html" not in scored.tree(tmp_path / "out")


def test_repeats_have_seeds_of_their_own_and_a_spread(tmp_path, songs, model_dir, capsys):
    result = run(tmp_path, model=str(model_dir), repeats=3)
    repeats = result.repeats(POINT, "one")
    assert [(row["repeat"], row["seed"]) for row in repeats] == [(0, 0), (1, 1), (2, 2)]
    assert len({row["utterance_sdr"] for row in repeats}) == 3
    values = np.array(list(result.values(POINT, "utterance_sdr").values()))
    found = summarise(result)["", POINT, "utterance_sdr"]
    assert found.median == pytest.approx(np.median(values, axis=0).mean())
    assert found.spread > 0
    assert "±" in capsys.readouterr().out


def test_repeats_tell_their_calibration_but_not_with_sdr_alone(tmp_path, songs, halving):
    """Equal repeats have no spread at all."""
    result = run(tmp_path, repeats=2, metrics="quick")
    names = [name for name, metric in METRICS.items() if metric.group != "chunk"]
    assert list(result.protocols) == names
    assert [row["calibration_1_5khz"] for row in result.repeats(POINT, "one")] == [0, 0]
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
    assert result.parts == {"": ("one", "two"), "spoken": ("two",), "sung": ("one",)}
    levels = [
        [row["level_5_10khz"] is None, row["level_10_16khz"] is None]
        for row in result.rows
        if row["condition"] == POINT
    ]
    assert levels == [[False, True], [False, False]]
    assert ", sung: " in capsys.readouterr().out
    (songs / "meta.json").write_text('{"one": {}}')
    assert run(tmp_path, out=tmp_path / "other").parts.keys() == {""}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected a JSON object with an object for each song"),
        ("[]", "expected a JSON object with an object for each song"),
        ('{"one": 3}', "expected a JSON object with an object for each song"),
        ('{"one": {"part": 3}}', "part of one is 3; expected a word"),
        ('{"one": {"part": ""}}', "part of one is ''; expected a word"),
        ('{"one": {"bandwidth_hz": "11k"}}', "bandwidth_hz of one is '11k'; expected Hz above 0"),
        ('{"one": {"bandwidth_hz": -1}}', "bandwidth_hz of one is -1; expected Hz above 0"),
    ],
)
def test_a_damaged_meta_json_is_told_in_one_line(tmp_path, text, message):
    (tmp_path / "meta.json").write_text(text)
    with pytest.raises(UserError, match=f"meta.json: {message}") as caught:
        eval_script.read_notes(str(tmp_path))
    assert "\n" not in str(caught.value)


def remove_track(tmp_path, name, cut=0):
    """Takes a track's rows out of the file, and then some of its end, as if it was killed."""
    path = tmp_path / "out" / "scores.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    kept = "".join(line for line in lines if json.loads(line)["track"] != name)
    path.write_text(kept[: len(kept) - cut])


def test_a_restart_scores_only_what_is_missing(tmp_path, songs, halving):
    first = run(tmp_path)
    assert len(halving) == 2
    remove_track(tmp_path, "two")
    again = run(tmp_path)
    assert len(halving) == 3
    assert timeless(again) == timeless(first)
    assert again.rows[:5] == first.rows[:5]  # its time too
    run(tmp_path)
    assert len(halving) == 3
    remove_track(tmp_path, "two", cut=10)  # the last row of "one" is torn
    assert timeless(run(tmp_path)) == timeless(first)
    assert len(halving) == 5


def test_other_settings_need_another_folder_or_overwrite(tmp_path, songs, halving):
    run(tmp_path)
    mine = [
        tmp_path / "out" / name for name in ("notes.txt", "scores-mine.jsonl", "excerpts/b/c.wav")
    ]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    with pytest.raises(UserError, match="holds results of other settings"):
        run(tmp_path, sampling=SamplerOptions(sampler="ddim", steps=3))
    for options in ({"metrics": "all"}, {"name": "ours"}):
        with pytest.raises(UserError, match="holds results of other settings"):
            run(tmp_path, **options)
    result = run(tmp_path, sampling=SamplerOptions(sampler="ddim", steps=3), overwrite=True)
    assert list(result.conditions) == ["T=3 eta=0.4 fc=5000"]
    assert all(path.exists() for path in mine)


def test_what_cannot_begin_overwrites_nothing(tmp_path, songs, halving):
    run(tmp_path)
    before = scored.tree(tmp_path / "out")
    with pytest.raises(UserError, match="repeats is 0"):
        run(tmp_path, repeats=0, overwrite=True)
    with pytest.raises(UserError, match="at least one of the 2 tracks"):
        run(tmp_path, model=None, estimates=str(tmp_path / "{track}.wav"), overwrite=True)
    assert scored.tree(tmp_path / "out") == before


def test_train_songs_are_not_called_test_songs(tmp_path, halving, capsys):
    def split(out, data="songs"):
        (made,) = run(tmp_path, out=tmp_path / out, data=str(tmp_path / data)).runs.values()
        return made["settings"]["split"]

    scored.write_songs(tmp_path / "songs" / "train")
    assert split("out") == "train"
    assert "songs has no test songs; its train songs are scored" in capsys.readouterr().err
    scored.write_songs(tmp_path / "songs" / "test")
    assert split("other") == "test"
    assert split("no splits", "songs/test") == "all"
    assert "no test songs" not in capsys.readouterr().err


def test_a_song_without_accompaniment_has_no_chunk_scores_and_is_told(tmp_path, songs, halving):
    sf.write(songs / "two" / "band.wav", np.zeros((scored.RATE, 2)), scored.RATE)
    result = run(tmp_path, metrics="all")
    (problem,) = result.problems
    assert problem["kind"] == "silent accompaniment"
    assert problem["message"].startswith("two: the true accompaniment is silent")


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


def test_a_sweep_from_the_command_to_its_page(tmp_path, songs, halving, capsys, real_page):
    result = run(tmp_path, sweep=("steps=2,4", "eta=0,0.4"), metrics=None)
    assert list(result.conditions) == [
        f"T={steps} {rest}" for steps in (2, 4) for rest in ("eta=0", "eta=0.4 fc=5000")
    ]
    assert list(result.protocols) == ["utterance_sdr", "si_sdr"]
    assert "Quality against time" in (tmp_path / "out" / "report.html").read_text()
    assert "4 points" in capsys.readouterr().out


def test_estimates_of_another_program_are_scored_with_their_problems(
    tmp_path, songs, capsys, monkeypatch
):
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
    result = run(tmp_path, estimates=estimates, name="theirs")
    assert list(result.conditions) == ["theirs"]
    assert kinds(result) == {
        "bad reference": 1,
        "channels differ": 1,
        "missing estimate": 1,
        "sample rate differs": 2,
        "silent vocals": 1,
    }
    assert len(result.tracks) == 5
    (row,) = result.repeats("theirs", "one")
    assert row["utterance_sdr"] == pytest.approx(20 * np.log10(2), abs=0.05)
    assert row["seconds"] is None
    for name in ("mono", "two"):
        (row,) = result.repeats("theirs", name)
        assert (row["utterance_sdr"], len(row["problems"])) == (None, 1)
    (row,) = [row for row in result.rows if row["track"] == "broken"]
    assert (row["condition"], row["utterance_sdr"]) == (MIXTURE, None)
    printed = capsys.readouterr()
    missing = f"problem: two: no estimate at {separated / 'two' / 'vocals.wav'}"
    for line in (missing, "mono/vocals.wav: 1 channels"):
        assert line in printed.err
    assert printed.err.count("\n") == len(result.problems)
    assert "1 x missing estimate" in printed.out

    # One file is repaired: only its track is scored again, and the one with the bad reference.
    (separated / "two").mkdir()
    shutil.copy(separated / "one" / "vocals.wav", separated / "two" / "vocals.wav")
    scored_again = []
    monkeypatch.setattr(
        evaluation,
        "append_rows",
        lambda out, rows: (scored_again.append(rows[0]["track"]), scores.append_rows(out, rows)),
    )
    rerun = run(tmp_path, estimates=estimates, name="theirs")
    printed = capsys.readouterr()  # of the tracks that were scored before too
    assert printed.err.count("problem: ") == len(rerun.problems)
    assert "missing estimate" not in kinds(rerun)
    assert sorted(scored_again) == ["broken", "two"]
    assert rerun.tracks == result.tracks


def test_a_model_that_gives_nan_is_a_problem_of_its_tracks(tmp_path, songs, monkeypatch):
    """Not even its first repeat, which was good, is scored or heard."""

    def separate(self, mixture, sample_rate, *, settings, **_):
        bad = mixture + np.float32(np.nan if settings.seed and settings.steps == 2 else 0)
        return Separation(bad, mixture - bad)

    not_compiled(monkeypatch, separate)
    result = run(tmp_path, repeats=2, sweep=("steps=2,3", "eta=0"))
    assert kinds(result) == {"NaN in the estimate": 2}
    assert "one, T=2 eta=0, seed 1" in result.problems[0]["message"]
    assert [row["utterance_sdr"] for row in result.repeats("T=2 eta=0", "one")] == [None, None]
    assert result.values(MIXTURE, "utterance_sdr").keys() == {"one", "two"}
    kept = [row["condition"] for row in result.rows if "excerpt" in row]
    assert kept == [MIXTURE, "T=3 eta=0"] * 2


def test_excerpts_are_where_the_singing_is_and_do_not_clip(tmp_path):
    song = scored.song(seconds=20.0)
    level = np.full((20 * scored.RATE, 1), 0.01, np.float32)
    level[11 * scored.RATE : 16 * scored.RATE] = 1
    song = dataclasses.replace(song, vocals=song.vocals * level)
    part = loudest_part(song)
    estimates = {"direct": song.vocals[part], "T=2 eta=0": 40 * song.vocals[part]}
    excerpts = keep_excerpt(tmp_path, song, estimates)
    assert list(excerpts) == [MIXTURE, "direct", "T=2 eta=0"]
    for excerpt in excerpts.values():
        assert 10 <= excerpt["start_seconds"] == part.start / scored.RATE <= 11
        assert excerpt["gain"] == pytest.approx(1 / np.abs(40 * song.vocals[part]).max())
    assert part.stop - part.start == 6 * scored.RATE
    for stem, expected in (
        ("mixture", song.mixture[part]),
        ("vocals", song.vocals[part]),
        ("estimate direct", song.vocals[part]),
        ("estimate T=2 eta=0", 40 * song.vocals[part]),
    ):
        audio, _ = read_audio(tmp_path / "excerpts" / "one" / f"{stem}.flac")
        np.testing.assert_allclose(audio, excerpt["gain"] * expected, atol=1e-4)


def test_an_excerpt_that_cannot_be_written_ends_in_one_line(tmp_path):
    message = r"mixture\.flac: cannot be written: File too large"
    with files_up_to(4096), pytest.raises(UserError, match=message):
        keep_excerpt(tmp_path, scored.song(), {})


def test_of_few_settings_every_estimate_can_be_heard(tmp_path, songs, halving):
    def kept(result):
        return [row["condition"] for row in result.rows[:14] if "excerpt" in row]

    folder = tmp_path / "out" / "excerpts" / "one"
    result = run(tmp_path, sweep=("steps=2,4", "eta=0"))
    names = ["T=2 eta=0", "T=4 eta=0"]
    assert kept(result)[:3] == [MIXTURE, *names]
    stems = {path.stem for path in folder.iterdir()}
    assert stems == {"mixture", "vocals", *(f"estimate {name}" for name in names)}
    many = run(tmp_path, sweep=("steps=2,3,4,5,6,7,8,9,10", "eta=0"), overwrite=True)
    assert kept(many) == [MIXTURE, "T=2 eta=0"]
    assert {path.stem for path in folder.iterdir()} == {"mixture", "vocals", "estimate"}


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
    with pytest.raises(UserError, match="songs are named 'Same' and 'same'"):
        evaluation.track_names(Twins())


def test_errors_are_one_line(tmp_path, songs, model_dir, capsys):
    (tmp_path / "file").touch()
    model = str(model_dir)
    for options, message in [
        ({"model": "no-such-model"}, "unknown model 'no-such-model'"),
        ({"model": model, "out": tmp_path / "file"}, "cannot be written"),
        ({"model": model, "overlap": 0.7}, "overlap is 0.7"),
        ({"estimates": "{track}", "repeats": 2}, "--repeats is given with --estimates, where it"),
        ({"model": model, "estimates": "{track}"}, "--model is given with --estimates, where it"),
        ({"estimates": "{track}", "sampling": QUICK}, "a sampler option is given with --estimates"),
        ({"model": model, "num_songs": 2}, "--num-songs is given with --data"),
        ({"model": model, "sweep": ("steps=none",)}, "sweep is steps=none; expected values"),
        ({"model": model, "name": "mixture"}, "name is 'mixture'; expected a name other than"),
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


@pytest.mark.slow
def test_two_processes_give_the_result_of_one(tmp_path, model_dir):
    """Real ones, over loopback, each with its own device."""
    data = scored.write_songs(tmp_path / "songs", names=("a", "b", "c"))
    one = run(tmp_path, model=str(model_dir), sampling=SamplerOptions(sampler="direct"))
    root = Path(eval_script.__file__).parent
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1", "PYTHONPATH": str(root)}
    command = [
        *(sys.executable, eval_script.__file__, f"--model={model_dir}", f"--data={data}"),
        *("--sampler=direct", "--metrics=sdr", f"--cache-dir={tmp_path / 'cache'}"),
        *("--batch-size=8", f"--out={tmp_path / 'two'}", "--multihost"),
    ]
    started = [
        subprocess.Popen(
            command,
            env=environment | place,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for place in places(2)
    ]
    try:
        outputs = [process.communicate(timeout=400) for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], outputs
    two = read_result(tmp_path / "two")
    (made,) = two.runs.values()
    assert made["hardware"]["processes"] == 2
    page = {"report.html"}
    assert page | set(scored.tree(tmp_path / "two")) == page | set(scored.tree(tmp_path / "out"))
    ours, theirs = (result.values("direct", "utterance_sdr") for result in (one, two))
    assert list(theirs) == ["a", "b", "c"]
    for track, values in ours.items():
        assert values == pytest.approx(theirs[track], abs=1e-3)
    assert "SDR" in outputs[0][0]  # the first process prints the tables, the other nothing
    assert outputs[1][0] == ""
