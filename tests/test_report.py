"""The report: one file that loads nothing, shows names as they are, and tells the numbers."""

import dataclasses
import re
import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest
import scored
import soundfile
from html_page import Page, decode

from diffsep_jax import metrics
from diffsep_jax.errors import UserError
from diffsep_jax.evaluation.protocols import OTHER_TRACKS
from diffsep_jax.evaluation.report import __main__ as command
from diffsep_jax.evaluation.report import listening, metric_tables, page, write_report
from diffsep_jax.evaluation.report.strips import Axis, box, dumbbell
from diffsep_jax.evaluation.report.values import number
from diffsep_jax.evaluation.result_files import excerpt_file, write_result, write_track
from diffsep_jax.evaluation.results import Condition, Excerpt, Problem
from diffsep_jax.pages import picture
from diffsep_jax.pages.document import audio_uri

NAME = "<i>alert('1')<script> & \"Ünï 歌\" [bold] </title></style>"
CONDITION = "T=50 eta=0"
SECONDS = 0.5
SAMPLES = round(SECONDS * scored.RATE)
TAKEN = Excerpt(start_seconds=1.0, seconds=SECONDS, gain=1.0, conditions=(CONDITION,))


def write_excerpt(out, name, seed=0, stems=("mixture", "vocals", "estimate")):
    """Low tones, which an MP3 keeps well."""
    times = np.arange(SAMPLES)[:, None] / scored.RATE
    for i, stem in enumerate(stems):
        tones = 0.2 * np.sin(2 * np.pi * (200 + 100 * i + seed) * times + np.array([0.0, 1.0]))
        path = excerpt_file(out, name, stem)
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, tones, scored.RATE, subtype="PCM_16", format="FLAC")


def track(out, name, values, **fields):
    write_excerpt(out, name)
    return scored.track(name, values, mixture=-1.25, metrics=scored.ALL, excerpt=TAKEN, **fields)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("result")


@pytest.fixture(scope="module")
def result(out):
    """Two scored tracks of two repeats, one with silent vocals, one without an estimate."""
    silent = Problem(kind="silent vocals", message="quiet: the true vocals are silent")
    nan = Problem(kind="NaN in the estimate", message=f"{NAME} 2: NaN", condition=CONDITION)
    broken = scored.track(NAME + " 2", [1.0], metrics=scored.ALL, problems=(nan,))
    tracks = [
        track(out, NAME, [2.0, 4.0]),
        track(out, "two", [6.0, 8.0]),
        track(out, "quiet", [None, None], problems=(silent,)),
        dataclasses.replace(broken, estimates={CONDITION: ()}),
    ]
    settings = {"data": NAME, "model": "small <b>", "repeats": 2, "points": {"a": {"b": 1.0000001}}}
    return scored.result(
        tracks, metrics=scored.ALL, settings=settings, command=f"eval.py --data '{NAME}'"
    )


@pytest.fixture(scope="module")
def text(result, out):
    return page.render(result, out)


def test_the_page_is_whole_and_loads_nothing(text):
    found = Page(text)
    for tag in ("script", "link", "i", "b", "iframe", "img"):
        assert tag not in found.elements
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
    policies = [meta for meta in found.elements["meta"] if "http-equiv" in meta]
    assert "default-src 'none'" in policies[0]["content"]


def test_names_are_shown_as_they_are(text):
    found = Page(text)
    assert found.text.count(NAME) > 3
    assert "small <b>" in found.text
    assert any(NAME in audio["aria-label"] for audio in found.elements["audio"])


def test_names_of_no_encoding_can_be_written(tmp_path):
    """As Python gives a file's name whose bytes are not UTF-8."""
    name = "a\udcff"
    result = scored.result([scored.track(name, [1.0])])
    write_report(tmp_path / "a.html", result, tmp_path)
    assert '<th scope="row">a?</th>' in (tmp_path / "a.html").read_text(encoding="utf-8")
    sound = np.zeros((100, 2), np.float32)
    power = picture.band_power(sound, scored.RATE)
    assert "a?" in picture.svg(name, sound, power, scored.RATE, peak=1.0, loudest=1.0)


