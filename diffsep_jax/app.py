"""A web page that separates songs, by Gradio: drop one, hear its parts, refine them.

`diffsep app` serves it, docs/colab.ipynb opens it in a notebook, and docs/separate.md in a Space.
"""

import contextlib
import html
import shutil
import tempfile
import time
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffsep_jax.errors import UserError, printable

try:
    import gradio as gr
    from gradio.utils import get_upload_folder
except ModuleNotFoundError:
    raise UserError(
        "the page needs the package gradio, which is not installed; in the checkout,"
        " pip install -e '.[app]'"
    ) from None

from diffsep_jax import pages, plots, runtime
from diffsep_jax.audio.read import AudioFile
from diffsep_jax.audio.tags import NO_TAGS, read_tags
from diffsep_jax.audio.write import FORMATS, OutputFormat, stems_writer
from diffsep_jax.inference.chunks import DEFAULT_BATCH_SIZE
from diffsep_jax.inference.separator import Separator
from diffsep_jax.inference.settings import PRESETS, SamplerOptions, check_effect, complete
from diffsep_jax.inference.track import STEMS, measure
from diffsep_jax.samplers import SETTINGS

LAUNCH: Mapping[str, Any] = {
    "enable_monitoring": False,
    "footer_links": [],
    "mcp_server": False,
    "run_history": False,
    "ssr_mode": False,
}
"""Options of Gradio's `launch`: the page alone is served, and nothing of it is from elsewhere."""

SOUNDS = ("mixture", "vocals", "accompaniment")

_PAPER = "paper"

# How often uploads are looked through, and the age at which they are removed.
_UPLOADS_SECONDS = 600, 7200

# Of spectrograms: their memory must not grow with the sample rate.
_HIGHEST_RATE = 44_100

_ADVANCED = {
    "steps": "Steps",
    "eta": "Eta (paper)",
    "cutoff_hz": "Cutoff, Hz (paper)",
    "schedule": "Schedule",
    "temperature": "Temperature",
    "ensemble": "Ensemble",
    "seed": "Seed",
}

_CSS = """
.sounds figure { margin: 0; }
audio, img { display: block; width: 100%; }
img { max-width: 36rem; margin: 1rem 0; }
a { margin-right: 1rem; }
.switch { display: flex; flex-wrap: wrap; gap: .4rem; margin-bottom: .75rem; }
.switch button { margin: 0; font: inherit; color: inherit; background: none; padding: .4rem .8rem;
  border: 1px solid var(--border-color-primary); border-radius: 2rem; transition: none; }
.switch button[aria-pressed="true"] { color: var(--button-primary-text-color);
  background: var(--button-primary-background-fill); }
.switched figcaption { display: none; }
"""


class Kept(NamedTuple):
    """A session's present result; the folder of the vocals is its own."""

    song: Path
    vocals: Path


def page(model: str = "small", *, max_minutes: float = 10.0) -> gr.Blocks:
    """The page for a model's name or directory; songs of up to `max_minutes` are taken.

    Songs and results lie in Gradio's temporary folder. A session's result is removed with the next
    one, or an hour after its page was closed; uploads after two hours. Raises UserError for a bad
    model.
    """
    runtime.use_cores(DEFAULT_BATCH_SIZE)
    runtime.check_platform()
    runtime.use_compilation_cache()
    separator = Separator.from_pretrained(model)

    def run(
        song: Path | None,
        guess: Path | None,
        before: Kept | None,
        extension: Any,
        base: SamplerOptions,
        fields: Sequence[str],
    ) -> Iterator[dict[Any, Any]]:
        """Changes of the page while a song is separated, from the vocals `guess` if given."""
        temporary = Path(get_upload_folder())
        temporary.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=temporary))
        files = {name: folder / f"{name}.{extension}" for name in SOUNDS}
        with contextlib.ExitStack() as unless_done:
            unless_done.callback(shutil.rmtree, folder)
            try:
                if song is None:
                    raise UserError("no song; expected one: drop or record it")
                sampling = base | _given(fields)
                (folder / "song").mkdir()
                song = Path(shutil.copy(song, folder / "song"))  # uploads are removed sooner
                for line in _separate(
                    separator, song, guess, files, extension, sampling, max_minutes
                ):
                    yield {status: line}
                changes = {
                    status: line,
                    result: _result(files, song.stem),
                    kept: Kept(song, files["vocals"]),
                    refining: gr.Column(visible=True),
                }
            except (OSError, UserError) as error:
                message = str(error).replace(f"{folder}/song/", "").replace(f"{folder}/", "")
                yield {status: f"<strong>{html.escape(printable(message))}</strong>"}
                return
            unless_done.pop_all()
        _remove(before)
        yield changes

    def separate(
        before: Kept | None, extension: str, song: str | None, preset: str, *fields: str
    ) -> Iterator[dict[Any, Any]]:
        base: Any = {"sampler": "ddim"} if preset == _PAPER else {"preset": preset}
        yield from run(Path(song) if song else None, None, before, extension, base, fields)

    def refine(
        before: Kept | None, extension: str, start_sigma: float, *fields: str
    ) -> Iterator[dict[Any, Any]]:
        song, guess = (before.song, before.vocals) if before else (None, None)
        base: SamplerOptions = {"start_sigma": float(start_sigma)}
        yield from run(song, guess, before, extension, base, fields)

    with gr.Blocks(
        title="DiffSep-JAX", analytics_enabled=False, delete_cache=_UPLOADS_SECONDS
    ) as blocks:
        kept = gr.State(delete_callback=_remove)
        gr.Markdown(
            f"# Separate a song\nInto vocals and accompaniment, by the model {Path(model).name}."
            f" Songs of up to {max_minutes:g} minutes."
        )
        with gr.Row():
            with gr.Column(scale=2):
                song = gr.Audio(
                    label="Song", type="filepath", sources=["upload", "microphone"], buttons=[]
                )
                preset = gr.Radio(
                    [*PRESETS, _PAPER],
                    value=separator.default_preset,
                    label="Preset",
                    info="fast: one pass, smooth. best: more steps than balanced. paper: 50 steps.",
                )
                with gr.Accordion("Advanced", open=False):
                    with gr.Row():
                        advanced = [
                            gr.Textbox(label=label, placeholder="the preset's", min_width=140)
                            for label in _ADVANCED.values()
                        ]
                    extension = gr.Dropdown(list(FORMATS), value=FORMATS[0], label="Format")
                with gr.Row():
                    start = gr.Button("Separate", variant="primary", min_width=140)
                    cancel = gr.Button("Cancel", min_width=140)
            with gr.Column(scale=3):
                status = gr.HTML()
                result = gr.HTML(
                    css_template=_CSS,
                    js_on_load=pages.players_script() + "watch('value', () =>"
                    " element.querySelectorAll('.sounds').forEach(switchSounds));",
                )
                with gr.Column(visible=False) as refining:
                    start_sigma = gr.Slider(
                        0.05,
                        0.95,
                        0.3,
                        label="Refine: noise added to these vocals",
                        info="Less keeps more of them. The preset plays no part.",
                    )
                    again = gr.Button("Refine")
        outputs: Any = [status, result, kept, refining]
        running: list[Any] = [
            button.click(
                function,
                [kept, extension, *inputs, *advanced],
                outputs,
                api_name=name,
                concurrency_id="separator",
                concurrency_limit=1,
                show_progress="minimal",
            )
            for button, function, name, inputs in (
                (start, separate, "separate", [song, preset]),
                (again, refine, "refine", [start_sigma]),
            )
        ]
        cancel.click(lambda: "Cancelled", None, status, cancels=running, queue=False)
    return blocks


