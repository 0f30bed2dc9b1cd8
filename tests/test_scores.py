"""Scores as rows: what is written is read again; what is torn, damaged or of others is not."""

import dataclasses
import json

import pytest
import scored

from diffsep_jax.errors import UserError
from diffsep_jax.evaluation import scores
from diffsep_jax.evaluation.excerpts import excerpt_name
from diffsep_jax.evaluation.protocols import GROUP_TITLES, METRICS


@pytest.fixture
def result():
    """Two tracks of two repeats, a silent one, and one without an estimate."""
    problem = {"kind": "length differs", "message": "x.wav: 3 samples"}
    tracks = [
        scored.rows("a", [1.0, 2.0], stamp="a.wav:3"),
        scored.rows("b", [3.0, 5.0], part="sung"),
        scored.rows("c/..", [None, None]),
        scored.rows("d \udcff", [None], problems={scored.POINT: [problem]}),
    ]
    return scored.result(tracks)


def test_a_result_is_read_as_it_was_written(tmp_path, result):
    scored.write_result(tmp_path, result)
    found = scores.read_result(tmp_path)
    assert (found.rows, found.tracks) == (result.rows, result.tracks)
    assert (found.protocols, found.conditions) == (result.protocols, result.conditions)
    assert scored.tree(tmp_path) == ["run.json", "scores.jsonl"]
    lines = (tmp_path / "scores.jsonl").read_text().splitlines()
    assert [json.loads(line, parse_constant=pytest.fail) for line in lines] == list(result.rows)
    assert found.parts == {"": result.tracks, "sung": ("b",)}
    assert [each["kind"] for each in found.problems] == ["length differs"]


def test_values_are_of_the_tracks_that_have_every_repeat(result):
    found = result.values(scored.POINT, "si_sdr")
    assert {track: values.tolist() for track, values in found.items()} == {
        "a": [1.0, 2.0],
        "b": [3.0, 5.0],
    }
    part = scored.result([scored.rows("a", [1.0, None])])
    assert part.values(scored.POINT, "si_sdr") == {}


def test_every_metric_has_a_table_and_a_name_of_its_own_there():
    assert {metric.group for metric in METRICS.values()} == GROUP_TITLES.keys()
    titles = [(metric.group, metric.title) for metric in METRICS.values()]
    assert len(set(titles)) == len(titles)
    assert len({metric.full_title for metric in METRICS.values()}) == len(METRICS)


def test_the_files_of_hosts_become_one_in_the_order_of_the_tracks(tmp_path, result, monkeypatch):
    monkeypatch.setattr("jax.process_count", lambda: 2)
    scores.write_run(tmp_path, next(iter(result.runs.values())))
    for i, track in enumerate(result.tracks):
        monkeypatch.setattr("jax.process_index", lambda place=i % 2: place)
        scores.append_rows(tmp_path, [row for row in result.rows if row["track"] == track])
    (tmp_path / "scores-mine.jsonl").touch()
    expected = ["run.json", "scores-0.jsonl", "scores-1.jsonl", "scores-mine.jsonl"]
    assert scored.tree(tmp_path) == expected
    scores.collect_rows(tmp_path, result.tracks, lambda track, rows: True)
    assert scored.tree(tmp_path) == ["run.json", "scores-mine.jsonl", "scores.jsonl"]
    assert scores.read_result(tmp_path).rows == result.rows
    scores.collect_rows(tmp_path, result.tracks, lambda track, rows: track != "a")
    with pytest.raises(UserError, match=r"1 of 4 tracks have no scores, such as a; run its comm"):
        scores.read_result(tmp_path)


@pytest.mark.parametrize("cut", [1, 5, 100])
def test_a_torn_last_line_is_no_score(tmp_path, result, cut):
    """Killed while it wrote: the line's end is missing, or more of it."""
    scored.write_result(tmp_path, result)
    path = tmp_path / "scores.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    found = [row for rows in scores.rows_by_track(tmp_path).values() for row in rows]
    assert found == list(result.rows[:-1])


