"""What conversations are called: by rule or by the model, told to every socket of the user, never over its own word."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from storage.conversations import ConversationTable
from storage.embedded import Services
from storage.news import Telling, UserNews
from storage.postgres import Postgres
from storage.redis import NEWS, Redis
from tests.clients import PATIENCE_S, SocketClient, new_code, socket_client
from tests.node import TestNode, serving
from tests.standins.llm import LLMStandIn, Plan, error, fails, says, stalls
from tests.standins.server import Gate, serve
from wsserver.domains.titles import WIDTH, Titles, title_of, width
from wsserver.news import News
from wsserver.vendors.llm import LanguageModel, ModelServer


@pytest.mark.parametrize(
    ("question", "title"),
    [
        ("推荐三部诺兰的电影", "推荐三部诺兰的电影"),
        ("推荐三部诺兰的电影。", "推荐三部诺兰的电影"),
        ("《黑客帝国》的导演是谁？", "《黑客帝国》的导演是谁？"),
        ("推荐三部诺兰的电影。我喜欢烧脑的，不要太长", "推荐三部诺兰的电影"),
        ("你好！请推荐三部克里斯托弗·诺兰导演的电影", "你好！请推荐三部克里斯托弗·诺…"),
        ("我想看一部关于太空探索和父女亲情的电影有什么推荐", "我想看一部关于太空探索和父女…"),
        ("Which films did Christopher Nolan direct after 2010", "Which films did Christopher…"),
        ("Hi there. Which films did Nolan direct after Inception", "Hi there"),
        ("第一行\n第二行", "第一行 第二行"),
        ("# **推荐** `电影` [看这里](https://example.org/a_b)", "推荐 电影 看这里"),
        ("<b>好看</b>吗 https://example.org/?q=1", "好看 吗"),
        ("- 第一个\n- 第二个", "第一个 第二个"),
        ("snake_case 和 5 * 3", "snake_case 和 5 3"),
        ("a\u202eb\u200bc\x07d", "a b c d"),
        ("a" * 40, "a" * 29 + "…"),
        ("👨‍👩‍👧", "👨‍👩‍👧"),
        ("***", ""),
        ("  ", ""),
    ],
)
def test_a_title_is_the_beginning_of_the_question(question: str, title: str) -> None:
    assert title_of(question) == title
    assert width(title) <= WIDTH


def test_no_compound_character_is_cut_in_two() -> None:
    family = "👨‍👩‍👧"
    for lead in range(40):
        title = title_of("a" * lead + " " + family * 12)
        assert width(title) <= WIDTH
        assert not title.removesuffix("…").endswith("\u200d")


async def ask(client: SocketClient, query: str) -> str:
    reply = await client.call({"type": "chat", "query": query})
    conversation_id: str = reply["data"]["conversation_id"]
    return conversation_id


async def title_in_list(client: SocketClient) -> str | None:
    title: str | None = (await client.call({"type": "conversation_list"}))["data"]["items"][0]["title"]
    return title


async def test_every_socket_of_the_user_is_told_on_every_node(
    node: TestNode, services: Services, data_dir: Path, postgres: Postgres, redis: Redis
) -> None:
    async with (
        serving(services, data_dir) as second,
        socket_client(node.url) as asking,
        socket_client(node.url) as beside,
        socket_client(second.url) as elsewhere,
        socket_client(node.url) as stranger,
    ):
        code = new_code()
        await elsewhere.login(code)
        await beside.login(code)
        await asking.login(code)
        await stranger.login()
        made = (await elsewhere.call({"type": "conversation_create"}))["data"]["id"]
        async with postgres.connection() as connection:
            user_id = await connection.fetchval(
                "SELECT user_id FROM chat.conversations WHERE id = $1::text::uuid", made
            )
        async with asyncio.timeout(PATIENCE_S):
            while len((await UserNews(redis).nodes_of([user_id]))[user_id]) < 2:
                await asyncio.sleep(0.01)
        conversation_id = await ask(asking, "推荐三部诺兰的电影")
        told = await asking.hear()
        assert (told["data"]["conversation_id"], told["data"]["change"]) == (conversation_id, "titled")
        assert told["data"]["title"] == "推荐三部诺兰的电影"
        for other in (beside, elsewhere):
            assert (await other.hear())["data"]["change"] == "answered"
            assert await other.hear() == told
        assert await title_in_list(elsewhere) == "推荐三部诺兰的电影"
        await ask(asking, "第二个问题")
        for other in (beside, elsewhere):
            assert (await other.hear())["data"]["change"] == "answered"
        await stranger.call({"type": "ping"})
        assert [one.news for one in (asking, beside, elsewhere, stranger)] == [[], [], [], []]


async def test_a_title_that_the_user_gave_stays(client: SocketClient) -> None:
    made = (await client.call({"type": "conversation_create", "title": "我的"}))["data"]["id"]
    for query in ("一", "二"):
        await client.call({"type": "chat", "query": query, "conversation_id": made})
    assert await title_in_list(client) == "我的"
    assert client.news == []


async def test_an_incognito_exchange_has_no_title(client: SocketClient) -> None:
    await client.call({"type": "chat", "query": "秘密", "incognito": True})
    assert (await client.call({"type": "conversation_list"}))["data"]["items"] == []
    assert client.news == []


@contextlib.asynccontextmanager
async def titling(services: Services, data_dir: Path, model: LLMStandIn) -> AsyncIterator[SocketClient]:
    """Somebody new, where a model answers and makes titles."""
    async with (
        serve(model.app) as url,
        serving(services, data_dir, llm_base_url=[f"{url}/v1"], llm_model=["m"], llm_titles=True) as node,
        socket_client(node.url) as client,
    ):
        await client.login()
        yield client


async def test_a_model_makes_the_title_where_there_is_one(services: Services, data_dir: Path) -> None:
    model = LLMStandIn()
    model.queue(says("《星际穿越》不错。"), says("“太空", "与亲情”\n"))
    async with titling(services, data_dir, model) as client:
        await ask(client, "我想看一部关于太空探索和父女亲情的电影有什么推荐")
        assert (await client.hear())["data"]["title"] == "太空与亲情"
    asked = model.calls[1].json["messages"][-1]["content"]
    assert "父女亲情" in asked
    assert "《星际穿越》不错。" in asked


@pytest.mark.parametrize("plan", [fails(400, error("invalid")), says("***")], ids=["fails", "markup"])
async def test_without_the_models_title_the_rules_stands(services: Services, data_dir: Path, plan: Plan) -> None:
    model = LLMStandIn()
    model.queue(says("好的。"), plan)
    async with titling(services, data_dir, model) as client:
        await ask(client, "有什么好看的？")
        assert (await client.hear())["data"]["title"] == "有什么好看的？"


async def test_a_model_that_is_slow_leaves_it_to_the_rule(
    client: SocketClient, postgres: Postgres, redis: Redis
) -> None:
    model, gate = LLMStandIn(), Gate()
    model.queue(stalls(gate, "太慢"))
    made = (await client.call({"type": "conversation_create"}))["data"]["id"]
    async with serve(model.app) as url, httpx.AsyncClient(trust_env=False) as http, postgres.connection() as connection:
        table = ConversationTable(postgres, redis)
        user_id = await connection.fetchval("SELECT user_id FROM chat.conversations WHERE id = $1::text::uuid", made)
        await client.call({"type": "chat", "query": "有什么好看的？", "conversation_id": made})
        await client.hear()
        await connection.execute("UPDATE chat.conversations SET title = NULL WHERE id = $1::text::uuid", made)
        slow = LanguageModel([ModelServer(f"{url}/v1", "m", "key")], http)
        await Titles(table, News(UserNews(redis), "n"), slow, within_s=0.2).give(user_id, made)
        assert gate.reached.is_set()
    assert await title_in_list(client) == "有什么好看的？"


async def test_what_is_left_for_a_node_is_bounded_and_goes(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.news.MAX_LEFT", 3)
    news = UserNews(redis)
    for number in range(5):
        await news.leave({"a-node": [Telling("somebody", b'{"n":%d}' % number, f"run-{number}")]})
    assert 0 < await redis.ttl(NEWS("a-node")) <= NEWS.ttl_s
    left = [Telling("somebody", b'{"n":%d}' % number, f"run-{number}") for number in (2, 3, 4)]
    assert await news.take("a-node", 2) == left[:2]
    assert await news.take("a-node", 2) == left[2:]
    assert await news.take("a-node", 2) == []
