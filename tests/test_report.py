"""The report: one file that loads nothing, shows names as they are, and ranks results."""

import re
import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest
import scored
import soundfile
from html_page import Page, decode

from diffsep_jax import plots
from diffsep_jax.errors import UserError
from diffsep_jax.evaluation import report, scores
from diffsep_jax.evaluation.excerpts import excerpt_name
from diffsep_jax.evaluation.protocols import ANCHORS, MIXTURE, OTHER_TRACKS
from diffsep_jax.evaluation.summary import summarise
from diffsep_jax.pages import audio_uri

NAME = "<i>alert('1')<script> & \"Ünï 歌\" [bold] {{ 1 }} </title></style>"
SAMPLES = scored.RATE // 2


def with_excerpts(out, rows, kept=(scored.POINT,), gain=0.5):
    """The rows with files of low tones, which an MP3 keeps well: of 200 Hz, 300 Hz, ..."""
    track = rows[0]["track"]
    times = np.arange(SAMPLES)[:, None] / scored.RATE
    for i, name in enumerate((MIXTURE, "vocals", *kept)):
        file = excerpt_name(track, name)
        tones = 0.2 * gain * np.sin(2 * np.pi * (200 + 100 * i) * times + np.array([0.0, 1.0]))
        (out / file).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(out / file, tones, scored.RATE, subtype="PCM_16", format="FLAC")
        excerpt = {"file": file, "start_seconds": 1.0, "gain": gain}
        for row in (row for row in rows if row["condition"] == name and not row["repeat"]):
            row["excerpt"] = excerpt
    return rows


def track(out, name, values, **fields):
    return with_excerpts(out, scored.rows(name, values, metrics=scored.ALL, **fields))


def written(out, result):
    scored.write_result(out, result)
    return scores.read_result(out)


def render(result):
    return report.render(result, summarise(result))


@pytest.fixture(autouse=True)
def _quick_pictures(request, monkeypatch):
    """Pictures take most of a page's time; `text` has true ones, as it is made before."""
    if "real_pictures" not in request.fixturenames:
        for name in ("spectrograms", "quality_against_time"):
            monkeypatch.setattr(plots, name, lambda *_: b"")


@pytest.fixture
def real_pictures():
    """Has pictures drawn."""


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("result")


@pytest.fixture(scope="module")
def result(out):
    """Two scored tracks of two repeats, one with silent vocals, one without an estimate."""
    silent = {MIXTURE: [{"kind": "silent vocals", "message": "quiet: the vocals are silent"}]}
    nan = {scored.POINT: [{"kind": "NaN in the estimate", "message": f"{NAME} 2: NaN"}]}
    tracks = [
        track(out, NAME, [2.0, 4.0], mixture=-1.25),
        track(out, "two", [6.0, 8.0], mixture=-1.25),
        scored.rows("quiet", [None, None], metrics=scored.ALL, problems=silent),
        scored.rows(f"{NAME} 2", [None], metrics=scored.ALL, problems=nan),
    ]
    settings = {"data": NAME, "model": "small <b>", "repeats": 2, "overlap": 1.0000001}
    made = scored.result(
        tracks, metrics=scored.ALL, settings=settings, command=f"eval.py --data '{NAME}'"
    )
    return written(out, made)


@pytest.fixture(scope="module")
def text(result):
    return render(result)


def test_the_page_is_whole_and_loads_nothing(text):
    found = Page(text)
    for tag in ("link", "i", "b", "iframe"):
        assert tag not in found.elements
    assert len(found.elements["script"]) == 1
    sources = [
        attributes[name]
        for elements in found.elements.values()
        for attributes in elements
        for name in ("src", "href", "srcset", "data")
        if name in attributes
    ]
    assert sources
    assert all(source.startswith("data:") for source in sources)
    assert "http" not in text.replace("http-equiv", "")
    assert "@import" not in text
    assert "url(" not in text
    (policy,) = [meta["content"] for meta in found.elements["meta"] if "http-equiv" in meta]
    assert "default-src 'none'" in policy
    script = re.search("<script>(.*?)</script>", text, re.DOTALL)[1]
    assert f"script-src 'sha256-{report._sha256(script)}'" in policy


