"""How much of a conversation a prompt holds: whole messages, all that fit, from Redis as from PostgreSQL."""

import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic_core import from_json

from storage.branches import Revision
from storage.chat import Conversations, PastMessage, Place
from storage.conversations import ConversationTable
from storage.ownership import RunTable
from storage.postgres import Postgres
from storage.redis import HISTORY, Redis
from tests.clients import socket_client
from tests.conftest import ModelNode
from wsserver.domains.model_answers import newest
from wsserver.vendors.llm import Turn

NODE = "prompt-history"


@dataclass(slots=True)
class Said:
    """A conversation that is had in storage alone, as `Answering` has it: history, question, answer, hot copy."""

    postgres: Postgres
    redis: Redis
    characters: int
    user_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    conversation_id: uuid.UUID = field(default_factory=uuid.uuid4)
    answers: list[uuid.UUID] = field(default_factory=list)

    @property
    def conversations(self) -> Conversations:
        return Conversations(self.postgres, self.redis, history_characters=self.characters)

    async def ask(self, question: str, revision: Revision | None = None) -> tuple[str, Place]:
        request_id = uuid.uuid4().hex
        await RunTable(self.postgres).beat(NODE)  # or a server would take the run over
        row, _ = await RunTable(self.postgres).begin(
            request_id=request_id,
            user_id=self.user_id,
            session_id="s",
            client_id=None,
            conversation_id=self.conversation_id,
            create_conversation=True,
            request={},
            question=question,
            node=NODE,
            enqueue=False,
            revision=revision,
        )
        assert row.place is not None
        return request_id, row.place

    async def answer(self, request_id: str, question: PastMessage, text: str, *, hot: bool = True) -> None:
        stored = await RunTable(self.postgres).finish(
            request_id=request_id,
            epoch=1,
            state="done",
            message_id=uuid.uuid4(),
            content=text,
            finish_reason="stop",
            usage=None,
            recommendations=None,
        )
        assert stored is not None
        self.answers.append(stored.id)
        if hot:
            answer = PastMessage(stored.place, "assistant", text)
            await self.conversations.remember(self.conversation_id, [question, answer])

    async def exchange(self, question: str, text: str, *, hot: bool = True) -> None:
        request_id, place = await self.ask(question)
        await self.answer(request_id, PastMessage(place, "user", question), text, hot=hot)

    async def entries(self) -> list[Any]:
        return [from_json(entry) for entry in await self.redis.lrange(HISTORY(str(self.conversation_id)), 0, -1)]


def prompt(past: Sequence[PastMessage], question: str, characters: int) -> list[str]:
    turns = [*(Turn(message.role, message.content) for message in past), Turn("user", question)]
    return [turn.content for turn in newest(turns, characters)]


@pytest.mark.parametrize("hot", [True, False], ids=["redis", "postgres"])
@pytest.mark.parametrize(
    ("said", "question", "kept"),
    [
        (("a" * 10, "b" * 10, "c" * 10, "d" * 10), "q" * 10, "abcdq"),
        # One character too many: the oldest goes, and with it the answer that would have no question.
        (("a" * 11, "b" * 10, "c" * 10, "d" * 10), "q" * 10, "cdq"),
        (("a" * 10, "b" * 10, "c" * 10, "d" * 10), "q" * 31, "q"),
        (("a" * 10, "b" * 10, "c" * 10, "d" * 10), "q" * 30, "cdq"),
        # Nothing is cut, and nothing older comes in its stead.
        (("a", "b" * 100, "c" * 10, "d" * 10), "q" * 10, "cdq"),
        (("a", "b", "c", "d" * 51), "q", "q"),
        (("a", "b", "c", "d"), "q" * 50, "q"),
        # The question is given whole, whatever the budget is.
        (("a", "b", "c", "d"), "q" * 500, "q"),
        # A character is one, however many bytes it takes.
        (("影" * 10, "片" * 10, "🎬" * 10, "d" * 10), "q" * 10, "影片🎬dq"),
    ],
)
async def test_the_newest_messages_that_fit_are_given_whole(
    postgres: Postgres, redis: Redis, said: Sequence[str], question: str, kept: str, *, hot: bool
) -> None:
    talk = Said(postgres, redis, 50)
    for at in (0, 2):
        await talk.exchange(said[at], said[at + 1], hot=hot)
    _, place = await talk.ask(question)
    for _ in range(2):  # the first finds Redis as it was left, the second as the first left it
        given = prompt(await talk.conversations.before(talk.conversation_id, place), question, 50)
        assert "".join(text[0] for text in given) == kept
        assert set(given) <= {*said, question}


