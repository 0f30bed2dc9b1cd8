"""Scores of tracks, their tables and pictures, and eval.py from a folder of songs to a report."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import jax
import matplotlib.image
import numpy as np
import pytest
import soundfile as sf
from rich.console import Console
from rich.table import Table

import eval as eval_script
from diffsep_jax import metrics
from diffsep_jax.errors import UserError, one_line_errors
from diffsep_jax.evaluation import comparison, scores
from diffsep_jax.evaluation.picture import save_spectrograms
from diffsep_jax.inference.pretrained import save_model
from diffsep_jax.inference.separator import Separation, Separator
from diffsep_jax.inference.settings import SamplerSettings
from diffsep_jax.models.conditioner import Conditioner
from diffsep_jax.models.generator import Generator
from diffsep_jax.separation_model import SeparationModel

RATE = 44_100

NETWORK = {
    "widths": (16, 16, 16),
    "factors": (4, 4),
    "patch_size": 8,
    "attention_levels": 0,
    "injection_levels": 1,
}
TINY = SeparationModel(
    segment=4096,
    generator=Generator(blocks=(1, 1), fourier_features=16, embedding_width=16, **NETWORK),
    conditioner=Conditioner(transformer_layers=0, **NETWORK),
)


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory with random weights."""
    shapes = jax.eval_shape(TINY.init, jax.random.key(0))
    directory = tmp_path_factory.mktemp("model")
    save_model(directory, TINY, jax.tree.map(lambda leaf: noise(*leaf.shape), shapes))
    return directory


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.float32(0.1) * np.random.default_rng(seed).standard_normal(shape, np.float32)


def score(name: str, vocals: np.ndarray, estimate: np.ndarray, seconds: float = 1.0):
    """A track whose accompaniment is noise as loud as the vocals of `noise`."""
    return scores.score_track(
        name,
        vocals=vocals,
        mixture=vocals + noise(*vocals.shape, seed=9),
        estimate=estimate,
        sample_rate=RATE,
        seconds=seconds,
    )


def cells(table: Table) -> list[list[str]]:
    """The body of a table as it is printed."""
    console = Console(width=120)
    with console.capture() as capture:
        console.print(table)
    lines = [line for line in capture.get().splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines]


@pytest.fixture
def tracks() -> list[scores.TrackScore]:
    """Utterance SDRs of 20, 0 and 6.02 dB (errors of 0.1, 1, 0.5 times the vocals), one silent."""
    vocals = noise(RATE, 2)
    silence = np.zeros_like(vocals)
    return [
        score("good", vocals, np.float32(0.9) * vocals),
        score("zero", vocals, silence),
        score("half", vocals, np.float32(0.5) * vocals, seconds=2.0),
        score("silent", silence, vocals),
    ]


# --- Scores.