def test_names_are_shown_as_they_are(text):
    found = Page(text)
    assert found.text.count(NAME) > 3
    assert "small <b>" in found.text
    assert any(NAME in audio["aria-label"] for audio in found.elements["audio"])


def test_names_of_no_encoding_can_be_written(tmp_path):
    """As Python gives a file's name whose bytes are not UTF-8."""
    result = scored.result([scored.rows("a\udcff", [1.0])])
    report.write_report(tmp_path / "a.html", result, summarise(result))
    assert '<th scope="row">a?</th>' in (tmp_path / "a.html").read_text(encoding="utf-8")


def test_equal_results_give_equal_bytes(result, text, real_pictures):
    assert render(result) == text


def test_players_come_first_and_share_one_gain(text):
    """The three stems and the error of a track, decoded, add up as the arrays do."""
    assert 0 < text.index("<audio") < text.index("<table")
    found = Page(text).elements
    labels = [each["aria-label"].removesuffix(f" of {NAME}") for each in found["audio"][:4]]
    assert labels == ["mixture", "reference", "estimate", "error"]
    assert len(found["audio"]) == 2 * 4
    assert all("controls" in each for each in found["audio"])  # they play without the script
    played = [soundfile.read(decode(each["src"]))[0] for each in found["audio"][:4]]
    assert {each.shape for each in played} == {(SAMPLES, 2)}
    mixture, reference, estimate, error = played
    inside = slice(2000, -2000)  # an MP3 rings where its tones are cut off
    np.testing.assert_allclose(error[inside], (reference - estimate)[inside], atol=0.02)
    peak = max(np.abs(each[inside]).max() for each in played)
    assert peak == pytest.approx(10 ** (report.PLAYBACK_PEAK_DB / 20), abs=0.02)
    assert np.abs(mixture[inside]).max() < 0.7 * peak


def test_every_track_that_is_heard_has_its_picture(text):
    images = [image for image in Page(text).elements["img"] if "spectrograms" in image["alt"]]
    assert len(images) == 2
    for image in images:
        assert matplotlib.image.imread(decode(image["src"])).std() > 0


def test_rates_that_mp3_does_not_know_are_resampled():
    tone = np.sin(np.arange(4800) / 10).astype(np.float32)[:, None]
    samples, rate = soundfile.read(decode(audio_uri(tone, 96_000, "mp3")))
    assert (len(samples), rate) == (2400, 48_000)


def heard(result):
    """Track and scores of each card."""
    cards = report._cards(result, report.ranked(result, summarise(result)))
    return [(card["track"], card["scores"]) for card in cards]


def test_the_worst_and_the_best_are_heard(tmp_path):
    values = {"c": 3.0, "a": 1.0, "h": 8.0, "e": 5.0, "b": 2.0, "g": 7.0, "d": 4.0, "f": 6.0}
    tracks = [with_excerpts(tmp_path, scored.rows(n, [v])) for n, v in values.items()]
    tracks += [with_excerpts(tmp_path, scored.rows("quiet", [None])), scored.rows("unheard", [0.0])]
    found = heard(written(tmp_path, scored.result(tracks)))
    assert found == [(name, {"estimate": values[name]}) for name in "abcfgh"]
    assert heard(scored.result(tracks[8:])) == []


def sweep_of(out, kept):
    """Two conditions: b is the better, and ranks the tracks the other way round than a."""
    tracks = [
        with_excerpts(out, scored.rows(name, estimates={"a": [a], "b": [b]}), kept)
        for name, a, b in (("one", 1.0, 9.0), ("two", 2.0, 8.0))
    ]
    return written(out, scored.result(tracks))