def test_equal_results_give_equal_bytes(result, out, tmp_path):
    for name in "ab":
        write_report(tmp_path / name, result, out)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_players_share_one_gain_and_the_error_is_reference_less_estimate(result, out):
    """The three stems and the error of a track, decoded, add up as the arrays do."""
    audio = Page(listening.section(result, out)).elements["audio"]
    assert len(audio) == 2 * 4
    played = [soundfile.read(decode(each["src"]))[0] for each in audio[:4]]
    assert {each.shape for each in played} == {(SAMPLES, 2)}
    mixture, reference, estimate, error = played
    inside = slice(2000, -2000)  # an MP3 rings where its tones are cut off
    np.testing.assert_allclose(error[inside], (reference - estimate)[inside], atol=0.02)
    peak = max(np.abs(each[inside]).max() for each in played)
    assert peak == pytest.approx(10 ** (listening.PLAYBACK_PEAK_DB / 20), abs=0.02)
    assert np.abs(mixture[inside]).max() < 0.7 * peak


def test_every_player_has_its_picture(result, out):
    elements = Page(listening.section(result, out)).elements
    assert len(elements["image"]) == len(elements["audio"])
    for image in elements["image"]:
        pixels = matplotlib.image.imread(decode(image["href"]))
        assert pixels.shape[0] == picture.BANDS
        assert pixels.std() > 0


def test_rates_that_mp3_does_not_know_are_resampled():
    tone = np.sin(np.arange(4800) / 10).astype(np.float32)[:, None]
    samples, rate = soundfile.read(decode(audio_uri(tone, 96_000, "mp3")))
    assert (len(samples), rate) == (2400, 48_000)


def test_the_worst_and_the_best_are_heard():
    """All of a few, from the worst; of many the three at each end, the extreme first."""

    def names(tracks):
        found = listening.chosen(scored.result(tracks))
        return [[heard.track.name for heard in group] for group in found.values()]

    values = {"c": 3.0, "a": 1.0, "h": 8.0, "e": 5.0, "b": 2.0, "g": 7.0, "d": 4.0, "f": 6.0}
    tracks = [scored.track(name, [value], excerpt=TAKEN) for name, value in values.items()]
    assert names(tracks) == [["a", "b", "c"], ["h", "g", "f"]]
    assert names(tracks[:4]) == [["a", "c", "e", "h"]]
    quiet = scored.track("quiet", [None], excerpt=TAKEN)
    unheard = scored.track("unheard", [0.0])
    assert names([*tracks[:4], quiet, unheard]) == [["a", "c", "e", "h"]]
    assert names([quiet, unheard]) == []


def settings_of(out, kept):
    """Two of settings: b is the better, and ranks the tracks the other way round than a."""
    excerpt = dataclasses.replace(TAKEN, conditions=kept)
    conditions = [Condition(name=name, settings={}) for name in "ab"]
    tracks = []
    for name, a, b in (("one", 1.0, 9.0), ("two", 2.0, 8.0)):
        estimates = {"a": (scored.score(a),), "b": (scored.score(b),)}
        stems = [f"estimate {each}" for each in kept] if len(kept) > 1 else ["estimate"]
        write_excerpt(out, name, stems=("mixture", "vocals", *stems))
        tracks.append(scored.track(name, [0.0], estimates=estimates, excerpt=excerpt))
    return scored.result(tracks, conditions)


def test_of_several_settings_the_best_is_heard(tmp_path):
    """As the page's first number and its table of tracks are of it."""
    result = settings_of(tmp_path, ("a", "b"))
    (heard,) = listening.chosen(result).values()
    assert [(each.track.name, each.condition, each.sdr) for each in heard] == [
        ("two", "b", 8.0),
        ("one", "b", 9.0),
    ]
    section = listening.section(result, tmp_path)
    assert "<h2>Listen: b</h2>" in section
    assert "those of the best of 2 settings" in section
    estimate = soundfile.read(decode(Page(section).elements["audio"][2]["src"]))[0][:, 0]
    spectrum = np.abs(np.fft.rfft(estimate * np.hanning(len(estimate))))
    # Of the stems that were written, b's is the fourth tone.
    assert spectrum.argmax() * scored.RATE / len(estimate) == pytest.approx(500, abs=5)