async def test_many_short_messages_are_far_below_the_budget(
    model_node: ModelNode, postgres: Postgres, redis: Redis
) -> None:
    texts = [f"第{number}句" for number in range(300)]
    async with socket_client(model_node.url) as client:
        await client.login(model_node.wechat.issue_code())
        data = (await client.call({"type": "chat", "query": texts[0]}))["data"]
        ids = [uuid.UUID(data["id"]), *(uuid.uuid4() for _ in texts[1:])]
        rows = [
            (
                ids[at],
                uuid.UUID(data["conversation_id"]),
                "assistant" if at % 2 == 0 else "user",
                texts[at],
                ids[at - 1],
            )
            for at in range(1, len(texts))
        ]
        async with postgres.connection() as connection:
            await connection.executemany(
                """
                INSERT INTO chat.messages (id, conversation_id, role, content, parent_id, request_id, finish_reason)
                VALUES ($1, $2, $3, $4, $5, gen_random_uuid()::text, CASE $3 WHEN 'assistant' THEN 'stop' END)
                """,
                rows,
            )
        for number in range(2):
            await client.call({"type": "chat", "query": f"现在{number}"})
            told = [message["content"] for message in model_node.model.calls[-1].json["messages"][1:]]
            assert (told[0], told[2:301]) == (texts[0], texts[1:])
            assert len(told) == 302 + 2 * number
        assert await redis.llen(HISTORY(data["conversation_id"])) == 305


@pytest.mark.parametrize("hot", [True, False], ids=["redis", "postgres"])
async def test_there_is_an_end_to_how_many_messages_are_given(
    postgres: Postgres, redis: Redis, monkeypatch: pytest.MonkeyPatch, *, hot: bool
) -> None:
    monkeypatch.setattr("storage.chat.HISTORY_MESSAGES", 6)
    talk = Said(postgres, redis, 1_000)
    for number in range(5):
        await talk.exchange(f"{number}", f"a{number}", hot=hot)
    _, place = await talk.ask("q")
    for _ in range(2):
        past = await talk.conversations.before(talk.conversation_id, place)
        assert [message.content for message in past] == ["2", "a2", "3", "a3", "4", "a4"]
    assert len(await talk.entries()) == 6


async def test_the_hot_copy_holds_no_message_that_no_prompt_needs(postgres: Postgres, redis: Redis) -> None:
    talk = Said(postgres, redis, 100)
    for number in range(12):
        await talk.exchange(
            "问" * 5, "答" * (number * 7 if number < 7 else 45)
        )  # at last two exchanges are just enough
        sizes = [len(entry[-1]) for entry in await talk.entries()]
        assert sum(sizes[1:]) < 100
        assert number < 6 or sum(sizes) >= 100


async def test_the_hot_copy_says_what_postgres_says_whatever_was_revised_and_chosen(
    postgres: Postgres, redis: Redis
) -> None:
    pick = random.Random(1)
    talk = Said(postgres, redis, 200)
    table = ConversationTable(postgres, redis)
    await talk.exchange("first", "answer")
    from_redis = 0
    for number in range(80):
        question, revision = f"{number} " + "q" * pick.randint(0, 60), None
        kind = pick.choice(
            ("go on", "go on", "go on", "answer again", "ask otherwise", "choose", "lose one", "lose all")
        )
        if kind in ("answer again", "ask otherwise"):
            revision = Revision(pick.choice(talk.answers[-6:]), asks_otherwise=kind == "ask otherwise")
        elif kind == "choose":
            await table.choose(user_id=talk.user_id, message_id=pick.choice(talk.answers))
        elif kind == "lose one":
            await redis.lpop(HISTORY(str(talk.conversation_id)))
        request_id, place = await talk.ask(question, revision)
        key = HISTORY(str(talk.conversation_id))
        found = await redis.lrange(key, 0, -1)
        given = await talk.conversations.before(talk.conversation_id, place)
        left = await redis.lrange(key, 0, -1)
        from_redis += left == found
        await redis.delete(key)
        assert given == await talk.conversations.before(talk.conversation_id, place), (number, kind)
        await redis.delete(key)
        if kind != "lose all":
            await redis.rpush(key, *left)
        if kind == "answer again":
            async with postgres.connection() as connection:
                question = await connection.fetchval(
                    "SELECT content FROM chat.messages WHERE conversation_id = $1 AND position = $2",
                    talk.conversation_id,
                    place.position,
                )
        await talk.answer(request_id, PastMessage(place, "user", question), "a" * pick.randint(1, 60))
    assert from_redis > 20
