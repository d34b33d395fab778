"""The catalogue assistant: answers about films without a language model.

A question is read by rules, what it leaves open is taken from the conversation, and the answer is put together from
the catalogue. It keeps nothing between questions: the conversation comes with each.
"""

import re
from collections.abc import AsyncGenerator, Iterator, Sequence

from protocol.chat import Status
from storage.film_names import is_ideograph
from wsserver.domains.answerer import AnswerEvent, Asking
from wsserver.domains.film_knowledge import FilmKnowledge, Read
from wsserver.vendors.llm import Finished, TextDelta, Turn

MOST_PIECES, LEAST_COLUMNS = 32, 8
"""An answer grows in at most about so many pieces, of at least so many columns (a Chinese character is two wide)."""

_WORD = re.compile(r"[A-Za-z\u00c0-\u024f]+(?:['’-][A-Za-z]+)*|\d+(?:[.,]\d+)*|.", re.DOTALL)
_ENDS = frozenset("，。！？；：、,.!?;:）)》”\n ")


class CatalogueAssistant:
    """Answers from what the catalogue knows, in Chinese or English."""

    name = "catalogue"

    def __init__(self, knowledge: FilmKnowledge) -> None:
        self._knowledge = knowledge

    async def answer(self, turns: Sequence[Turn], asking: Asking) -> AsyncGenerator[AnswerEvent, None]:
        """The answer to the last turn, in pieces, then the films that it recommends; `Finished` is last.

        Raises STORAGE_UNAVAILABLE.
        """
        said = [turn for turn in turns if turn.role != "system"]
        read: Read | None = None
        async for found in self._knowledge.read(said, asking):
            if isinstance(found, Read):
                read = found
            else:
                yield found
        assert read is not None  # noqa: S101 (it is always the last)
        reply = await self._knowledge.reply(read)
        ids = reply.recommendations.tmdb_ids if reply.recommendations else []
        self._knowledge.log(said, asking, read, ids)
        yield Status("retrieval", {"films": len(ids)})
        yield Status("generation", {"answerer": self.name, "history": len(said) - 1})
        for piece in pieces(reply.text):
            yield TextDelta(piece)
        if reply.recommendations:
            yield reply.recommendations
        yield Finished("stop", None, self.name)


def pieces(text: str) -> Iterator[str]:
    """The text in the pieces in which it grows: a few words each, cut after a clause where one ends."""
    width = max(LEAST_COLUMNS, _columns(text) // MOST_PIECES)
    piece, columns = "", 0
    for match in _WORD.finditer(text):
        word = match[0]
        if columns >= width and word not in _ENDS:
            yield piece
            piece, columns = "", 0
        piece += word
        columns += _columns(word)
        if columns >= width * 3 // 4 and word in _ENDS and word != " ":
            yield piece
            piece, columns = "", 0
    if piece:
        yield piece


def _columns(text: str) -> int:
    return sum(2 if is_ideograph(character) else 1 for character in text)