def test_a_track_is_scored_by_utterance_sdr() -> None:
    vocals, estimate = noise(RATE // 2, 2), noise(RATE // 2, 2, seed=1)
    track = score("a", vocals, estimate, seconds=3.0)
    assert track.sdr == metrics.sdr(vocals, estimate)
    assert track.sdr_mixture == pytest.approx(0, abs=0.1)  # accompaniment and vocals equally loud
    assert (track.name, track.audio_seconds, track.seconds) == ("a", 0.5, 3.0)
    assert not track.is_silent


def test_summary_is_the_median_of_the_tracks_with_vocals(tracks: list[scores.TrackScore]) -> None:
    summary = scores.summarise(tracks)
    assert summary["tracks"] == 4
    assert summary["silent_tracks"] == 1
    assert summary["median_sdr"] == pytest.approx(20 * np.log10(2), abs=1e-3)
    assert summary["median_sdr_mixture"] == tracks[0].sdr_mixture
    assert summary["audio_seconds"] == 4
    assert summary["real_time_factor"] == pytest.approx(5 / 4)  # silent tracks take time as well


def test_silent_tracks_alone_have_no_median(tracks: list[scores.TrackScore]) -> None:
    summary = scores.summarise(tracks[-1:])
    assert (summary["silent_tracks"], summary["median_sdr"]) == (1, None)
    assert cells(scores.table(tracks[-1:]))[-1] == ["median", "silent", "silent", "", ""]


def test_metrics_json_tells_protocol_settings_and_every_track(
    tmp_path: Path, tracks: list[scores.TrackScore]
) -> None:
    path = tmp_path / "metrics.json"
    scores.write_metrics(path, tracks, {"steps": 5})
    report = json.loads(path.read_text())
    assert report["protocol"] == scores.PROTOCOL
    assert report["settings"] == {"steps": 5}
    assert report["summary"] == scores.summarise(tracks)
    assert report["tracks"] == [dataclasses.asdict(track) for track in tracks]
    assert report["tracks"][3]["sdr"] is None
    assert list(tmp_path.iterdir()) == [path]


def test_table_shows_every_track_and_the_median(tracks: list[scores.TrackScore]) -> None:
    rows = {name: values for name, *values in cells(scores.table(tracks))}
    assert list(rows) == ["good", "zero", "half", "silent", "median"]
    assert rows["good"] == ["0.00", "20.00", "+20.00", "1.0"]
    assert rows["silent"] == ["silent", "silent", "", "1.0"]
    assert rows["median"][1] == "6.02"


@pytest.mark.parametrize("name", ["Song [live]", "Song [/b]", "[bold]"])
def test_brackets_in_a_name_are_no_markup(name: str, tracks: list[scores.TrackScore]) -> None:
    track = dataclasses.replace(tracks[0], name=name)
    assert cells(scores.table([track]))[0][0] == name
    row = comparison.Row(name, f"{name} T=1", [track])
    assert cells(comparison.comparison_table([row]))[0][:2] == [name, f"{name} T=1"]


def test_metrics_that_cannot_be_written_leave_nothing(
    tmp_path: Path, tracks: list[scores.TrackScore], monkeypatch: pytest.MonkeyPatch
) -> None:
    def replace(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.replace", replace)
    with pytest.raises(UserError, match=r"metrics\.json: cannot be written: Permission denied"):
        scores.write_metrics(tmp_path / "metrics.json", tracks, {})
    assert not list(tmp_path.iterdir())


def test_a_bad_estimate_is_refused_by_the_tracks_name() -> None:
    vocals = noise(100, 2)
    with pytest.raises(UserError, match=r"song 7: .*NaN"):
        score("song 7", vocals, vocals * np.float32(np.nan))


# --- Comparison of estimates.


class Adding(Separator):
    """Vocals = mixture + seed."""

    def __init__(self) -> None:
        pass

    def separate(self, mixture: np.ndarray, sample_rate: int, **settings: int) -> Separation:
        vocals = mixture + np.float32(settings["seed"])
        return Separation(vocals, mixture - vocals)


def test_an_estimate_is_the_mean_of_its_draws() -> None:
    vocals, mixture = noise(RATE, 2), noise(RATE, 2, seed=1)
    song = comparison.Song("a", vocals, mixture, RATE)
    estimates = {
        "one": [SamplerSettings(seed=0)],
        "mean": [SamplerSettings(seed=seed) for seed in (0, 1, 2)],
    }
    scored = comparison.score_estimates(Adding(), song, estimates)
    assert np.array_equal(scored["one"].vocals, mixture)
    assert scored["one"].score.sdr == scored["one"].score.sdr_mixture
    np.testing.assert_allclose(scored["mean"].vocals, mixture + 1, atol=1e-6)
    assert scored["mean"].score.sdr == metrics.sdr(vocals, scored["mean"].vocals)


def test_comparison_names_each_group_of_songs_once(tracks: list[scores.TrackScore]) -> None:
    rows = [
        comparison.Row("songs", "direct", tracks),
        comparison.Row("songs", "diffusion", tracks[:1]),
        comparison.Row("rests", "diffusion", tracks[-1:]),
    ]
    direct, diffusion, rests = cells(comparison.comparison_table(rows))
    assert direct == ["songs", "direct", "0.00", "6.02", "+6.02", "5.0", "1.25"]
    assert diffusion == ["", "diffusion", "0.00", "20.00", "+20.00", "1.0", "1.00"]
    assert rests == ["rests", "diffusion", "silent", "silent", "", "1.0", "1.00"]


# --- The picture.


def test_picture_shows_each_panel(tmp_path: Path) -> None:
    """Noise is bright and silence dark; an odd number of panels leaves no empty frame."""
    path = tmp_path / "a.png"
    silence = np.zeros((RATE, 2), np.float32)
    save_spectrograms(path, {"noise": noise(RATE, 2), "silence": silence, "again": silence}, RATE)
    image = matplotlib.image.imread(path)[..., :3].mean(axis=-1)
    height, width = image.shape
    assert width >= 1200
    left = image[height // 8 : height // 3, width // 8 : width // 3]
    right = image[height // 8 : height // 3, width * 6 // 10 : width * 8 // 10]
    assert left.mean() > 0.3
    assert right.max() < 0.05
    assert image[-height // 3 : -height // 8, width * 6 // 10 : width * 8 // 10].min() == 1
    assert list(tmp_path.iterdir()) == [path]


def test_picture_of_silence_at_a_low_rate(tmp_path: Path) -> None:
    save_spectrograms(tmp_path / "a.png", {"": np.zeros((100, 1), np.float32)}, 8000)


def test_picture_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(UserError, match=r"a\.png: cannot be written: Is a directory"):
        save_spectrograms(tmp_path / "a.png", {"a": noise(5000, 1)}, RATE)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_picture_without_matplotlib() -> None:
    code = (
        "import sys\n"
        "sys.modules['matplotlib'] = None\n"
        "from diffsep_jax.errors import one_line_errors\n"
        "with one_line_errors():\n"
        "    import diffsep_jax.evaluation.picture"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "pip install 'diffsep-jax[demo]'" in result.stderr


# --- eval.py.


def songs_folder(path: Path) -> Path:
    """Two songs of a second, one with silent vocals, at another rate than the model's."""
    for name, level in (("one", 1), ("two", 0)):
        (path / name).mkdir(parents=True)
        sf.write(path / name / "vocals.wav", np.float32(level) * noise(22_050, 2), 22_050)
        sf.write(path / name / "band.wav", noise(22_050, 2, seed=1), 22_050)
    return path


def evaluate(tmp_path: Path, **options: object) -> None:
    cache = str(tmp_path / "cache")
    eval_script.main(
        eval_script.Evaluate(**{"out": tmp_path / "out", "cache_dir": cache} | options)
    )


def test_eval_from_folder_to_report(
    tmp_path: Path, model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = SamplerSettings(steps=2, eta=0.1)
    data = str(songs_folder(tmp_path / "songs"))
    evaluate(tmp_path, model=str(model_dir), data=data, settings=settings, batch_size=8)
    report = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert report["settings"]["data"] == data
    assert report["settings"]["model"] == str(model_dir)
    assert report["settings"] == report["settings"] | dataclasses.asdict(settings)
    one, two = report["tracks"]
    assert (one["name"], two["name"]) == ("one", "two")
    assert one["audio_seconds"] == pytest.approx(1)
    assert one["sdr_mixture"] == pytest.approx(0, abs=0.2)
    assert np.isfinite(one["sdr"])
    assert two["sdr"] is None
    assert report["summary"]["median_sdr"] == one["sdr"]
    printed = capsys.readouterr().out
    assert scores.PROTOCOL in printed
    assert "silent" in printed


def test_seconds_are_without_compiling(
    tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the time the first song is separated, the program is there."""
    compiled = []

    def separate(self: Separator, mixture: np.ndarray, *args: object, **kw: object) -> Separation:
        compiled.append(self._separate_chunks.num_compilations)
        return original(self, mixture, *args, **kw)

    original = Separator.separate
    monkeypatch.setattr(Separator, "separate", separate)
    settings = SamplerSettings(sampler="direct")
    data = str(songs_folder(tmp_path / "songs"))
    evaluate(tmp_path, model=str(model_dir), data=data, settings=settings, batch_size=8)
    assert compiled == [0, 1, 1]  # the warm-up, and two songs


def test_an_unwritable_folder_is_found_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "out").mkdir()
    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(UserError, match="out: cannot be written: Permission denied"):
        evaluate(tmp_path, model="no-such-model", data=str(tmp_path / "gone"))


def test_eval_errors_are_one_line(
    tmp_path: Path, model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    songs = str(songs_folder(tmp_path / "songs"))
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    model = str(model_dir)
    for options, message in [
        ({"data": songs, "model": "no-such-model"}, "unknown model 'no-such-model'"),
        ({"data": str(tmp_path / "gone"), "model": model}, "not found"),
        ({"data": str(tmp_path / "empty"), "model": model}, "no songs"),
        ({"data": songs, "model": model, "out": tmp_path / "file" / "x"}, "cannot be written"),
        ({"data": songs, "model": model, "out": tmp_path / "file"}, "cannot be written"),
        ({"data": songs, "model": model, "overlap": 0.7}, "overlap 0.7"),
        (
            {"data": songs, "model": model, "settings": SamplerSettings(cutoff_hz=30_000.0)},
            "cutoff_hz 30000.0",
        ),
    ]:
        with pytest.raises(SystemExit) as exit_, one_line_errors():
            evaluate(tmp_path, **options)
        assert exit_.value.code == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert message in error
        assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "cache").exists()  # nothing was rendered or resampled
