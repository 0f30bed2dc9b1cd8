"""Inspection: the page holds what the model gets, loads nothing, and shows names as they are."""

import dataclasses
import itertools
import re

import matplotlib.image
import numpy as np
import pytest
import soundfile
from html_page import Page, decode
from ramps import Ramps

import configs
import train
from data_pipelines import pipeline
from data_pipelines.augment import NO_AUGMENTATION
from data_pipelines.inspect import __main__ as command
from data_pipelines.inspect import page
from data_pipelines.pipeline import PipelineConfig
from data_pipelines.sources import EmbeddedSongs, FolderSongs
from diffsep_jax.errors import UserError, printable

NAME = "<i>alert('1')<script> & \"Ünï 歌\" [bold]"
RATE, SEGMENT = 44100, 10_000


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    """A folder of two songs, one with a name that needs escaping and with half its vocals silent;
    the accompaniment of both is twice as loud as the vocals."""
    root = tmp_path_factory.mktemp("data <i>")
    rng = np.random.default_rng(0)
    for name, level in ((NAME, 0.2), ("second", 0.02)):
        folder = root / name
        folder.mkdir()
        vocals, other = level * rng.uniform(-1, 1, (2, 10 * 4096, 2))
        vocals[: 5 * 4096] *= level != 0.2
        soundfile.write(folder / "vocals.wav", vocals, RATE, subtype="FLOAT")
        soundfile.write(folder / "other.wav", 2 * other, RATE, subtype="FLOAT")
    return root


def folder_songs(root):
    return FolderSongs(path=str(root), cache_dir=str(root.parent / "cache"))


def run(root, out, *more):
    cache = f"--cache-dir={root.parent / 'cache'}"
    options = ["--segment=8192", "--augment.pitch-probability=0", "--examples=2", f"--out={out}"]
    command.main([str(root), *options, cache, *more])


def test_contents_are_measured(songs):
    rows = page.measure(folder_songs(songs), "x")
    assert (rows["data set"], rows["songs"], rows["sample rate"]) == ("x", "2", "44,100 Hz")
    assert rows["hours"] == f"{2 * 10 * 4096 / RATE / 3600:.3f}"
    assert rows["longest song"].startswith("0:00.9")
    assert rows["blocks with silent vocals"] == "25.0%"  # half of the first song's, none else
    level, name = rows["quietest mixture"].split(" dBFS, ")
    rms = np.sqrt(5 / 3) * 0.02  # of a uniform distribution: its edge / sqrt(3)
    assert float(level) == pytest.approx(20 * np.log10(rms), abs=0.1)
    assert name == "second"
    assert rows["loudest mixture"].endswith(printable(NAME))


def test_command_prints_the_contents_and_writes_the_page(songs, tmp_path, capsys):
    out = tmp_path / "new" / "page.html"
    run(songs, out)
    printed = capsys.readouterr().out
    assert "[bold]" in printed
    assert "25.0%" in printed
    assert [path.name for path in out.parent.iterdir()] == ["page.html"]
    text = out.read_text(encoding="utf-8")
    found = Page(text)
    assert "script" not in found.elements
    assert "i" not in found.elements
    assert NAME in found.text
    assert "http" not in text.replace('http-equiv="Content', "")
    assert any(meta.get("name") == "viewport" for meta in found.elements["meta"])
    assert len(found.elements["article"]) == 2
    assert len(found.elements["audio"]) == 6
    assert len(found.elements["img"]) == 2
    for audio in found.elements["audio"]:
        assert audio["aria-label"]
        samples, rate = soundfile.read(decode(audio["src"]))
        assert (samples.shape, rate) == ((8192, 2), RATE)
    for image in found.elements["img"]:
        assert image["alt"]
        assert matplotlib.image.imread(decode(image["src"])).std() > 0


def draw(source, config, **changes):
    options = {"segment": SEGMENT, "num_steps": 1000, "num_examples": 6, "seed": 1}
    return list(page.draw(source, config, **(options | changes)))


def test_examples_are_rows_of_the_pipelines_batches(tmp_path):
    source = EmbeddedSongs(num_songs=2, seconds=0.5, cache_dir=str(tmp_path))
    config = PipelineConfig(batch_size=3, seed=5)
    batches = pipeline.batches(source, config, segment=SEGMENT)
    drawn = draw(source, config)
    headings = [each.heading for each in drawn]
    assert len(set(headings)) == 6
    assert headings == [each.heading for each in draw(source, config)]
    assert headings != [each.heading for each in draw(source, config, seed=2)]
    for each in drawn:
        step, row = map(int, re.fullmatch(r"Step (\d+), row (\d+)", each.heading).groups())
        for name, audio in batches[step].items():
            np.testing.assert_array_equal(each.audio[name], audio[row])
    assert len(draw(source, config, num_steps=1)) == 3  # no more than there are
    with pytest.raises(UserError, match=r"train-0000 has 22050 samples.* 30000"):
        draw(source, config, segment=30_000)


