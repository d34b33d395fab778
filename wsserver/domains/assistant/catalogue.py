"""The catalogue assistant: answers about films without a language model.

A question is read by rules, what it leaves open is taken from the conversation, and the answer is put together from
the catalogue. It keeps nothing between questions: the conversation comes with each.
"""

import re
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime

from protocol.chat import Recommendations
from storage.film_names import is_ideograph
from storage.movies import Movies
from wsserver.domains.assistant.answers import FilmAnswers
from wsserver.domains.assistant.conversation import FilmConversation
from wsserver.domains.assistant.people import PeopleNames
from wsserver.vendors.llm import Finished, TextDelta, Turn

MOST_PIECES, LEAST_COLUMNS = 32, 8
"""An answer grows in at most about so many pieces, of at least so many columns (a Chinese character is two wide)."""

_WORD = re.compile(r"[A-Za-z\u00c0-\u024f]+(?:['’-][A-Za-z]+)*|\d+(?:[.,]\d+)*|.", re.DOTALL)
_ENDS = frozenset("，。！？；：、,.!?;:）)》”\n ")


class CatalogueAssistant:
    """Answers from the film catalogue, in Chinese or English. `chinese_names` are people's, the one to show first."""

    name = "catalogue"

    def __init__(
        self,
        movies: Movies,
        chinese_names: Mapping[str, Sequence[str]],
        *,
        today: Callable[[], date] = lambda: datetime.now(UTC).date(),
    ) -> None:
        people = PeopleNames(chinese_names)
        self._conversation = FilmConversation(movies, people)
        self._answers = FilmAnswers(movies, people)
        self._today = today

    async def answer(
        self, turns: Sequence[Turn], *, kb_prefix: str | None = None
    ) -> AsyncGenerator[TextDelta | Recommendations | Finished, None]:
        """The answer to the last turn, in pieces, then the films that it recommends; `Finished` is last.

        `kb_prefix` says nothing here: the catalogue is all that is known. Raises STORAGE_UNAVAILABLE.
        """
        today = self._today()
        asked = await self._conversation.understand([turn for turn in turns if turn.role != "system"], today)
        reply = await self._answers.reply(asked, today)
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
