"""The page of `diffsep app` in a real browser, with a model that halves its input."""

import importlib.util
import json

import browser
import pytest
from app_server import wait_until
from halving import noise, song

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not importlib.util.find_spec("gradio"), reason="needs the extra app"),
    pytest.mark.skipif(browser.CHROMIUM is None, reason="needs the browser chromium"),
]

# Plays the mixture, switches to the vocals, and tells where they go on.
SWITCHING = """(async () => {
  const players = document.querySelectorAll('.sounds audio');
  players[0].muted = players[1].muted = true;
  players[0].currentTime = 0.25;
  await players[0].play();
  document.querySelectorAll('.switch button')[1].click();
  await new Promise(done => { players[1].onplaying = done; });
  return [players[0].paused, players[1].paused, players[1].currentTime];
})()"""

BUTTONS = "[...document.querySelectorAll('button')]"
LINKS = "[...document.querySelectorAll('a[download]')].map(a => [a.download, a.href])"


@pytest.fixture(scope="module")
def window():
    with browser.browser() as window:
        yield window


def press(window, name):
    window.run(f"{BUTTONS}.find(each => each.textContent.trim() == {json.dumps(name)}).click()")


def upload(window, path):
    window.wait("!!document.querySelector('input[type=file]')")
    window.choose("input[type=file]", path)
    window.wait("document.querySelector('.waveform-container, audio') !== null")


@pytest.mark.parametrize("width", [390, 1280])
def test_a_song_is_separated_heard_and_refined(served, window, tmp_path, width):
    window.open(served[0], width)
    upload(window, song(tmp_path / "a.wav", noise(60_000, 2)))
    window.run(f"{BUTTONS}.find(each => each.textContent.includes('Advanced')).click()")
    window.wait("document.querySelector('[placeholder]') !== null")
    press(window, "Separate")
    window.wait("document.querySelectorAll('.switch button').length == 3")
    window.wait("[...document.querySelectorAll('.sounds audio')].every(p => p.readyState > 1)")
    first_paused, second_paused, position = window.run(SWITCHING)
    assert (first_paused, second_paused) == (True, False)
    assert 0.25 <= position < 0.6
    links = window.run(LINKS)
    assert [name for name, _ in links] == ["a vocals.wav", "a accompaniment.wav"]
    press(window, "Refine")
    window.wait(f"document.querySelector('a[download]').href != {json.dumps(links[0][1])}")
    window.wait("document.querySelectorAll('.switch button').length == 3")
    assert (served[1] / "settings").read_text().endswith("True")
    assert window.run("document.documentElement.scrollWidth") <= width
    entries = "performance.getEntriesByType('resource')"
    origins = window.run(f"[...new Set({entries}.map(each => new URL(each.name).origin))]")
    assert origins == [served[0].rstrip("/")]


def test_a_bad_file_is_a_line_and_cancel_ends_a_run(served, window, tmp_path):
    _, folder = served
    window.open(served[0], 1280)
    bad = tmp_path / "bad.wav"
    bad.write_text("no audio")
    upload(window, bad)
    press(window, "Separate")
    window.wait("document.body.textContent.includes('bad.wav: not an audio file')")
    (folder / "settings").unlink(missing_ok=True)
    (folder / "wait").touch()
    try:
        window.open(served[0], 1280)
        upload(window, song(tmp_path / "a.wav"))
        press(window, "Separate")
        wait_until((folder / "settings").exists)
        press(window, "Cancel")
        window.wait("document.body.textContent.includes('Cancelled')")
    finally:
        (folder / "wait").unlink()
    wait_until(lambda: not list(folder.glob("temporary/*/song/a.wav")))
    window.wait("!document.querySelector('.switch button')")