def test_what_was_applied_is_listed_and_explains_the_audio(songs):
    """With the songs, places, signs, channels and gains of the list the stems are made again."""
    source = folder_songs(songs)
    augment = dataclasses.replace(
        NO_AUGMENTATION,
        polarity_probability=0.5,
        channel_flip_probability=0.5,
        remix_probability=0.5,
        gain_db=(-6.0, 4.0),
    )
    names = [printable(source.name(song)) for song in range(2)]
    for each in draw(source, PipelineConfig(batch_size=1, augment=augment), num_examples=20):
        for line, stem in zip(each.applied, ("vocals", "accompaniment"), strict=True):
            place, *changes = line.removeprefix(f"{stem}: ").split("; ")
            name, _, clock = place.rpartition(" at ")
            song, start = names.index(name), float(clock.removeprefix("0:")) * RATE
            changes = [change for change in changes if change != "remixed"]
            near = range(max(0, int(start - 0.051 * RATE)), int(start + 0.051 * RATE))
            audio = each.audio[stem][:, ::-1] if "channels swapped" in changes else each.audio[stem]
            if "polarity inverted" in changes:
                audio = -audio
            if not audio.any():
                continue
            whole = getattr(source.segment(song, 0, source.num_samples(song)), stem)
            ends = [at + SEGMENT for at in near if at + SEGMENT <= len(whole)]
            found = max(ends, key=lambda end: np.vdot(whole[end - 50 : end], audio[-50:]))
            original = whole[found - SEGMENT : found] / source.level(song)
            gain = float(changes[-1].removeprefix("gain ").removesuffix(" dB"))
            np.testing.assert_allclose(audio, original * 10 ** (gain / 20), atol=0.01 * audio.max())


def test_every_augmentation_is_named():
    augment = dataclasses.replace(
        configs.get("small").data.pipeline.augment,
        **dict.fromkeys(("silent_share", "layer_probability", "bus_probability"), 1.0),
        **dict.fromkeys(("limiter_probability", "low_pass_probability", "fade_probability"), 1.0),
        pitch_probability=1.0,
    )
    config = PipelineConfig(batch_size=1, silent_kept=0.0, augment=augment)
    text = "\n".join(page.describe(pipeline.plan(Ramps(), config, SEGMENT, 0), Ramps()))
    for name in ("silenced", "tilt", "layer", "speed", "pitch", "saturated", "limiter", "low-pass"):
        assert name in text
    assert "fade of the mixture from" in text
    assert "layer" not in text.replace("layer on the accompaniment: ramp-", "", 2)
    plain = dataclasses.replace(config, silent_kept=0.05, augment=NO_AUGMENTATION)
    lines = list(page.describe(pipeline.plan(Ramps(), plain, SEGMENT, 0), Ramps()))
    assert [line.count(";") for line in lines] == [0, 0]


def test_players_hold_the_example_at_one_gain(tmp_path):
    """The three players add up as the stems do, and the loudest peaks at -1 dBFS."""
    source = EmbeddedSongs(num_songs=1, seconds=0.5, cache_dir=str(tmp_path))
    (drawn,) = draw(source, PipelineConfig(batch_size=1), num_examples=1)
    elements = Page(page.to_html("x", {}, [drawn])).elements
    played = [soundfile.read(decode(audio["src"]))[0] for audio in elements["audio"]]
    mixture, vocals, accompaniment = played
    np.testing.assert_allclose(mixture, vocals + accompaniment, atol=2**-14)
    assert max(np.abs(each).max() for each in played) == pytest.approx(10 ** (-1 / 20), abs=1e-4)
    scale = np.abs(mixture).max() / np.abs(drawn.audio["mixture"]).max()
    np.testing.assert_allclose(vocals, scale * drawn.audio["vocals"], atol=2**-13)


def test_silence_is_shown_as_such():
    zeros = np.zeros((100, 2), np.float32)
    audio = {name: zeros for name in ("mixture", "vocals", "accompaniment")}
    drawn = page.Example(heading="Step 0, row 0", applied=(), audio=audio, sample_rate=RATE)
    assert "peak silence, RMS silence" in Page(page.to_html("x", {}, [drawn])).text


def test_only_training_is_augmented(songs, tmp_path):
    texts = []
    for split in ("train", "validation"):
        run(songs, tmp_path / f"{split}.html", f"--split={split}")
        texts.append(Page((tmp_path / f"{split}.html").read_text(encoding="utf-8")).text)
    assert "gain" in texts[0]
    assert "gain" not in texts[1]


def test_a_run_shows_its_own_songs_and_pipeline(songs, tmp_path, capsys):
    """With the config's augmentations and the command line's, and without training."""
    out = tmp_path / "page.html"
    command_line = f"""tiny --train.num-steps 2 --workdir {tmp_path / "run"} --inspect {out}
        --data.cache-dir {tmp_path} --data.pipeline.batch-size 3
        --data.pipeline.augment.gain-db 0 0 --data.pipeline.augment.eq-db 1 1"""
    train.main([*command_line.split(), "--data.source", str(songs)])
    text = out.read_text(encoding="utf-8")
    assert re.findall(r"<h2>Step (\d), row (\d)</h2>", text) == list(itertools.product("01", "012"))
    assert text.count("tilt +1.0 dB") == 12
    assert "gain" not in text
    assert not (tmp_path / "run").exists()


def test_bad_input_is_refused(songs, tmp_path):
    taken = tmp_path / "file"
    taken.touch()
    out = tmp_path / "page.html"
    for more, words in (
        (["--examples=0"], "examples is 0; expected at least 1"),
        (["--seed=-1"], "seed is -1"),
        (["--segment=0"], "segment is 0"),
        (["--augment.silent-share=0.5"], "silent_kept is 0.05 and augment.silent_share is 0.5"),
        ([f"--out={tmp_path}"], "is a folder"),
        ([f"--out={taken / 'page.html'}"], "file: cannot be written"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            run(songs, out, *more)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="nowhere"):
        run(tmp_path / "nowhere", out)
    assert not out.exists()