def test_of_several_conditions_the_best_is_heard_first(tmp_path):
    result = sweep_of(tmp_path, ("a", "b"))
    b, a = "estimate: b", "estimate: a"
    assert heard(result) == [("two", {b: 8.0, a: 2.0}), ("one", {b: 9.0, a: 1.0})]
    audio = Page(render(result)).elements["audio"]
    labels = [each["aria-label"] for each in audio[2:5]]
    assert labels == [f"{name} of two" for name in (b, a, "error: b")]
    estimate = soundfile.read(decode(audio[2]["src"]))[0][:, 0]
    spectrum = np.abs(np.fft.rfft(estimate * np.hanning(len(estimate))))
    # Of the stems that were written, b's is the fourth tone.
    assert spectrum.argmax() * scored.RATE / len(estimate) == pytest.approx(500, abs=5)


def test_where_the_best_was_not_kept_the_page_says_so(tmp_path):
    result = sweep_of(tmp_path, ("a",))
    # In the order of the table of tracks, which goes by the best.
    assert heard(result) == [("two", {"estimate": 2.0}), ("one", {"estimate": 1.0})]
    assert "in the order of b, the best condition, whose estimates were not kept" in render(result)


def test_each_table_has_one_protocol(text):
    for table in re.findall('<table class="metric">.*?</table>', text, re.DOTALL):
        assert ("utterance SDR" in table) + ("chunk SDR" in table) < 2


def test_the_numbers_are_the_summarys(result, text):
    rows = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', text)
    cells = {name: re.findall("<td>(.*?)</td>", cells) for name, cells in reversed(rows)}
    assert cells[scored.POINT] == ["SDR", "5.00", "[3.00, 7.00]", "5.00", "±1.41", "2", "0.50"]
    assert all(name in cells for name in ANCHORS)
    found = Page(text).text
    assert "median utterance SDR over tracks; 95% interval [3.00, 7.00]" in found
    assert re.search(r"over the best gain\s*\+6.25 dB", found)
    assert re.search(r"tracks scored\s*2 of 4", found)


def test_problems_are_counted_and_told(text):
    found = Page(text).text
    assert "NaN in the estimate: 1" in found
    assert f"{NAME} 2: NaN ({scored.POINT})" in found
    assert "silent vocals: 1" in found
    table = re.search(r'<section id="tracks">.*?</section>', text, re.DOTALL)[0]
    names = [Page(row).text for row in re.findall(r'<th scope="row">.*?</th>', table)]
    assert names == [NAME, "two", "quiet", f"{NAME} 2"]
    for kind in ("silent vocals", "NaN in the estimate"):
        assert f"<td>{kind}</td>" in table


def test_rows_of_other_tracks_are_told():
    both, one = {"x": [1.0], "y": [1.0]}, {"x": [1.0], "y": [None]}
    part = [scored.rows("a", estimates=both), scored.rows("b", estimates=one)]
    assert OTHER_TRACKS in render(scored.result(part))
    assert OTHER_TRACKS not in render(scored.result(part[:1]))


def test_how_it_was_made_is_on_the_page(text, result):
    found = Page(text).text
    (run,) = result.runs.values()
    for words in (run["command"], *run["versions"], *run["hardware"].values(), "1.0000001"):
        assert words in found


def test_a_sweep_has_its_plot_and_its_full_tables_folded():
    estimates = {f"T={steps} eta=0": [steps / 10] for steps in range(5, 13)}
    sweep = scored.result([scored.rows("one", estimates=estimates)])
    text = render(sweep)
    assert "Quality against time" in text
    assert "T=12 eta=0, the best of 8 conditions" in Page(text).text
    assert "All 8 conditions" in text
    untimed = scored.result([scored.rows("one", estimates=estimates, seconds=None)])
    assert "Quality against time" not in render(untimed)


def test_a_result_without_any_score_has_a_page():
    found = Page(render(scored.result([scored.rows("quiet", [None])])))
    assert "audio" not in found.elements
    assert "No track has a score and an excerpt." in found.text


