"""`diffsep models`: what comes with the package."""

import dataclasses
import importlib.resources


@dataclasses.dataclass(frozen=True)
class Models:
    """List the models that come with the package."""


def list_models(_: Models) -> None:
    """Prints a line for each model: its name, and the first line of its card's text."""
    from diffsep_jax.inference.pretrained import known_models

    for name in known_models():
        card = importlib.resources.files("diffsep_jax") / "pretrained" / name / "README.md"
        print(f"{name:12} {_first_sentence(card.read_text())}" if card.is_file() else name)


def _first_sentence(card: str) -> str:
    """The first line of text of a model card, past its front matter and headings."""
    if card.startswith("---\n"):
        card = card.split("\n---\n", 1)[-1]
    lines = (line.strip() for line in card.splitlines())
    return next((line for line in lines if line and not line.startswith("#")), "")