@pytest.mark.parametrize("name", ["..", ".hidden", "a/b", "AC/DC: live?", "naïve 100%", "\n"])
def test_an_excerpt_stays_in_the_folder(tmp_path, name):
    path = tmp_path / excerpt_name(name, "vocals")
    assert path.resolve().parent.parent == tmp_path / "excerpts"
    assert not path.parent.name.startswith(".")


def test_names_that_differ_have_folders_that_differ(tmp_path):
    longest = ["歌" * 85, "歌" * 84, "?" * 255, "?" * 254]
    names = ["a/b", "a%2Fb", "a:b", "a b", *longest]
    folders = {tmp_path / excerpt_name(name, "vocals") for name in names}
    assert len(folders) == len(names)
    for folder in folders:
        folder.mkdir(parents=True)


def test_other_settings_are_named_and_refused(tmp_path, result):
    settings = {"data": "somewhere", "metrics": list(scored.SDR)}
    scores.check_same_settings(tmp_path, settings)
    scored.write_result(tmp_path, result)
    scores.check_same_settings(tmp_path, dict(reversed(settings.items())))
    with pytest.raises(UserError, match=r"of other settings \(data, steps\); .*--overwrite"):
        scores.check_same_settings(tmp_path, settings | {"data": "else", "steps": 3})


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 5}', "3"])
def test_damage_is_one_line(tmp_path, result, text):
    scored.write_result(tmp_path, result)
    for name, damaged in (("run.json", text), ("scores.jsonl", f"{text}\n")):
        path = tmp_path / name
        whole = path.read_text()
        path.write_text(damaged)
        with pytest.raises(UserError, match=name) as caught:
            scores.read_result(tmp_path)
        assert "\n" not in str(caught.value)
        path.write_text(whole)


def test_another_format_and_no_result_are_reported(tmp_path, result):
    with pytest.raises(UserError, match=r"has no run\.json; expected a folder that eval\.py wrote"):
        scores.read_result(tmp_path)
    scored.write_result(tmp_path, result)
    path = tmp_path / "run.json"
    path.write_text(path.read_text().replace('"format": 5', '"format": 99'))
    with pytest.raises(UserError, match="format is 99; expected 5"):
        scores.read_result(tmp_path)


def one(folder="A", condition="x", track="song", value=1.0, metrics=scored.SDR, **fields):
    rows = scored.rows(track, [value], condition=condition, metrics=metrics, **fields)
    return scored.result([rows], metrics=metrics, folder=folder)


def test_results_of_the_same_songs_are_one():
    a = one()
    b = one("B", "y", value=2.0, metrics=("utterance_sdr",))
    merged = scores.merge([a, b])
    assert (list(merged.runs), list(merged.conditions)) == (["A", "B"], ["x", "y"])
    assert list(merged.protocols) == ["utterance_sdr"]
    assert merged.values("y", "utterance_sdr")["song"] == [2.0]
    assert len(merged.repeats("mixture", "song")) == 1
    renamed = merged.renamed({"y": "Y"})
    assert (list(renamed.conditions), len(renamed.rows)) == (["Y"], 5)
    bad = {"mixture": [{"kind": "bad reference", "message": "song: NaN"}]}
    assert scores.merge([a, one("B", "y", value=None, problems=bad)]).tracks == ("song",)


def test_what_cannot_be_merged_is_named():
    old = {"protocols": {"utterance_sdr": "of old", "si_sdr": METRICS["si_sdr"].protocol}}
    two = scored.result([scored.rows("song", [1.0]), scored.rows("more", [1.0])], folder="B")
    for b, message in [
        (one("B", "y", track="else"), "tracks of A and B differ .*: else is in only one of them"),
        (two, r"differ \(1 and 2\): more is in only one of them"),
        (one("B", "y", audio_seconds=3.0), "song differs: audio_seconds is 4.0 in A and 3.0 in B"),
        (one("B", "y", mixture=0.5), "the mixture's utterance SDR is 0.0 in A and 0.5 in B"),
        (dataclasses.replace(one("B", "y"), **old), "utterance_sdr is .* in A and 'of old' in B"),
        (one("B", "x"), "the condition x is in two results"),
    ]:
        with pytest.raises(UserError, match=message) as caught:
            scores.merge([one(), b])
        assert "\n" not in str(caught.value)
