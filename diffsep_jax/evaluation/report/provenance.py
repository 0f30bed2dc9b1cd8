"""How the numbers were made: the command, settings, versions and hardware."""

from collections.abc import Mapping
from typing import Any

from diffsep_jax.evaluation.report.values import MANY
from diffsep_jax.evaluation.results import Result
from diffsep_jax.evaluation.sweep import number_label
from diffsep_jax.pages.document import escape


def section(result: Result) -> str:
    """All that a result says of itself."""
    points = {condition.name: condition.settings for condition in result.conditions}
    settings = {k: v for k, v in result.settings.items() if v != points}
    return (
        '<section id="provenance">\n<h2>How it was made</h2>\n'
        f'<pre class="scroll" tabindex="0"><code>{escape(result.command)}</code></pre>\n'
        '<div class="facts">\n'
        f"{_facts('Settings', settings | {'fingerprint': result.fingerprint})}"
        f"{_facts('Versions', result.versions)}{_facts('Hardware', result.hardware)}</div>\n"
        f"{_points(points)}</section>\n"
    )


def _facts(heading: str, facts: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<dt>{escape(name.replace('_', ' '))}</dt><dd>{escape(_text(value))}</dd>\n"
        for name, value in facts.items()
    )
    return f"<div>\n<h3>{heading}</h3>\n<dl>\n{rows}</dl>\n</div>\n"


def _points(points: Mapping[str, Mapping[str, Any]]) -> str:
    """A row of settings for each condition that has some."""
    names = list(dict.fromkeys(name for settings in points.values() for name in settings))
    if not names:
        return ""
    heads = "".join(f'<th scope="col">{escape(name.replace("_", " "))}</th>' for name in names)
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(f"<td>{escape(_text(settings.get(each)))}</td>" for each in names)
        + "</tr>\n"
        for name, settings in points.items()
    )
    table = (
        '<div class="scroll" tabindex="0" role="region" aria-label="settings of the sampler">\n'
        f'<table>\n<thead><tr><th scope="col">condition</th>{heads}</tr></thead>\n'
        f"<tbody>\n{rows}</tbody>\n</table>\n</div>\n"
    )
    if len(points) > MANY:
        table = f"<details><summary>All {len(points)}</summary>\n{table}</details>\n"
    return f"<h3>Settings of the sampler</h3>\n{table}"


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    if isinstance(value, dict):
        return "; ".join(f"{name}: {_text(each)}" for name, each in value.items())
    if isinstance(value, float):
        return number_label(value)
    return "none" if value is None else str(value)
