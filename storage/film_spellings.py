"""What a film, or somebody in its credits, is found by when a part of it is typed: keys, made when a film is stored.

A key begins where somebody may begin to type, so that "any part of a title" is the beginning of a key, and one index
in order of the keys answers it. The same folding is used for what is asked. What comes first is decided where the keys
are asked for; slips of the pen are in `film_typos.py`; nothing is stored here.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import IntEnum
from functools import lru_cache
from typing import Any, NamedTuple

import opencc

from storage.film_names import is_ideograph, key, title_keys, tokens
from storage.film_typos import pieces

RULES = 1
"""Raise it when other keys are made of the same film: films that have older ones get theirs anew, in the background."""

KEY_LENGTH = 64
"""Characters of a key that count, in what is stored and in what is asked: only subtitles are longer than that."""

MAX_PARTS = 24
"""Places within one title at which typing may begin."""

MAX_TITLES = 6
"""Titles of one film: shown, English, original, and those of the regions that write Chinese."""

MAX_WHOLE = 2 * MAX_TITLES
"""Keys of one kind of one film that may begin alike: each title with its article and without."""

SPELLED_CAST = 12
"""Whose name may be typed in part or in pinyin; all others of the cast are found by their whole name."""

MAX_INITIALS = 12
"""Characters: nobody types the initials of a longer title."""

_simplified = opencc.OpenCC("t2s")


class Kind(IntEnum):
    """What a key is of a title or of a name, best first."""

    WHOLE = 0
    PART = 1
    """From some word or Chinese character on."""
    PINYIN = 2
    """The whole in pinyin, and its initials."""
    PINYIN_PART = 3
    """In pinyin from some syllable on."""
    PIECE = 4
    """What a title still has in common with itself when it is mistyped."""


class Spelling(NamedTuple):
    """One key. `whole` is what it is a PIECE of."""

    kind: Kind
    key: str
    whole: str | None = None


class PersonSpelling(NamedTuple):
    """One key of somebody whom the credits have under `name_key`."""

    kind: Kind
    key: str
    name_key: str


def folded(text: str) -> str:
    """The one spelling of what is typed or stored; empty when nothing in it is a letter or a digit."""
    return key(_in_simplified(text))[:KEY_LENGTH]


def film_spellings(row: Mapping[str, Any]) -> list[Spelling]:
    """All keys of a film, from its row as `film_row` makes it: of its titles and of those in other Chinese regions."""
    titles = dict.fromkeys([row["title"], row["title_en"], row["original_title"], *_chinese_titles(row["raw"])])
    found: dict[Spelling, None] = {}
    for title in list(titles)[:MAX_TITLES]:
        found.update(dict.fromkeys(_title_spellings(title)))
    for part in row["part_keys"]:
        found.update(dict.fromkeys(_piece_spellings(folded(part))))
    return list(found)


def people_spellings(row: Mapping[str, Any], chinese: Mapping[str, Sequence[str]]) -> list[PersonSpelling]:
    """Keys of those who made a film, from its row; `chinese` has Chinese names by the name that the credits show."""
    original = _original_names(row["raw"])
    found: dict[PersonSpelling, None] = {}
    for name in dict.fromkeys([*row["directors"], *row["cast_names"][:SPELLED_CAST]]):
        name_key = key(name)
        for spelled in {name, original.get(name, name), *chinese.get(name, ())}:
            made = _name_spellings(spelled) if name_key else ()
            found.update(dict.fromkeys(PersonSpelling(kind, part, name_key) for kind, part in made if part))
    return list(found)


def _title_spellings(title: str) -> Iterator[Spelling]:
    simple = _in_simplified(title)
    wholes = [whole[:KEY_LENGTH] for whole in title_keys(simple)]
    for whole in wholes:
        yield Spelling(Kind.WHOLE, whole)
        yield from _piece_spellings(whole)
    words = [token.key for token in tokens(simple) if token.key]
    for part in _beginnings(words):
        if part not in wholes:
            yield Spelling(Kind.PART, part)
    syllables = _syllables(title)
    if syllables:
        yield Spelling(Kind.PINYIN, "".join(syllables)[:KEY_LENGTH])
        if len(syllables) <= MAX_INITIALS:
            yield Spelling(Kind.PINYIN, _initials(syllables))
        for part in list(_beginnings(syllables))[1:]:
            yield Spelling(Kind.PINYIN_PART, part)


def _piece_spellings(whole: str) -> Iterator[Spelling]:
    for piece in pieces(whole):
        yield Spelling(Kind.PIECE, piece, whole)


def _name_spellings(name: str) -> Iterator[tuple[Kind, str]]:
    yield Kind.WHOLE, folded(name)
    written = [folded(part) for part in name.replace("·", " ").split()]
    if len(written) == 1 and is_ideograph(name[0]):
        # 张艺谋 is asked for as 艺谋 too; a foreign name in Chinese is cut at its points.
        written = list(folded(name))
    for part in list(_beginnings(written))[1:]:
        yield Kind.PART, part
    parts = [syllables for part in name.split("·") if (syllables := _syllables(part))]
    if parts:
        yield Kind.PINYIN, "".join(syllable for part in parts for syllable in part)[:KEY_LENGTH]
        for syllables in parts[1:]:
            yield Kind.PINYIN_PART, "".join(syllables)[:KEY_LENGTH]
        if len(parts) == 1:
            yield Kind.PINYIN, _initials(parts[0])


def _beginnings(words: Sequence[str]) -> Iterator[str]:
    for first in range(min(len(words), MAX_PARTS)):
        yield "".join(words[first:])[:KEY_LENGTH]


def _in_simplified(text: str) -> str:
    # Character by character: by whole words the same character would change in a title and not in a part of it.
    return text if text.isascii() else "".join(map(_character, text))


@lru_cache(maxsize=1 << 15)
def _character(character: str) -> str:
    return str(_simplified.convert(character))


def _syllables(text: str) -> list[str]:
    """A text in pinyin, a syllable or a word of other letters each; empty for a text that has no Chinese."""
    if not any("㐀" <= character <= "鿿" for character in text):
        return []
    # Its dictionary takes 55 MiB and 0.3 s: only who stores films has it.
    from pypinyin import lazy_pinyin  # noqa: PLC0415

    return [word.key for syllable in lazy_pinyin(_simplified.convert(text)) for word in tokens(syllable) if word.key]


def _initials(syllables: Sequence[str]) -> str:
    return "".join(syllable if syllable.isdecimal() else syllable[0] for syllable in syllables)


def _chinese_titles(raw: Mapping[str, Any]) -> Iterator[str]:
    for entry in (raw.get("translations") or {}).get("translations") or ():
        title = (entry.get("data") or {}).get("title") if entry.get("iso_639_1") == "zh" else None
        if isinstance(title, str) and title.strip():
            yield title.strip()


def _original_names(raw: Mapping[str, Any]) -> dict[str, str]:
    credited = raw.get("credits") or {}
    people: Iterable[Mapping[str, Any]] = [*(credited.get("cast") or ()), *(credited.get("crew") or ())]
    return {
        person["name"].strip(): person["original_name"].strip()
        for person in people
        if isinstance(person.get("name"), str) and isinstance(person.get("original_name"), str)
    }