def test_the_command_writes_the_page_of_a_folder(tmp_path, capsys):
    out = tmp_path / "result"
    result = written(out, scored.result([track(out, "one", [3.0])], metrics=scored.ALL))
    report.main([str(out)])
    html = tmp_path / "elsewhere" / "a.html"
    report.main([str(out), f"--html={html}"])
    printed = capsys.readouterr()
    assert f"wrote {html}" in printed.err
    assert printed.out == ""
    assert html.read_bytes() == (out / "report.html").read_bytes()
    assert html.read_text(encoding="utf-8") == render(result)
    for arguments, message in [
        ([str(out), f"--html={tmp_path}"], "a folder; expected the name of an HTML file"),
        ([str(out), "--conditions", "else"], "conditions has else; expected some of T=50 eta=0"),
        ([], "folders is empty"),
    ]:
        with pytest.raises(UserError, match=message):
            report.main(arguments)
    file = out / excerpt_name("one", scored.POINT)
    for damage in (lambda: file.write_bytes(b"no audio"), file.unlink):
        damage()
        with pytest.raises(UserError, match=r"\.flac is missing or damaged") as caught:
            report.main([str(out)])
        assert "\n" not in str(caught.value)
    soundfile.write(file, np.zeros((5, 2)), scored.RATE, format="FLAC")
    with pytest.raises(UserError, match=r"shape is \(5, 2\); expected"):
        report.main([str(out)])


def test_any_number_of_results_are_ranked(tmp_path, capsys):
    folders = [str(tmp_path / name) for name in "abc"]
    for folder, gain, value in zip(folders, (0.25, 1.0, 0.5), (1.0, 3.0, 2.0), strict=True):
        rows = [
            with_excerpts(tmp_path / folder, scored.rows(f"song {i}", [value + i / 10]), gain=gain)
            for i in range(7)
        ]
        scored.write_result(tmp_path / folder, scored.result(rows))
    report.main([*folders, f"--html={tmp_path / 'all.html'}", "--table=markdown"])
    rows = [line for line in capsys.readouterr().out.splitlines() if "| SDR |" in line]
    assert [line.split(" | ")[0][2:] for line in rows[4:]] == [folders[i] for i in (1, 2, 0)]
    text = Page((tmp_path / "all.html").read_text()).text
    assert f"{folders[1]} - {folders[0]}: median +2.00" in text
    # Files of other gains are played at one level.
    played = Page((tmp_path / "all.html").read_text()).elements["audio"][:5]
    peaks = [np.abs(soundfile.read(decode(each["src"]))[0][2000:-2000]).max() for each in played]
    assert peaks == pytest.approx([peaks[0]] * 5, rel=0.05)


def test_of_two_results_every_track_is_compared(tmp_path, capsys):
    for name, value in (("a", 1.0), ("b", 2.0)):
        rows = [scored.rows(f"song {i}", [value + i], condition=name) for i in range(7)]
        metrics = scored.SDR if name == "a" else scored.SDR[:1]
        scored.write_result(tmp_path / name, scored.result(rows, {name: {}}, metrics=metrics))
    report.main([str(tmp_path / "a"), str(tmp_path / "b")])
    printed = capsys.readouterr()
    assert printed.out.count("+1.00") >= 8
    assert "is better, by more than chance" in " ".join(printed.out.split())
    assert "left out, as not all results have it: si_sdr" in printed.err
    report.main([str(tmp_path / "a"), "--table=csv"])
    assert capsys.readouterr().out.startswith("part,vocals,real_time_factor,utterance_sdr_median,")


def test_missing_packages_and_results_are_one_line(tmp_path, monkeypatch):
    ended = subprocess.run(
        [sys.executable, "-m", "diffsep_jax.evaluation.report", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert re.fullmatch("error: .* has no run.json; .*\n", ended.stderr)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="need jinja2 and matplotlib; pip install jinja2"):
        render(scored.result([scored.rows("a", [1.0])]))
