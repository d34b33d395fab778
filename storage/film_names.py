"""When two spellings of a title or of a person's name are the same, for storing and for asking alike.

A text is cut into tokens: a Han or kana character is one, a run of other letters or of digits is one. A key is the
tokens of a name written together: "WALL·E", "wall-e" and "Walle" are one name, and so are "教父2" and "教父 II".
Which of the names in a question is meant is not decided here.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MAX_NAME_TOKENS = 24
"""The longest Chinese title of a film that people ask for has about twenty characters."""

_NUMERALS = {"ii": "2", "iii": "3", "iv": "4", "vi": "6", "vii": "7", "viii": "8"}
_BEFORE_NUMBER = {"part", "vol", "volume", "chapter", "episode"}
_ARTICLES = {"the", "a", "an"}
_APOSTROPHES = "'’‘`´"
_PARTS = re.compile(r"\s*[:：]\s*|\s+[-–—]\s+")
_SERIES = re.compile(r"(?<=[一-鿿·]{3})(?:与|和)|\s+and\s+the\s+", re.IGNORECASE)
_NUMBER_AT_END = re.compile(r"(?:\s*(?:part|vol\.?|chapter|episode))?\s*(?:\d{1,2}|[IVX]+)\s*$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Token:
    """`key` is the folded text, empty for a token that does not tell names apart; `start` and `end` where it stood."""

    key: str
    start: int
    end: int


def is_ideograph(character: str) -> bool:
    """Whether the character is a word part by itself: Han or kana."""
    return "぀" <= character <= "ヿ" or "㐀" <= character <= "鿿" or character >= "\U00020000"


def tokens(text: str) -> list[Token]:
    """The tokens of a text, in order."""
    found: list[Token] = []
    word, start = "", 0

    def end_word(end: int) -> None:
        nonlocal word
        if word:
            found.append(Token(word, start, end))
            word = ""

    for at, character in enumerate(text):
        if character in _APOSTROPHES:
            continue
        if character == "&":
            end_word(at)
            found.append(Token("and", at, at + 1))
            continue
        for folded in _folded(character):
            if is_ideograph(folded):
                end_word(at)
                found.append(Token(folded, at, at + 1))
            elif not folded.isalnum():
                end_word(at)
            else:
                start = start if word else at
                word += folded
    end_word(len(text))
    return _with_numerals(found)


def _folded(character: str) -> str:
    if character.isascii():
        return character.lower()
    decomposed = unicodedata.normalize("NFKD", character)
    return "".join(c for c in decomposed if not unicodedata.combining(c)).casefold()


def _with_numerals(found: list[Token]) -> list[Token]:
    plain = [Token(_NUMERALS.get(token.key, token.key), token.start, token.end) for token in found]
    for at, token in enumerate(plain[:-1]):
        if token.key in _BEFORE_NUMBER and plain[at + 1].key.isdecimal():
            plain[at] = Token("", token.start, token.end)
    return plain


def key(text: str) -> str:
    """The one spelling of a name; empty when nothing in it is a letter or a digit."""
    return "".join(token.key for token in tokens(text))


def title_keys(*titles: str) -> list[str]:
    """Keys under which a film with these titles is asked for: "The Matrix" is "Matrix" too."""
    keys: dict[str, None] = {}
    for title in titles:
        parts = [token.key for token in tokens(title)]
        keys["".join(parts)] = None
        if len(parts) > 1 and parts[0] in _ARTICLES:
            keys["".join(parts[1:])] = None
    keys.pop("", None)
    return list(keys)


def part_keys(*titles: str) -> list[str]:
    """Keys of what precedes and follows a colon, and of a title without its number: how a series is asked for."""
    keys: dict[str, None] = {}
    for title in titles:
        parts = _PARTS.split(title)
        for part in [*(parts if len(parts) > 1 else ()), _NUMBER_AT_END.sub("", parts[0]), _SERIES.split(title)[0]]:
            if part != title and len(key(part)) >= (2 if is_ideograph(part[:1] or " ") else 3):
                keys.update(dict.fromkeys(title_keys(part)))
    return [part for part in keys if part not in title_keys(*titles)]


def grams(text_tokens: Sequence[Token]) -> Iterator[tuple[str, int, int]]:
    """Every run of up to MAX_NAME_TOKENS tokens as (key, first, last + 1): all that could be a name in the text."""
    for first in range(len(text_tokens)):
        run = ""
        for last in range(first, min(first + MAX_NAME_TOKENS, len(text_tokens))):
            if text_tokens[last].key:
                run += text_tokens[last].key
                yield run, first, last + 1
