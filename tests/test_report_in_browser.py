"""The report in a real browser: every player loads, and the page is as wide as its window."""

import browser
import pytest
import scored
from test_report import track, written

from diffsep_jax.evaluation.report import write_report
from diffsep_jax.evaluation.summary import summarise

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.CHROMIUM is None, reason="needs the browser chromium"),
]

# Plays the first sound of the first track, switches to its third, and tells where that goes on.
SWITCHING = """(async () => {
  const [card] = document.querySelectorAll('.sounds');
  const players = card.querySelectorAll('audio');
  players[0].muted = players[2].muted = true;
  players[0].currentTime = 0.25;
  await players[0].play();
  card.querySelectorAll('button')[2].click();
  await new Promise(done => { players[2].onplaying = done; });
  const shown = [...card.querySelectorAll('figure')].map(figure => !figure.hidden);
  return [players[0].paused, players[2].paused, players[2].currentTime, shown];
})()"""

PLAYERS = """Promise.all([...document.querySelectorAll('audio')].map(player => new Promise(done => {
  const tell = () => done([player.readyState, player.duration, player.error]);
  player.onloadeddata = player.onerror = tell;
  player.preload = 'auto';
  player.load();
})))"""

# Boxes of text and players that cross one another, of the same parent.
OVERLAPS = """(() => {
  const found = [];
  const parents = 'main, section, article, header, dl, .sounds, .sound';
  for (const parent of document.querySelectorAll(parents)) {
    const boxes = [...parent.children].map(child => [child, child.getBoundingClientRect()]);
    for (const [i, [a, p]] of boxes.entries())
      for (const [b, q] of boxes.slice(i + 1))
        if (Math.min(p.right, q.right) - Math.max(p.left, q.left) > 1 &&
            Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top) > 1)
          found.push(`${a.tagName} ${b.tagName} ${a.textContent.slice(0, 30)}`);
  }
  return found;
})()"""

# What reaches beyond the window and is in no box that scrolls.
OUTSIDE = """width => [...document.querySelectorAll('main *')].filter(element =>
  !element.closest('.scroll, svg') && element.getBoundingClientRect().right > width + 1
).map(element => element.tagName + ' ' + element.textContent.slice(0, 40))"""


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """A browser, and a page with names and messages that do not break."""
    out = tmp_path_factory.mktemp("result")
    names = ["short", "A_name_without_any_place_to_break_" * 4, "Ünï 歌 <b> & 'quotes'"]
    problem = {"kind": "silent estimate", "message": "/a/path/without/a/space" * 10}
    problems = {scored.POINT: [problem]}
    tracks = [
        track(out, name, [float(i), i + 1.0], problems=problems) for i, name in enumerate(names)
    ]
    made = scored.result(tracks, metrics=scored.ALL, command="eval.py " + "--data=" + "x" * 300)
    result = written(out, made)
    path = out / "report.html"
    write_report(path, result, summarise(result))
    with browser.browser() as window:
        yield window, path


def test_every_player_loads(shown):
    window, path = shown
    window.open(path, 1280)
    players = window.run(PLAYERS)
    assert len(players) == 3 * 4
    for ready_state, duration, error in players:
        assert error is None
        assert ready_state >= 2
        assert duration == pytest.approx(0.5, abs=0.06)


def test_switching_keeps_the_position(shown):
    window, path = shown
    window.open(path, 1280)
    first_paused, third_paused, position, visible = window.run(SWITCHING)
    assert (first_paused, third_paused) == (True, False)
    assert 0.25 <= position < 0.45
    assert visible == [False, False, True, False]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 800, 1280])
def test_nothing_overlaps_or_leaves_the_window(shown, width, dark):
    window, path = shown
    window.open(path, width, dark=dark)
    assert window.run("innerWidth") == width  # it would grow with what leaves a phone's window
    assert window.run("document.documentElement.scrollWidth") <= width
    assert window.run(f"({OUTSIDE})({width})") == []
    assert window.run(OVERLAPS) == []
    paper, ink = (
        window.run(f"getComputedStyle(document.body).{name}.match(/\\d+/g).map(Number)")
        for name in ("backgroundColor", "color")
    )
    assert (sum(paper) < sum(ink)) == dark
