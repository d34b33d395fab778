"""What a conversation is called: after its first exchange it gets a title, and the user's sockets are told.

By rule it is the beginning of the first question. A model, where there is one, is asked for a better one; whatever
goes wrong there, the rule's stands. Nobody waits for it. What the user called it is never changed.
"""

import asyncio
import re
import unicodedata
from contextlib import aclosing
from uuid import UUID

import structlog

from protocol.errors import OperationError
from protocol.unasked import ConversationUpdated
from storage.conversations import ConversationTable
from wsserver.news import News
from wsserver.vendors.llm import LanguageModel, TextDelta, Turn

log = structlog.get_logger(__name__)

WIDTH = 30
"""Columns of a title, where a Chinese character takes two: a line in a phone's list."""

SHORTEST = 8
"""Columns that a first sentence must have to stand for all of the question: a greeting does not."""

WITHIN_S = 5.0
"""For the model: behind the answer, but while its reader still looks at it."""

LOOKED_AT = 1_000
"""Characters of the question, and of the answer, that matter for a title."""

PROMPT = (
    "You name conversations of a cinema app. Answer with the title and nothing else: in the language of the question,"
    " at most 14 Chinese characters or 28 letters, no quotes, no markup, no full stop."
)

_MARKUP = (
    (re.compile(r"!?\[([^\]\n]{0,500})\]\([^)\n]{0,500}\)"), r"\1"),  # links and pictures
    (re.compile(r"<[^<>\n]{1,200}>"), " "),
    (re.compile(r"https?://[!-~]+"), " "),
    (re.compile(r"(?m)^[ \t]*(?:[#>]+|[-+*]|\d{1,3}[.)])[ \t]+"), ""),  # headings, quotes, lists
    (re.compile(r"[`*~]+|(?<!\w)_+|_+(?!\w)"), ""),
)
_SENTENCE_END = re.compile(r"[。！？!?\n]+|[.;；…]+(?=\s|$)")
_LOOSE_END = " \n。.，,、；;：:"
_JOINER = "\u200d"


class Titles:
    """Gives titles. Without a model it is by rule."""

    def __init__(
        self, table: ConversationTable, news: News, model: LanguageModel | None = None, *, within_s: float = WITHIN_S
    ) -> None:
        self._table = table
        self._news = news
        self._model = model
        self._within_s = within_s

    async def give(self, user_id: str, conversation_id: UUID) -> None:
        """Give the conversation a title, if it has none. Storage that is away is tried again after the next answer."""
        try:
            said = await self._table.untitled(user_id=user_id, conversation_id=conversation_id)
            if said is None:
                return
            title = await self._from_model(*said) or title_of(said[0])
            if not title:
                return
            titled = await self._table.entitle(user_id=user_id, conversation_id=conversation_id, title=title)
        except OperationError as error:
            log.warning("conversation stays without a title", reason=error.kind.reason)
            return
        if titled is not None:
            self._news.tell(user_id, ConversationUpdated.of(titled, "titled"))

    async def _from_model(self, question: str, answer: str) -> str:
        if self._model is None:
            return ""
        turns = [
            Turn("system", PROMPT),
            Turn("user", f"{question[:LOOKED_AT]}\n\n---\n\n{answer[:LOOKED_AT]}"),
        ]
        text = ""
        try:
            async with asyncio.timeout(self._within_s), aclosing(self._model.stream(turns)) as events:
                async for event in events:
                    text += event.text if isinstance(event, TextDelta) else ""
        except (TimeoutError, OperationError) as error:
            log.info("title by rule", reason=type(error).__name__)
            return ""
        return title_of(text.strip().strip("\"'“”‘’「」"))


def title_of(text: str) -> str:
    """The beginning of a text as a title of at most WIDTH columns, cut between sentences or words; may be empty.

    Plain text of one line, whatever the text is: no markup, nothing invisible.
    """
    plain = _plain(text[:LOOKED_AT])
    if width(plain) > WIDTH:
        plain = _sentences(plain) or f"{_words(plain)}…"
    return plain.replace("\n", " ")


def width(text: str) -> int:
    """Columns, as a terminal counts them."""
    return sum(map(_columns, text))


def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _plain(text: str) -> str:
    for markup, replacement in _MARKUP:
        text = markup.sub(replacement, text)
    visible = (
        character if character == "\n" or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co") else " "
        for character in text.replace(_JOINER, "\ufffc")
    )
    text = "".join(visible).replace("\ufffc", _JOINER)
    text = re.sub(r"[^\S\n]+", " ", text)
    return re.sub(r" ?\n[ \n]*", "\n", text).strip().rstrip(_LOOSE_END)


def _sentences(text: str) -> str:
    """The first sentences, as many as fit; empty when they are none, or too short to say anything."""
    fitting = ""
    for end in _SENTENCE_END.finditer(text):
        sentences = text[: end.end()].rstrip(_LOOSE_END)
        if width(sentences) > WIDTH:
            break
        fitting = sentences
    return fitting if width(fitting) >= SHORTEST else ""


def _words(text: str) -> str:
    """As much as fits and leaves room for a mark, no Latin word and no compound character cut in two if it can be."""
    columns, end = 0, 0
    while columns + _columns(text[end]) < WIDTH:
        columns += _columns(text[end])
        end += 1
    while end > 1 and (_columns(text[end]) == 0 or text[end - 1] == _JOINER):
        end -= 1
    border = end
    while border > 1 and _is_inside_a_word(text, border):
        border -= 1
    return text[: border if border > 1 else end].rstrip(_LOOSE_END)


def _is_inside_a_word(text: str, at: int) -> bool:
    before, after = text[at - 1], text[at]
    return before.isalnum() and after.isalnum() and _columns(before) == _columns(after) == 1