def _given(fields: Sequence[str]) -> Any:
    """The options whose fields are filled in. UserError for what is no number."""
    given: dict[str, Any] = {}
    for name, text in zip(_ADVANCED, fields, strict=True):
        is_whole = np.issubdtype(SETTINGS[name].dtype, np.integer)
        try:
            if text:
                given[name] = int(text) if is_whole else float(text)
        except ValueError:
            kind = "a whole number" if is_whole else "a number"
            raise UserError(f"{name} is {text!r}; expected {kind}, or nothing") from None
    return given


def _separate(
    separator: Separator,
    song: Path,
    guess: Path | None,
    files: Mapping[str, Path],
    extension: Any,
    sampling: SamplerOptions,
    max_minutes: float,
) -> Iterator[str]:
    """Writes the sounds, all or none, and says how far it is. UserError for bad input."""
    started = time.perf_counter()
    settings = complete(sampling, separator.default_preset, refines=guess is not None)
    check_effect(sampling, settings)
    yield "Reading. The first run compiles for a while."
    source = AudioFile(song)
    track = measure(source)
    if track.seconds > 60 * max_minutes:
        raise UserError(
            f"{song}: its length is {pages.clock(track.seconds)}; expected up to"
            f" {pages.clock(60 * max_minutes)}. Cut it, or separate it by diffsep separate"
        )
    vocals_before = None if guess is None else measure(AudioFile(guess))
    stems, done = separator.blocks(track, refine=vocals_before, settings=settings), 0
    with (
        contextlib.closing(stems),
        stems_writer(
            files,
            OutputFormat(format=extension),
            sample_rate=source.sample_rate,
            num_channels=source.num_channels,
            num_frames=track.num_frames,
            tags=NO_TAGS if extension == "wav" else read_tags(song),
        ) as writer,
    ):
        for vocals, accompaniment in stems:
            sounds = vocals + accompaniment, vocals, accompaniment
            for name, block in zip(SOUNDS, sounds, strict=True):
                writer.write(name, block)
            done += len(vocals)
            times = pages.clock(done / source.sample_rate), pages.clock(track.seconds)
            bar = f"<progress value={done} max={track.num_frames}></progress>"
            yield f"{bar} {times[0]} of {times[1]}"
    notes = [*source.notes]
    if clipped := sum(writer.clipped.values()):
        notes.append(f"{clipped} samples past full scale were clipped; wav keeps them")
    notes.append(f"{pages.clock(track.seconds)} of audio in {time.perf_counter() - started:.1f} s")
    yield html.escape(". ".join(notes))


def _result(files: Mapping[str, Path], title: str) -> str:
    """Players, spectrograms and links to the files."""
    rate = min(_HIGHEST_RATE, AudioFile(files["mixture"]).sample_rate)
    sounds, players, links = {}, "", ""
    for name, path in files.items():
        sounds[name] = np.concatenate(list(AudioFile(path, None, rate).blocks()))
        url = "gradio_api/file=" + urllib.parse.quote(str(path))
        players += (
            f"<figure><figcaption>{name}</figcaption>"
            f'<audio controls aria-label="{name}" src="{url}"></audio></figure>'
        )
        if name in STEMS:
            file = f'download="{html.escape(title)} {path.name}"'
            links += f'<a href="{url}" {file}>{path.name}</a>'
    picture = pages.data_uri("image/png", plots.spectrograms(sounds, rate))
    return (
        f'<div class="sounds">{players}</div><img alt="spectrograms" src="{picture}">'
        f"<p>Download: {links}</p>"
    )


def _remove(kept: Kept | None) -> None:
    if kept is not None:
        shutil.rmtree(kept.vocals.parent, ignore_errors=True)
