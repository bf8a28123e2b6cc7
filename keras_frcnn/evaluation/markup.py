"""A page of HTML in one file: text escaped, pictures embedded, no script."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence

from PIL import Image

from keras_frcnn.errors import shown

STYLE = """\
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff;
       max-width: 1200px; margin: 1.5em auto; padding: 0 1em; }
h1, h2, h3 { line-height: 1.2; }
h2 { margin-top: 2em; border-bottom: 1px solid #ccc; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; }
th, td { padding: .25em .8em; text-align: right; border-bottom: 1px solid #e4e4e4; }
th:first-child, td:first-child { text-align: left; }
tr.total { font-weight: bold; border-top: 2px solid #888; }
td { font-variant-numeric: tabular-nums; }
img { max-width: 100%; height: auto; }
.pictures { display: flex; flex-wrap: wrap; gap: 1em; }
figure { margin: 0; max-width: 480px; }
figcaption { font-size: 13px; color: #444; overflow-wrap: anywhere; }
.note { color: #555; }
.key { display: inline-block; width: 1.6em; height: .7em; margin: 0 .4em 0 1em; background: #444; }
"""


def escape(text: str) -> str:
    """The markup of a text from anywhere, control characters made visible by :func:`shown`."""
    return html.escape(shown(text))


def page(title: str, body: Iterable[str]) -> str:
    """The whole document around the markup of its parts."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def element(tag: str, text: str, **attributes: str) -> str:
    """An element that holds text; ``class_`` gives a class."""
    return wrap(tag, escape(text), **attributes)


def note(text: str) -> str:
    """A paragraph that explains what stands above it."""
    return element("p", text, class_="note")


def wrap(tag: str, markup: str, **attributes: str) -> str:
    """An element that holds markup."""
    pairs = (f' {name.rstrip("_")}="{escape(text)}"' for name, text in attributes.items())
    return f"<{tag}{''.join(pairs)}>{markup}</{tag}>"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, last_is_total: bool) -> str:
    """A table of cells of markup, whose last row may sum up the others."""
    lines = [wrap("tr", "".join(element("th", heading) for heading in headings))]
    rows = list(rows)
    for index, row in enumerate(rows):
        kind = {"class_": "total"} if last_is_total and index == len(rows) - 1 else {}
        lines.append(wrap("tr", "".join(wrap("td", cell) for cell in row), **kind))
    return wrap("div", "<table>\n" + "\n".join(lines) + "\n</table>", class_="wide")


def picture(contents: bytes, kind: str, description: str) -> str:
    """An embedded image, of the contents of a ``"png"`` or ``"jpeg"`` file."""
    data = base64.b64encode(contents).decode("ascii")
    return f'<img alt="{escape(description)}" src="data:image/{kind};base64,{data}">'


def jpeg(image: Image.Image) -> bytes:
    """An image as the contents of a small JPEG file."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=80, optimize=True)
    return buffer.getvalue()