def test_where_the_best_was_not_kept_the_page_says_whose_is_heard(tmp_path):
    result = settings_of(tmp_path, ("a",))
    (heard,) = listening.chosen(result).values()
    # In the order of the table of tracks, which goes by the best.
    assert [(each.track.name, each.condition, each.sdr) for each in heard] == [
        ("two", "a", 2.0),
        ("one", "a", 1.0),
    ]
    section = listening.section(result, tmp_path)
    assert "<h2>Listen: a</h2>" in section
    assert "those of the first of 2 settings" in section
    assert "Worst and best go by b" in section
    page_text = page.render(result, tmp_path)
    assert page_text.index('<th scope="row">two</th>') < page_text.index('<th scope="row">one</th>')


def test_each_metric_has_a_table_that_names_its_protocol(result):
    sections = list(metric_tables.sections(result))
    assert len(sections) == 4
    for section in sections:
        for table in re.findall("<table.*?</table>", section, re.DOTALL):
            assert ("utterance SDR" in table) + ("chunk SDR" in table) < 2
    captions = re.findall("<caption>(.*?)</caption>", "".join(sections), re.DOTALL)
    assert len(captions) == len(scored.ALL)
    for caption, metric in zip(captions, scored.ALL, strict=True):
        assert result.protocols[metric].partition(": ")[0] in Page(caption).text


def test_tables_have_the_summarys_numbers(result):
    section = next(metric_tables.sections(result))
    row = re.search(r'<tr role="row" class="estimate">.*?</tr>', section, re.DOTALL)[0]
    cells = re.findall(r'data-label="(.*?)"[^>]*>(.*?)</td>', row)
    found = result.summary.conditions[CONDITION]
    statistic = found.statistics["utterance_sdr"]
    low, high = statistic.median_interval
    assert cells[0] == ("median", "5.00")
    assert cells[1] == ("95% interval", f"{number(low)} to {number(high)}")
    assert cells[4:] == [("tracks", "2"), ("repeats", f"± {statistic.spread:.2f}"), ("RTF", "0.50")]
    assert section.count('class="reference"') == 4 * 2
    assert number(-1.25) == "\N{MINUS SIGN}1.25"
    assert "\N{MINUS SIGN}1.25" in section


def test_problems_are_counted_and_told(text):
    found = Page(text).text
    assert "NaN in the estimate: 1" in found
    assert f"{NAME} 2: NaN ({CONDITION})" in found
    assert "silent vocals: 1" in found
    assert "2 of 4" in found


def test_a_track_without_a_score_says_why(text):
    table = re.search(r'<table class="tracks">.*?</table>', text, re.DOTALL)[0]
    rows = [Page(row).text for row in re.findall(r"<tr><th scope=.row.*?</tr>", table)]
    assert [row.startswith(name) for row, name in zip(rows, (NAME, "two"), strict=False)] == [
        True
    ] * 2
    assert sum("silent vocals" in row for row in rows) == 1
    assert sum("NaN in the estimate" in row for row in rows) == 1


def test_the_gain_over_the_best_constant_is_of_the_tracks_that_were_scored(tmp_path):
    """Not of those, at another level, that have no estimate."""
    hard = [scored.track(name, [], mixture=-20.0) for name in "bcd"]
    easy = scored.track("a", [5.0], mixture=3.0)
    text = page.render(scored.result([easy, *hard]), tmp_path)
    assert "<dt>over the best gain</dt><dd>+2.00 <small>dB</small>" in text
    assert "beats the best constant gain: +2.00 dB , better on 1 of 1 tracks" in text


def test_parts_and_distances_from_the_best_are_in_the_tables():
    names = ("utterance_sdr", "level_1_5khz")
    tracks = [
        scored.track(name, [value], part=part, metrics=names)
        for name, value, part in (("a", -3.0, "sung"), ("b", 3.0, "sung"), ("c", 8.0, "spoken"))
    ]
    result = scored.result(tracks, metrics=names)
    rows = {row.name: row for row in metric_tables._rows(result, "level_1_5khz")}
    assert rows[f"sung: {CONDITION}"].values == {"a": -3, "b": 3}
    assert rows["sung: best constant gain"].values.keys() == {"a", "b"}
    assert rows[CONDITION].statistic.deviation == rows[f"sung: {CONDITION}"].statistic.deviation
    found = Page("".join(metric_tables.sections(result))).text
    assert "level 1-5k, dB, 0 is best" in found
    assert "off by" in found


