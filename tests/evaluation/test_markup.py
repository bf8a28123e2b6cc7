"""Pieces of a page: escaping, attributes, embedded pictures."""

import base64
import io
from html.parser import HTMLParser

from PIL import Image

from keras_frcnn.evaluation import markup


def test_text_and_attributes_are_escaped():
    assert markup.element("p", "a < b & c") == "<p>a &lt; b &amp; c</p>"
    assert markup.element("p", "", class_='x"y') == '<p class="x&quot;y"></p>'
    assert markup.wrap("td", "<b>1</b>", id="a") == '<td id="a"><b>1</b></td>'


def test_names_turn_no_text_around_and_are_always_written():
    text = markup.element("p", "a\u202eb\x1b\ud800\n", title="\x9b")
    assert text.isprintable() and text.encode()
    assert "\u202e" not in markup.page("\u202e", [markup.picture(b"", "png", "\u202e")])


def test_table():
    text = markup.table(("<a>", "b"), [["1", "<i>2</i>"], ["3", "4"]], last_is_total=True)
    assert "<th>&lt;a&gt;</th><th>b</th>" in text
    assert "<tr><td>1</td><td><i>2</i></td></tr>" in text
    assert '<tr class="total"><td>3</td><td>4</td></tr>' in text
    assert "total" not in markup.table(("a",), [["1"]], last_is_total=False)


def test_pictures_are_embedded():
    contents = markup.jpeg(Image.new("RGBA", (20, 10), "red"))
    with Image.open(io.BytesIO(contents)) as image:
        assert (image.format, image.size) == ("JPEG", (20, 10))
    text = markup.picture(contents, "jpeg", 'a "b"')
    assert text.startswith('<img alt="a &quot;b&quot;" src="data:image/jpeg;base64,')
    assert base64.b64decode(text.split("base64,")[1][:-2]) == contents


def test_a_page_is_well_formed():
    opened = []

    class Checker(HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag not in ("meta", "img"):
                opened.append(tag)

        def handle_endtag(self, tag):
            assert opened.pop() == tag

    text = markup.page("a <title>", [markup.element("p", "body")])
    Checker().feed(text)
    assert opened == []
    assert "<title>a &lt;title&gt;</title>" in text
