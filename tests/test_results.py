"""Results as data: what is written is read again, and what is damaged or of others is refused."""

import json

import pytest
import scored

from diffsep_jax.errors import UserError
from diffsep_jax.evaluation import result_files
from diffsep_jax.evaluation.protocols import GROUP_TITLES, METRICS, PROTOCOLS
from diffsep_jax.evaluation.results import Condition, Excerpt, Problem, Result, fingerprint


@pytest.fixture
def result() -> Result:
    """Two tracks of two repeats with a problem, a silent one, and one without an estimate."""
    condition = Condition(name="T=5 eta=0", settings={"steps": 5, "cutoff_hz": None})
    problem = Problem(kind="length differs", message="x.wav: 3 samples", condition=condition.name)
    excerpt = Excerpt(
        start_seconds=1.5, seconds=6.0, gain=0.5, conditions=(condition.name, "direct")
    )
    tracks = [
        scored.track("a", [1.0, 2.0], condition=condition.name, excerpt=excerpt, inputs="a.wav:3"),
        scored.track("b", [3.0, 5.0], condition=condition.name, part="sung"),
        scored.track("c/..", [None, None], condition=condition.name),
        scored.track("d", [], estimates={condition.name: ()}, problems=(problem,)),
    ]
    return scored.result(tracks, [condition])


def write(out, result):
    for track in result.tracks:
        result_files.write_track(out, track, result.settings)
    result_files.write_result(out, result)


def test_a_result_is_read_as_it_was_written(tmp_path, result):
    write(tmp_path, result)
    assert result_files.read_result(tmp_path) == result
    assert scored.tree(tmp_path) == [
        "summary.json",
        "tracks/a.json",
        "tracks/b.json",
        "tracks/c%2F...json",
        "tracks/d.json",
    ]


def test_files_say_what_their_numbers_are(tmp_path, result):
    write(tmp_path, result)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["protocols"] == {name: PROTOCOLS[name] for name in scored.SDR}
    assert summary["summary"]["problems"] == {"length differs": 1}
    silent = json.loads((tmp_path / "tracks" / "c%2F...json").read_text())
    (score, _) = silent["estimates"]["T=5 eta=0"]
    assert score["metrics"]["utterance_sdr"] is None
    assert score["undefined"]["utterance_sdr"] == "silent"


def test_every_metric_has_a_protocol_and_a_table():
    assert PROTOCOLS.keys() == METRICS.keys()
    assert {metric.group for metric in METRICS.values()} == GROUP_TITLES.keys()
    # Utterance and chunk SDR share a name, and so no table.
    titles = [(metric.group, metric.title) for metric in METRICS.values()]
    assert len(set(titles)) == len(titles)


def test_a_fingerprint_is_of_the_values_in_any_order():
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


@pytest.mark.parametrize("name", ["..", ".hidden", "a/b", "AC/DC: live?", "naïve 100%", "\n"])
def test_a_tracks_file_stays_in_the_folder(tmp_path, name):
    path = result_files.track_file(tmp_path, name)
    assert path.parent == tmp_path / "tracks"
    assert path.resolve().parent == path.parent
    assert (
        result_files.excerpt_file(tmp_path, name, "vocals")
        .resolve()
        .is_relative_to(tmp_path / "excerpts")
    )
    assert not path.name.startswith(".")


def test_names_that_differ_have_files_that_differ(tmp_path):
    names = ["a/b", "a%2Fb", "a:b", "a b"]
    assert len({result_files.track_file(tmp_path, name) for name in names}) == len(names)


@pytest.mark.parametrize("letter", ["x", "歌", "?"])
def test_the_longest_names_of_folders_have_files(tmp_path, letter):
    longest = letter * (255 // len(letter.encode()))
    for name in (longest, longest[:-1]):
        result_files.write_track(tmp_path, scored.track(name, [1.0]), {})
    assert result_files.read_track(tmp_path, longest, {}).name == longest
    assert len(list((tmp_path / "tracks").iterdir())) == 2


def test_tracks_of_other_settings_are_refused(tmp_path, result):
    write(tmp_path, result)
    assert result_files.read_track(tmp_path, "a", result.settings) == result.tracks[0]
    assert result_files.read_track(tmp_path, "new", result.settings) is None
    result_files.check_same_settings(tmp_path, result.settings)
    result_files.check_same_settings(tmp_path / "new", result.settings)
    for check in (
        lambda: result_files.read_track(tmp_path, "a", {"steps": 6}),
        lambda: result_files.check_same_settings(tmp_path, {"steps": 6}),
    ):
        with pytest.raises(UserError, match=r"of other settings .*another --out.*--overwrite"):
            check()


def test_an_unfinished_result_is_told(tmp_path, result):
    with pytest.raises(UserError, match=r"no summary\.json here, expected the --out of eval\.py$"):
        result_files.read_result(tmp_path)
    result_files.write_track(tmp_path, result.tracks[0], result.settings)
    with pytest.raises(UserError, match="has not come to its end; run its command again"):
        result_files.read_result(tmp_path)
    write(tmp_path, result)
    result_files.track_file(tmp_path, "b").unlink()
    with pytest.raises(UserError, match=r"b\.json: missing.*eval\.py --out here"):
        result_files.read_result(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"format": 2}', '{"format": 2, "fingerprint": "x", "tracks": []}'],
)
def test_damaged_files_are_told_in_one_line(tmp_path, result, text):
    write(tmp_path, result)
    for path in (tmp_path / "summary.json", result_files.track_file(tmp_path, "a")):
        whole = path.read_text()
        path.write_text(text)
        with pytest.raises(UserError) as caught:
            result_files.read_result(tmp_path)
        assert "\n" not in str(caught.value)
        assert path.name in str(caught.value)
        path.write_text(whole)


def test_another_format_is_told(tmp_path, result):
    write(tmp_path, result)
    path = tmp_path / "summary.json"
    path.write_text(path.read_text().replace('"format": 4', '"format": 99'))
    with pytest.raises(UserError, match="written in format 99, this version reads 4"):
        result_files.read_result(tmp_path)
