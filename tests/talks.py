"""Talking to the catalogue assistant, as a chat does."""

from dataclasses import dataclass
from datetime import date

from protocol.chat import Recommendations, Status
from storage.movies import Movies
from wsserver.domains.answerer import Asking
from wsserver.domains.assistant.catalogue import CatalogueAssistant
from wsserver.vendors.llm import Finished, TextDelta, Turn

TODAY = date(2026, 11, 1)


@dataclass(frozen=True)
class Answer:
    """What came as the answer to one question."""

    text: str
    deltas: int
    recommended: Recommendations | None

    @property
    def ids(self) -> list[int]:
        return self.recommended.tmdb_ids if self.recommended else []


class Talk:
    """A conversation with the assistant."""

    def __init__(self, assistant: CatalogueAssistant, movies: Movies) -> None:
        self._assistant = assistant
        self.movies = movies
        self.turns: list[Turn] = []

    async def ask(self, question: str) -> Answer:
        self.turns.append(Turn("user", question))
        events = [event async for event in self._assistant.answer(self.turns, Asking())]
        events = [event for event in events if not isinstance(event, Status)]
        assert events.pop() == Finished("stop", None, "catalogue")
        recommended = events.pop() if isinstance(events[-1], Recommendations) else None
        texts = [event.text for event in events if isinstance(event, TextDelta)]
        assert len(texts) == len(events)
        assert all(texts)
        assert texts
        answer = Answer("".join(texts), len(texts), recommended if isinstance(recommended, Recommendations) else None)
        self.turns.append(Turn("assistant", answer.text))
        return answer
