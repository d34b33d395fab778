"""What a question about films asks for, told by a language model: one call, and its answer is only believed if valid.

It is asked when the rules were left with words that they do not know. Whatever goes wrong, the rules' reading stands.
"""

import asyncio
import json
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Annotated

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from protocol.errors import OperationError
from wsserver.domains.assistant.questions import Kind, Question
from wsserver.domains.assistant.words import GENRE_NAMES
from wsserver.vendors.llm import LanguageModel, TextDelta, Turn

log = structlog.get_logger(__name__)

WITHIN_S = 2.0
"""Somebody waits for the first word of an answer."""

MAX_ANSWER_CHARACTERS = 2_000
"""A valid one has some two hundred."""

QUESTION_CHARACTERS = 1_000

PROMPT = (
    "You read questions to a cinema app and answer with one JSON object and nothing else: "
    '{"titles": [film titles that are named, as written], "people": [names of people, as written], '
    '"genres": [TMDB genre ids], "year_from": int or null, "year_to": int or null}. '
    "Use empty lists for what is not there. Never add a title or a person that the question does not name. Genre ids: "
    + ", ".join(f"{genre_id} {names[1]}" for genre_id, names in GENRE_NAMES.items())
)

Name = Annotated[str, Field(min_length=1, max_length=80)]
Year = Annotated[int, Field(ge=1870, le=2100)]


class Extracted(BaseModel):
    """What the model read in the question."""

    model_config = ConfigDict(hide_input_in_errors=True)

    titles: Annotated[list[Name], Field(max_length=5)] = []
    people: Annotated[list[Name], Field(max_length=5)] = []
    genres: Annotated[list[int], Field(max_length=5)] = []
    year_from: Year | None = None
    year_to: Year | None = None

    def applied_to(self, question: Question) -> Question:
        """The question with the conditions that the rules did not see, and the names that nobody knows yet."""
        genres = tuple(genre_id for genre_id in self.genres if genre_id in GENRE_NAMES)
        wanted = replace(
            question.wanted,
            genres=question.wanted.genres or genres,
            year_from=question.wanted.year_from if question.wanted.year_from is not None else self.year_from,
            year_to=question.wanted.year_to if question.wanted.year_to is not None else self.year_to,
        )
        found = {film_name.asked for film_name in question.films}
        unknown = tuple(title for title in self.titles if title not in found) if not question.films else ()
        if not unknown and not question.people:
            unknown = tuple(self.people)
        has_condition = wanted != question.wanted
        kind = Kind.LIST if question.kind is Kind.UNKNOWN and has_condition and not unknown else question.kind
        return replace(
            question,
            kind=kind,
            wanted=wanted,
            unknown_titles=question.unknown_titles or unknown,
            unknown="" if unknown or has_condition or question.films or question.people else question.unknown,
        )


@dataclass(frozen=True, slots=True)
class FilmExtraction:
    """Asks the model. `model` should give short answers and be given up soon."""

    model: LanguageModel
    within_s: float = WITHIN_S

    async def extract(self, turns: Sequence[Turn]) -> Extracted | None:
        """What the last turn asks for; None when the model had no valid answer in time."""
        question = turns[-1].content[:QUESTION_CHARACTERS]
        text = ""
        try:
            async with asyncio.timeout(self.within_s):
                async with aclosing(self.model.stream([Turn("system", PROMPT), Turn("user", question)])) as events:
                    async for event in events:
                        text += event.text if isinstance(event, TextDelta) else ""
                        if len(text) > MAX_ANSWER_CHARACTERS:
                            break
            extracted = Extracted.model_validate(json.loads(text[text.index("{") : text.rindex("}") + 1]))
        except (TimeoutError, OperationError, ValueError, ValidationError) as error:
            log.info("extraction by rules only", reason=type(error).__name__)
            return None
        # What it made up is not in the question.
        return extracted.model_copy(
            update={
                "titles": [title for title in extracted.titles if title.lower() in question.lower()],
                "people": [name for name in extracted.people if name.lower() in question.lower()],
            }
        )
