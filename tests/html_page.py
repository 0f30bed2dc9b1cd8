"""A page taken apart: its elements, its text, and what its data URIs hold."""

import base64
import html.parser
import io

_VOID = {"meta", "img"}


class Page(html.parser.HTMLParser):
    """Elements by tag, all text, and whether every element is closed."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.text = {}, [], ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.setdefault(tag, []).append(dict(attrs))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.setdefault(tag, []).append(dict(attrs))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def decode(uri):
    """The bytes of a data URI, as a file."""
    kind, data = uri.split(",", 1)
    assert kind in ("data:audio/flac;base64", "data:audio/mpeg;base64", "data:image/png;base64")
    return io.BytesIO(base64.b64decode(data, validate=True))