def test_infinity_is_written_so():
    assert number(-metrics.LIMIT_DB) == "\N{MINUS SIGN}\N{INFINITY}"
    assert number(metrics.LIMIT_DB) == "\N{INFINITY}"


def test_boxes_of_references_are_of_the_tracks_that_were_scored(tmp_path):
    part = [scored.track("a", [5.0], mixture=3.0), scored.track("b", [], mixture=-20.0)]
    for row in metric_tables._rows(scored.result(part), "utterance_sdr"):
        assert row.values.keys() == {"a"}
        assert row.statistic.tracks == 1
    assert OTHER_TRACKS not in page.render(scored.result(part), tmp_path)
    estimates = {CONDITION: (scored.score(1.0),), "direct": ()}
    both = estimates | {"direct": (scored.score(1.0),)}
    tracks = [scored.track(n, [0.0], estimates=e) for n, e in (("a", estimates), ("b", both))]
    assert OTHER_TRACKS in page.render(scored.result(tracks), tmp_path)


def test_how_it_was_made_is_on_the_page(text, result):
    found = Page(text).text
    made = (*result.versions, *result.hardware.values(), "a: b: 1.0000001")
    for words in (result.command, result.fingerprint, *made):
        assert words in found


@pytest.fixture(scope="module")
def sweep():
    conditions, estimates = [], {}
    for eta in (0.0, 0.4):
        for steps in (5, 10, 20, 40):
            name = f"T={steps} eta={eta:g}"
            settings = {"sampler": "ddim", "steps": steps, "eta": eta, "cutoff_hz": None}
            conditions.append(Condition(name=name, settings=settings))
            estimates[name] = (scored.score(steps / 10 + eta, seconds=steps / 4),)
    tracks = [scored.track("one", [0.0], estimates=estimates)]
    return scored.result(tracks, conditions)


def test_a_sweep_is_drawn_against_time(sweep, out):
    text = page.render(sweep, out)
    section = re.search(r'<section id="quality">.*?</section>', text, re.DOTALL)[0]
    titles = [re.sub("<.*?>", "", title) for title in re.findall("<title>.*?</title>", section)]
    assert len(titles) == len(sweep.conditions)
    for condition, title in zip(sweep.conditions, titles, strict=True):
        assert title.startswith(f"{condition.name}: ")
    places = re.findall(r'<svg x="([\d.]+)%" y="([\d.]+)%"', section)
    across, up = np.array(places, float).T.reshape(2, 2, 4)
    # Twice the steps take twice the time: equal ways on a logarithmic axis.
    np.testing.assert_allclose(np.diff(across), np.diff(across)[0, 0], atol=0.02)
    assert (np.diff(up) < 0).all()  # y grows downwards
    assert "Best: T=40 eta=0.4, 4.40 dB at 2.50 s" in Page(section).text
    assert re.findall(r"<td><strong>(.*?)</strong>", section)[:4] == [
        "0.50",
        "1.00",
        "2.00",
        "4.00",
    ]
    assert "T=40 eta=0.4, the best of 8 settings" in Page(text).text
    assert "SDR of all 8 settings" in text


def test_one_condition_or_no_times_make_no_plot(text, sweep, out):
    assert "Quality against time" not in text
    untimed = {
        name: tuple(dataclasses.replace(score, seconds=None) for score in scores)
        for name, scores in sweep.tracks[0].estimates.items()
    }
    tracks = [dataclasses.replace(sweep.tracks[0], estimates=untimed)]
    folder = scored.result(tracks, sweep.conditions)
    assert "Quality against time" not in page.render(folder, out)


