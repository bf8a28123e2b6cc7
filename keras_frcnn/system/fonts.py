"""Fonts that show names of any script, and names as a font can show them."""

from __future__ import annotations

import functools
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.ft2font import FT2Font

from keras_frcnn.errors import shown

# Fonts of the common systems that hold the letters of East Asia, or of a script of their own.
_WIDE_FONTS = re.compile(
    "CJK|Source Han|WenQuanYi|YaHei|SimHei|SimSun|PingFang|Heiti|Hiragino|IPA|Takao|Nanum|Malgun"
    "|Fallback|Unifont|Arial Unicode|FreeSans|Noto Sans"
)
_MOST_FONTS = 30


@dataclass(frozen=True, eq=False)
class Font:
    """A font file and the code points that it shows."""

    file: Path
    characters: frozenset[int]

    def readable(self, text: str) -> str:
        """The text with what the font does not have as ``\\u7ea2``; unseen marks are left out."""
        return "".join(
            letter if ord(letter) in self.characters else ascii(letter)[1:-1]
            for letter in shown(text)
            if ord(letter) in self.characters
            or unicodedata.category(letter) not in ("Mn", "Me", "Cf")
        )


@functools.lru_cache(maxsize=1024)
def font_for(text: str) -> Font:
    """The font that shows most of a text: DejaVu Sans, which comes with matplotlib, or a wide one.

    The system's fonts are looked at where DejaVu is not enough.
    """
    letters = frozenset(map(ord, text))
    own = _load(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))
    if letters <= own.characters:
        return own
    return max((own, *_wide_fonts()), key=lambda font: len(letters & font.characters))


def _load(file: Path) -> Font:
    return Font(file, frozenset(FT2Font(str(file)).get_charmap()))


@functools.cache
def _wide_fonts() -> tuple[Font, ...]:
    from matplotlib.font_manager import fontManager

    named = {
        Path(entry.fname): entry.name
        for entry in fontManager.ttflist
        if entry.style == "normal" and entry.weight in (400, "normal", "regular")
    }
    found = []
    for file in sorted(file for file, name in named.items() if _WIDE_FONTS.search(name)):
        try:
            found.append(_load(file))
        except (OSError, RuntimeError):  # it was removed since, or is damaged
            continue
        if len(found) == _MOST_FONTS:
            break
    return tuple(found)