def test_a_result_without_any_score_has_a_page(out):
    nothing = scored.result([scored.track("quiet", [None])])
    found = Page(page.render(nothing, out))
    assert "audio" not in found.elements
    assert "No track has a score and an excerpt." in found.text


@pytest.mark.parametrize("values", [[0.0, 10.0], [-31.0, 9.5], [5.0], [1e-3, 1.2e-3], []])
def test_an_axis_holds_its_values_and_is_labelled(values):
    axis = Axis.over(values)
    assert all(0 < axis.share(value) < 1 for value in values)
    assert 2 <= len(axis.ticks) <= 7
    np.testing.assert_allclose(np.diff(axis.ticks), axis.ticks[1] - axis.ticks[0])
    assert all(0 <= axis.share(tick) <= 1 for tick in axis.ticks)


def test_a_box_holds_the_middle_half():
    axis = Axis.over([0.0, 40.0])
    values = {str(i): float(i) for i in range(0, 41, 10)}
    drawn = box(axis, values, 20.0, name="x")
    left, width = re.search(r'class="box" x="(.*?)%" width="(.*?)%"', drawn).groups()
    assert f"{left}%" == axis.percent(10.0)
    assert float(left) + float(width) == pytest.approx(float(axis.percent(30.0)[:-1]), abs=0.02)
    assert drawn.count("<circle") == len(values)
    assert f'class="median" x1="{axis.percent(20.0)}"' in drawn


def test_values_beyond_the_limit_are_arrows():
    """The mixture has no artefacts, so its SAR of 150 dB leaves the axis to the others."""
    axis = Axis.over([0.0, 20.0, 150.0])
    assert axis.high < 30
    beyond = box(axis, {"a": 150.0, "b": 151.0}, 150.5, name="x")
    assert "circle" not in beyond
    assert "rect" not in beyond
    assert "from 150.00 to 151.00, " in beyond
    assert re.findall(r'<svg x="(.*?)"', beyond) == ["100%"]
    some = box(axis, {"a": -70.0, "b": 10.0}, -30.0, name="x")
    assert some.count("circle cx") == 1
    assert re.findall(r'<svg x="(.*?)"', some) == ["0%"]
    left, width = re.search(r'class="box" x="(.*?)%" width="(.*?)%"', some).groups()
    assert float(left) == 0
    assert float(width) <= 100


def test_command_writes_the_page_of_a_folder(tmp_path, capsys):
    out = tmp_path / "result"
    result = scored.result([track(out, "one", [3.0])], metrics=scored.ALL)
    write_track(out, result.tracks[0], result.settings)
    write_result(out, result)
    command.main([str(out)])
    html = tmp_path / "elsewhere" / "a.html"
    command.main([str(out), f"--html={html}"])
    assert f"wrote {html}" in capsys.readouterr().out
    assert html.read_bytes() == (out / "report.html").read_bytes()
    assert html.read_text(encoding="utf-8") == page.render(result, out)
    with pytest.raises(UserError, match="is a folder"):
        command.main([str(out), f"--html={tmp_path}"])
    file = excerpt_file(out, "one", "estimate")
    for damage in (lambda: file.write_bytes(b"no audio"), file.unlink):
        damage()
        with pytest.raises(UserError, match=r"estimate\.flac: missing or damaged") as caught:
            command.main([str(out)])
        assert "\n" not in str(caught.value)
    write_excerpt(out, "one")
    soundfile.write(file, np.zeros((5, 2)), scored.RATE, format="FLAC")
    with pytest.raises(UserError, match="differ in shape"):
        command.main([str(out)])


def test_no_result_ends_in_one_line_and_status_2(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-m", "diffsep_jax.evaluation.report", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert re.fullmatch("error: .*no summary.json here.*\n", ended.stderr)


def test_nothing_is_drawn_beyond_the_axis():
    """Scores of the references themselves, as a first check, are some 100 dB."""
    axis = Axis.over([-1.0, 9.0, 106.0])
    drawn = dumbbell(axis, start=-1.0, end=106.0, bound=-80.0)
    places = [float(place) for place in re.findall(r'(?:cx|x1|x2)="([-\d.]+)%"', drawn)]
    assert len(places) >= 6
    assert 0 <= min(places) <= max(places) == 100
