"""The example client: typed, once, whole, and back by itself; with real nodes and with one that does as it is told."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from examples import client as example
from examples.client import Answer, Client, ClosedError, LostError
from protocol import accounts, chat, conversations, errors, movies
from protocol.chat import CHAT_FRAMES, ChatFrame, Chunk, Complete, Restart, Retract, SendChat
from protocol.envelope import encode_error, encode_frame, encode_reply
from protocol.errors import CLOSE_CODES, CloseCode, ErrorKind, OperationError
from protocol.operation import AnyOperation
from protocol.operations import OPERATIONS
from protocol.reading import WrongReplyError, read_frame, read_reply
from protocol.unasked import ChangedConversation
from storage.embedded import Services
from storage.redis import SESSION, Redis
from tests.clients import PATIENCE_S, Frame, new_code, socket_client
from tests.faults.proxy import How, Proxy
from tests.node import TestNode
from tests.pairs import Pair, two_nodes
from tests.scripted_node import CONNECTED, SERVER, Guest, ScriptedNode, answer, scripted_node
from tests.scripted_node import SESSION as SCRIPTED_SESSION
from tests.standins.llm import gated, says

FIND = movies.FindMovies(type="movies_bulk", ids=[603])
NO_FILMS = {"items": [], "missing_ids": [603]}
CREATE = conversations.CreateConversation(type="conversation_create")


class Hurried(Client):
    """One that comes back at once, and remembers how long it would have waited."""

    def __init__(self, *urls: str, code: str | None = None, **options: Any) -> None:
        self.codes = 0
        self.pauses: list[float] = []

        async def get_code() -> str:
            self.codes += 1
            return code or ""

        ws_urls = [url.replace("http://", "ws://") + "/wechat/ws" for url in urls]
        super().__init__(ws_urls, get_code=get_code if code else None, **options)

    def _pause_s(self, failures: int) -> float:
        self.pauses.append(super()._pause_s(failures))
        return 0.01


@pytest.fixture(scope="module")
async def _pair(services: Services, data_dir: Path) -> AsyncIterator[Pair]:
    async with two_nodes(services, data_dir) as started:
        yield started


@pytest.fixture
def pair(_pair: Pair) -> Pair:
    _pair.model.reset()
    return _pair


@pytest.fixture
async def scripted() -> AsyncIterator[ScriptedNode]:
    async with scripted_node() as node:
        yield node


async def told(node: ScriptedNode, type_: str) -> tuple[int, Frame]:
    """The next message of this type, and the number of the connection that it came over."""
    async with asyncio.timeout(PATIENCE_S):
        while (came := await node.messages.get())[1]["type"] != type_:
            pass
    return came


async def text_of(client: Client, query: str = "问题") -> str:
    async with asyncio.timeout(PATIENCE_S):
        return (await client.ask(query).whole()).answer


async def stream(guest: Guest, message: Frame, *frames: ChatFrame) -> None:
    """Accept a question and say frames of its answer."""
    await guest.reply(message, {"request_id": "r", "conversation_id": None}, "chat_processing")
    for seq, frame in enumerate(frames, 1):
        await guest.say(encode_frame("r", seq, frame, message["id"]))


async def until_over(client: Client) -> None:
    """Raises why the client is over."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            await client.call(movies.MOVIES_BULK, FIND)


async def watch(asked: Answer, shown: list[tuple[ChatFrame, str]]) -> None:
    """Note each frame and what is shown with it."""
    async with asyncio.timeout(PATIENCE_S):
        async for frame in asked:
            shown.append((frame, asked.text))


# ---- types ----


@pytest.mark.parametrize(
    "operation", [one for one in OPERATIONS.values() if one.example_reply is not None], ids=lambda one: str(one.name)
)
def test_every_reply_is_read_as_it_was_sent(operation: AnyOperation) -> None:
    sent = json.loads(encode_reply(operation.reply_type, "成功", operation.example_reply, "1"))
    assert read_reply(sent, operation.reply, operation.reply_type) == operation.example_reply


@pytest.mark.parametrize("frame", CHAT_FRAMES, ids=lambda frame: str(frame.TYPE))
def test_every_frame_is_read_as_it_was_sent(frame: ChatFrame) -> None:
    assert read_frame(json.loads(encode_frame("r", 1, frame, None))) == frame


async def test_an_operation_is_called_by_its_declaration_and_fails_with_its_errors(node: TestNode) -> None:
    async with Hurried(node.url, code=new_code()).open() as client:
        got = await client.call(movies.MOVIE_DETAIL, movies.GetMovie(type="movie_detail", tmdb_id=603))
        assert (got.movie.title, got.movie.runtime) == ("黑客帝国", 136)
        with pytest.raises(OperationError) as unknown:
            await client.call(movies.MOVIE_DETAIL, movies.GetMovie(type="movie_detail", tmdb_id=999_999_999))
    assert unknown.value.kind is errors.MOVIE_NOT_FOUND


async def test_more_calls_than_a_connection_may_make_at_once_are_all_answered(node: TestNode) -> None:
    async with Hurried(node.url, code=new_code()).open() as client:
        found = await asyncio.gather(*(client.call(movies.MOVIES_BULK, FIND) for _ in range(50)))
    assert [one.items[0].tmdb_id for one in found] == [603] * 50
    # None was refused, which would have cost the connection.
    assert client.pauses == []


async def test_an_answer_comes_as_typed_frames_and_its_text_grows_with_them(pair: Pair) -> None:
    pair.model.queue(says("一", "二", "三"))
    shown: list[tuple[ChatFrame, str]] = []
    async with Hurried(pair.one.url, code=new_code()).open() as client:
        asked = client.ask("问题")
        await watch(asked, shown)
    assert [text for _, text in shown][:3] == ["一", "一二", "一二三"]
    assert [frame for frame, _ in shown][:3] == [Chunk("一"), Chunk("二"), Chunk("三")]
    last = shown[-1][0]
    assert isinstance(last, Complete)
    assert (last.answer, last.finish_reason) == ("一二三", "stop")
    assert asked.accepted is not None
    assert asked.accepted.request_id == asked.request_id


async def test_an_answer_that_was_had_ends_again_when_it_is_asked_for_again(pair: Pair) -> None:
    async with Hurried(pair.one.url, code=new_code()).open() as client, asyncio.timeout(PATIENCE_S):
        asked = client.ask("问题")
        end = await asked.whole()
        assert [frame async for frame in asked] == [end]
        assert asked.text == end.answer


async def test_an_answer_can_be_cancelled_by_the_id_of_its_question(pair: Pair) -> None:
    plan, gates = gated("一", "二")
    pair.model.queue(plan)
    async with Hurried(pair.one.url, code=new_code()).open() as client, asyncio.timeout(PATIENCE_S):
        gates[0].open()
        frames = []
        async for frame in client.stream(chat.CHAT, SendChat(type="chat", id="mine", query="问题")):
            frames.append(frame)
            if frame == Chunk("一"):
                await client.call(chat.CANCEL, chat.CancelRun(type="cancel", chat_id="mine"))
    assert isinstance(frames[-1], Complete)
    assert (frames[-1].finish_reason, frames[-1].answer) == ("cancelled", "一")


async def test_the_user_is_told_what_became_of_a_conversation(node: TestNode) -> None:
    changed: asyncio.Queue[ChangedConversation] = asyncio.Queue()
    async with Hurried(node.url, code=new_code(), on_change=changed.put_nowait).open() as client:
        await text_of(client, "推荐三部诺兰导演的电影")
        async with asyncio.timeout(PATIENCE_S):
            while (change := await changed.get()).change != "titled":
                pass
        assert change.title == "推荐三部诺兰导演的电影"


# ---- lost connections, real nodes ----


@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_cut_off_again_and_again_an_answer_comes_whole_and_once_from_two_nodes(pair: Pair, how: How) -> None:
    pieces = [f"第{number}段" for number in range(12)]
    plan, gates = gated(*pieces)
    pair.model.queue(plan)
    async with (
        Proxy(pair.one.node.port).open() as first,
        Proxy(pair.two.node.port).open() as second,
        Hurried(first.url, second.url, code=new_code()).open() as client,
        asyncio.timeout(2 * PATIENCE_S),
    ):
        gates[0].open()
        asked, frames = client.ask("问题"), []
        async for frame in asked:
            frames.append(frame)
            if isinstance(frame, Chunk):
                if len(frames) % 3 == 0:
                    assert first.cut_all(how) + second.cut_all(how) == 1
                if len(frames) < len(gates):
                    gates[len(frames)].open()
        assert min(first.counts["accepted"], second.counts["accepted"]) >= 2
    assert frames[:-1] == [Chunk(piece) for piece in pieces]
    assert asked.text == "".join(pieces)
    assert len(pair.model.calls) == 1


async def test_the_same_id_is_the_same_answer_and_the_model_is_asked_once(pair: Pair) -> None:
    code = new_code()
    question = SendChat(type="chat", id="once", query="问题")
    async with Hurried(pair.one.url, code=code).open() as one, Hurried(pair.two.url, code=code).open() as two:
        answers = [client.stream(chat.CHAT, question) for client in (one, two)]
        async with asyncio.timeout(PATIENCE_S):
            ends = await asyncio.gather(*(each.whole() for each in answers))
        followed = two.follow(str(answers[0].request_id), after_seq=1)
        async with asyncio.timeout(PATIENCE_S):
            rest = [frame async for frame in followed]
    assert isinstance(rest[-1], Complete)
    # Not compared whole: what a run used is not stored with its answer.
    assert {(end.answer, end.message_id) for end in (*ends, rest[-1])} == {(ends[0].answer, ends[0].message_id)}
    assert answers[0].request_id == answers[1].request_id
    assert answers[0].text == ends[0].answer
    assert len(pair.model.calls) == 1


@pytest.mark.slow
async def test_a_node_that_stops_says_goodbye_and_the_answer_begins_anew_on_the_other(
    services: Services, data_dir: Path
) -> None:
    plan, gates = gated("旧", "的")
    async with (
        contextlib.AsyncExitStack() as first,
        two_nodes(services, data_dir, first, drain_timeout_s=0.1) as pair,
        Hurried(pair.one.url, pair.two.url, code=new_code()).open() as client,
        asyncio.timeout(2 * PATIENCE_S),
    ):
        pair.model.queue(plan, says("新", "的"))
        gates[0].open()
        asked = client.ask("问题")
        shown = []
        async for frame in asked:
            shown.append((frame, asked.text))
            if frame == Chunk("旧"):
                await first.aclose()
    assert isinstance(shown[1][0], Restart)
    assert [text for _, text in shown] == ["旧", "", "新", "新的", "新的"]
    assert len(pair.model.calls) == 2


async def test_a_connection_that_stands_still_is_left_for_the_other_node(pair: Pair) -> None:
    plan, gates = gated("一", "二")
    pair.model.queue(plan)
    async with (
        Proxy(pair.one.node.port).open() as first,
        Hurried(first.url, pair.two.url, code=new_code(), heartbeat_s=0.3).open() as client,
        asyncio.timeout(PATIENCE_S),
    ):
        gates[0].open()
        frames = []
        async for frame in client.ask("问题"):
            frames.append(frame)
            if frame == Chunk("一"):
                first.stall()
                gates[1].open()
    assert frames[:2] == [Chunk("一"), Chunk("二")]


async def test_a_revoked_session_is_begun_anew_with_a_fresh_code(pair: Pair, redis: Redis) -> None:
    plan, gates = gated("一", "二")
    pair.model.queue(plan)
    code = new_code()
    async with Hurried(pair.one.url, code=code).open() as client, asyncio.timeout(PATIENCE_S):
        gates[0].open()
        frames = []
        async for frame in client.ask("问题"):
            frames.append(frame)
            if frame == Chunk("一"):
                async with socket_client(pair.two.url) as other:
                    await other.login(code)
                    await other.call({"type": "logout"})
                    assert await other.closed() == errors.REVOKED.code
                gates[1].open()
    assert frames[:2] == [Chunk("一"), Chunk("二")]


async def test_without_a_way_to_get_codes_a_revoked_session_is_the_end(pair: Pair, redis: Redis) -> None:
    async with socket_client(pair.one.url) as first:
        await first.login()
        async with Hurried(pair.two.url, token=first.token).open() as client:
            await client.call(chat.HISTORY, chat.ReadHistory(type="history"))
            await redis.delete(SESSION(first.session_id))
            with pytest.raises(ClosedError) as over:
                await until_over(client)
    assert over.value.close is errors.REVOKED


async def test_a_replaced_client_does_not_come_back(pair: Pair) -> None:
    code = new_code()
    async with contextlib.AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(Proxy(pair.one.node.port).open())
        client = await stack.enter_async_context(Hurried(proxy.url, code=code).open())
        await client.call(movies.MOVIES_BULK, FIND)
        for _ in range(5):
            newer = await stack.enter_async_context(socket_client(pair.two.url))
            await newer.login(code)
        with pytest.raises(ClosedError) as over:
            await until_over(client)
        assert proxy.counts["accepted"] == 1
    assert over.value.close is errors.REPLACED


async def test_who_logs_out_stays_out(node: TestNode) -> None:
    async with Hurried(node.url, code=new_code()).open() as client:
        await client.call(accounts.LOGOUT, accounts.LogOut(type="logout"))
        with pytest.raises(ClosedError) as over:
            await text_of(client)
    assert over.value.close is errors.REVOKED
    assert client.codes == 1


async def test_who_reads_late_is_given_the_rest_again(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(example, "ROOM", 3)
    pieces = [f"第{number}段" for number in range(20)]
    plan, gates = gated(*pieces)
    pair.model.queue(plan)
    async with Hurried(pair.one.url, code=new_code()).open() as client, asyncio.timeout(PATIENCE_S):
        frames: list[ChatFrame] = []
        gates[0].open()
        async for frame in client.ask("问题"):
            frames.append(frame)
            if len(frames) == 1:
                for gate in gates:
                    gate.open()
                while not all(inbox.full() for inbox in client._inboxes.values()):
                    await asyncio.sleep(0.01)
    assert frames[:-1] == [Chunk(piece) for piece in pieces]
    # It was one connection all the time.
    assert client.pauses == []


async def test_after_the_window_what_was_stored_comes_as_one(pair: Pair, redis: Redis) -> None:
    async with Hurried(pair.one.url, code=new_code()).open() as client:
        asked = client.ask("问题")
        async with asyncio.timeout(PATIENCE_S):
            end = await asked.whole()
        request_id = str(asked.request_id)
        late = client.follow(request_id, after_seq=1_000_000)
        async with asyncio.timeout(PATIENCE_S):
            frames = [frame async for frame in late]
    assert frames[:2] == [Restart("log_lost"), Chunk(end.answer)]
    assert isinstance(frames[2], Complete)
    assert (frames[2].answer, frames[2].message_id, late.text) == (end.answer, end.message_id, end.answer)


# ---- lost connections, a node that does as it is told ----


def user_of(scripted: ScriptedNode, **options: Any) -> Hurried:
    return Hurried(scripted.url, **{"code": "code", **options})


async def test_a_question_whose_acceptance_was_lost_is_sent_again_as_the_same(scripted: ScriptedNode) -> None:
    async def chat_once(guest: Guest, message: Frame) -> None:
        if guest.number == 0:
            guest.socket.transport.abort()
            return
        await stream(guest, message, Chunk("答"), Complete("答", None, "stop", None))

    scripted.on["chat"] = chat_once
    async with user_of(scripted).open() as client:
        assert await text_of(client) == "答"
    first, second = await told(scripted, "chat"), await told(scripted, "chat")
    assert (first[0], second[0]) == (0, 1)
    assert first[1] == second[1]


async def test_what_may_be_done_twice_is_called_again_and_nothing_else(scripted: ScriptedNode) -> None:
    async def lose_the_first(guest: Guest, message: Frame) -> None:
        if guest.number == 0:
            guest.socket.transport.abort()
        else:
            await guest.reply(message, NO_FILMS)

    async def lose(guest: Guest, _message: Frame) -> None:
        guest.socket.transport.abort()

    scripted.on = {"movies_bulk": lose_the_first, "conversation_create": lose}
    async with user_of(scripted).open() as client:
        assert (await client.call(movies.MOVIES_BULK, FIND)).missing_ids == [603]
        with pytest.raises(LostError):
            await client.call(conversations.CONVERSATION_CREATE, CREATE)
        assert (await client.call(movies.MOVIES_BULK, FIND)).missing_ids == [603]
    came = [scripted.messages.get_nowait()[1]["type"] for _ in range(scripted.messages.qsize())]
    assert came.count("conversation_create") == 1
    assert came.count("movies_bulk") == 3


@pytest.mark.parametrize("close", CLOSE_CODES.values(), ids=lambda close: str(close.code))
async def test_close_codes_are_obeyed(scripted: ScriptedNode, close: CloseCode) -> None:
    async def close_the_first(guest: Guest, message: Frame) -> None:
        if guest.number == 0:
            await guest.socket.close(close.code, close.reason)
        else:
            await guest.reply(message, NO_FILMS)

    scripted.on["movies_bulk"] = close_the_first
    async with user_of(scripted).open() as client:
        if close in (errors.TOO_BIG, errors.NOT_THE_PROTOCOL, errors.REPLACED):
            with pytest.raises(ClosedError) as over:
                await client.call(movies.MOVIES_BULK, FIND)
            assert over.value.close is close
            assert scripted.connections == 1
            return
        await client.call(movies.MOVIES_BULK, FIND)
    await told(scripted, "login")
    # A session that is over is not authenticated again.
    again = await told(scripted, "login" if close is errors.REVOKED else "auth")
    assert again[0] == 1
    # Who is too fast backs off for longer than who is sent away.
    assert (client.pauses[0] > 10) == (close is errors.FAST_SENDER)


async def test_goodbye_says_when_to_come_back_and_the_token_is_enough_then(scripted: ScriptedNode) -> None:
    async def stop(guest: Guest, message: Frame) -> None:
        if guest.number == 0:
            await guest.say({"type": "goodbye", "code": 1012, "message": "", "retry_after_ms": 60_000})
            await guest.socket.close(1012)
        else:
            await guest.reply(message, NO_FILMS)

    scripted.on["movies_bulk"] = stop
    async with user_of(scripted).open() as client:
        await client.call(movies.MOVIES_BULK, FIND)
    assert len(client.pauses) == 1
    assert 30 < client.pauses[0] <= 60
    assert client.codes == 1
    assert (await told(scripted, "auth"))[1]["token"] == "t1"


async def test_a_node_that_takes_no_more_sockets_says_when_it_will(scripted: ScriptedNode) -> None:
    async def greet(guest: Guest) -> None:
        if guest.number == 0:
            await guest.refuse({}, OperationError(errors.RATE_LIMITED, retry_after_ms=60_000))
            await guest.socket.close(1013)
        else:
            await guest.say(CONNECTED)

    scripted.greeting = greet
    scripted.on["movies_bulk"] = lambda guest, message: guest.reply(message, NO_FILMS)
    async with user_of(scripted).open() as client:
        await client.call(movies.MOVIES_BULK, FIND)
    assert 30 < client.pauses[0] <= 60


async def test_a_node_that_does_not_greet_is_left(scripted: ScriptedNode) -> None:
    async def greet(guest: Guest) -> None:
        if guest.number == 0:
            await guest.socket.wait_closed()
        else:
            await guest.say(CONNECTED)

    scripted.greeting = greet
    scripted.on["movies_bulk"] = lambda guest, message: guest.reply(message, NO_FILMS)
    async with user_of(scripted, heartbeat_s=0.1).open() as client:
        await client.call(movies.MOVIES_BULK, FIND)
    assert scripted.connections == 2


async def test_back_off_grows_while_nobody_listens_and_begins_anew_after_a_login(scripted: ScriptedNode) -> None:
    async def greet(guest: Guest) -> None:
        if guest.number < 4:
            guest.socket.transport.abort()
        else:
            await guest.say(CONNECTED)

    async def lose_the_first(guest: Guest, message: Frame) -> None:
        if guest.number == 4:
            guest.socket.transport.abort()
        else:
            await guest.reply(message, NO_FILMS)

    scripted.greeting = greet
    scripted.on["movies_bulk"] = lose_the_first
    async with user_of(scripted, first_wait_s=1.0).open() as client:
        await client.call(movies.MOVIES_BULK, FIND)
    assert [0.5 * 2**n <= pause <= 2**n for n, pause in enumerate(client.pauses[:4])] == [True] * 4
    assert 0.5 <= client.pauses[4] <= 1.0


# ---- logins ----


async def test_a_login_that_is_refused_for_good_is_what_callers_are_told(scripted: ScriptedNode) -> None:
    refusal = OperationError(errors.LOGIN_REFUSED)
    scripted.on["login"] = lambda guest, message: guest.refuse(message, refusal, "login_response")
    async with user_of(scripted).open() as client:
        with pytest.raises(OperationError) as refused:
            await client.call(movies.MOVIES_BULK, FIND)
    assert refused.value.kind is errors.LOGIN_REFUSED
    assert scripted.connections == 1


async def test_a_login_that_may_be_tried_again_is_with_a_fresh_code(scripted: ScriptedNode) -> None:
    async def log_in(guest: Guest, message: Frame) -> None:
        if guest.number == 0:
            await guest.refuse(message, OperationError(errors.WECHAT_QUOTA, retry_after_ms=60_000), "login_response")
        else:
            await answer(guest, message)

    scripted.on["login"] = log_in
    scripted.on["movies_bulk"] = lambda guest, message: guest.reply(message, NO_FILMS)
    async with user_of(scripted).open() as client:
        await client.call(movies.MOVIES_BULK, FIND)
    assert client.codes == 2
    assert 30 < client.pauses[0] <= 60


async def test_a_login_whose_reply_was_lost_is_made_again_with_the_same_code(scripted: ScriptedNode) -> None:
    async def log_in(guest: Guest, message: Frame) -> None:
        if guest.number == 0:
            guest.socket.transport.abort()
        else:
            await answer(guest, message)

    scripted.on["login"] = log_in
    scripted.on["movies_bulk"] = lambda guest, message: guest.reply(message, NO_FILMS)
    async with user_of(scripted).open() as client:
        await client.call(movies.MOVIES_BULK, FIND)
    assert client.codes == 1


async def test_a_token_that_is_no_good_is_replaced_by_a_login(scripted: ScriptedNode) -> None:
    expired = OperationError(errors.TOKEN_EXPIRED)
    scripted.on["auth"] = lambda guest, message: guest.refuse(message, expired, "auth_response")
    scripted.on["movies_bulk"] = lambda guest, message: guest.reply(message, NO_FILMS)
    async with user_of(scripted, token="old").open() as client:
        await client.call(movies.MOVIES_BULK, FIND)
        assert client.token == "t1"
    async with user_of(scripted, token="old", code=None).open() as client:
        with pytest.raises(OperationError) as refused:
            await client.call(movies.MOVIES_BULK, FIND)
    assert refused.value.kind is errors.TOKEN_EXPIRED


async def test_a_token_is_refreshed_over_the_socket_that_is_in_use(scripted: ScriptedNode) -> None:
    async def log_in(guest: Guest, message: Frame) -> None:
        await guest.reply(message, SCRIPTED_SESSION | {"expires_in": 0})

    async def refresh(guest: Guest, message: Frame) -> None:
        await guest.reply(message, SCRIPTED_SESSION | {"token": "t2"})
        await guest.say({"type": "pong", "code": 0, "message": "pong", "data": None})

    scripted.on = {"login": log_in, "auth": refresh}
    scripted.on["movies_bulk"] = lambda guest, message: guest.reply(message, NO_FILMS)
    async with user_of(scripted).open() as client:
        assert (await told(scripted, "auth")) == (0, {"type": "auth", "token": "t1"})
        await client.call(movies.MOVIES_BULK, FIND)
        assert client.token == "t2"


async def test_what_one_user_asked_is_never_sent_as_another(scripted: ScriptedNode) -> None:
    async def log_in(guest: Guest, message: Frame) -> None:
        await guest.reply(message, SCRIPTED_SESSION | {"openid": f"o{guest.number}"})

    scripted.on["login"] = log_in
    scripted.on["chat"] = lambda guest, _message: guest.socket.close(errors.REVOKED.code)
    async with user_of(scripted).open() as client:
        with pytest.raises(OperationError) as over:
            await text_of(client)
    assert over.value.kind is errors.SESSION_REVOKED
    assert (await told(scripted, "chat"))[0] == 0
    left = [scripted.messages.get_nowait() for _ in range(scripted.messages.qsize())]
    assert [one for one in left if one[1]["type"] == "chat"] == []


# ---- refusals, slow answers, wrong replies ----


@pytest.mark.parametrize(
    "kind", [errors.DRAINING, errors.RATE_LIMITED, errors.TOO_MANY_IN_FLIGHT], ids=lambda kind: str(kind.reason)
)
async def test_what_is_refused_for_a_time_is_asked_again_then(scripted: ScriptedNode, kind: ErrorKind) -> None:
    asked = 0

    async def refuse_once(guest: Guest, message: Frame) -> None:
        nonlocal asked
        asked += 1
        if asked % 2:
            await guest.refuse(message, OperationError(kind, retry_after_ms=1))
        elif message["type"] == "movies_bulk":
            await guest.reply(message, NO_FILMS)
        else:
            await stream(guest, message, Complete("答", None, "stop", None))

    scripted.on = {"movies_bulk": refuse_once, "chat": refuse_once}
    async with user_of(scripted).open() as client:
        await client.call(movies.MOVIES_BULK, FIND)
        assert await text_of(client) == "答"
    first, second = await told(scripted, "chat"), await told(scripted, "chat")
    assert first == second


@pytest.mark.parametrize(
    "kind", [errors.CONVERSATION_BUSY, errors.CONVERSATION_NOT_FOUND], ids=lambda kind: str(kind.reason)
)
async def test_what_is_for_its_user_to_decide_is_not_asked_again(scripted: ScriptedNode, kind: ErrorKind) -> None:
    refusal = OperationError(kind, retry_after_ms=1)
    scripted.on["chat"] = lambda guest, message: guest.refuse(message, refusal)
    async with user_of(scripted).open() as client:
        with pytest.raises(OperationError) as refused:
            await text_of(client)
    assert refused.value.kind is kind


async def test_a_text_that_was_taken_back_is_shown_no_more(scripted: ScriptedNode) -> None:
    async def refuse_half_way(guest: Guest, message: Frame) -> None:
        await stream(guest, message, Chunk("不"), Retract("content_refused"))
        refusal = encode_error(OperationError(errors.CONTENT_REFUSED), message_id=message["id"], request_id="r")
        await guest.say({**json.loads(refusal), "seq": 3})

    scripted.on["chat"] = refuse_half_way
    async with user_of(scripted).open() as client:
        shown: list[tuple[ChatFrame, str]] = []
        with pytest.raises(OperationError) as refused:
            await watch(client.ask("问题"), shown)
    assert [text for _, text in shown] == ["不", ""]
    assert refused.value.kind is errors.CONTENT_REFUSED


async def test_a_call_waits_no_longer_than_its_caller_and_the_next_is_answered(scripted: ScriptedNode) -> None:
    late: list[tuple[Guest, Frame]] = []

    async def keep(guest: Guest, message: Frame) -> None:
        late.append((guest, message))

    scripted.on = {"movie_detail": keep, "movies_bulk": lambda guest, message: guest.reply(message, NO_FILMS)}
    async with user_of(scripted).open() as client:
        get = movies.GetMovie(type="movie_detail", tmdb_id=603)
        with pytest.raises(TimeoutError):
            await client.call(movies.MOVIE_DETAIL, get, timeout_s=0.2)
        for guest, message in late:
            await guest.refuse(message, OperationError(errors.MOVIE_NOT_FOUND))
        assert (await client.call(movies.MOVIES_BULK, FIND)).missing_ids == [603]
    assert scripted.connections == 1


@pytest.mark.parametrize(
    "reply",
    [
        {"type": "movie_detail_response", "code": 0, "message": "", "data": NO_FILMS},
        {"type": "movies_bulk_response", "code": 0, "message": "", "data": {"items": [{"tmdb_id": "x"}]}},
        {"type": "movies_bulk_response", "code": 0, "message": ""},
        {"type": "error", "code": 500, "message": ""},
    ],
    ids=["another type", "no such data", "no data", "no reason"],
)
async def test_a_wrong_reply_fails_its_call_alone(scripted: ScriptedNode, reply: Frame) -> None:
    wrong = iter([reply])

    async def say(guest: Guest, message: Frame) -> None:
        fine = {"type": "movies_bulk_response", "code": 0, "message": "", "data": NO_FILMS}
        await guest.say({**next(wrong, fine), "id": message["id"]})

    scripted.on["movies_bulk"] = say
    async with user_of(scripted).open() as client:
        with pytest.raises(WrongReplyError):
            await client.call(movies.MOVIES_BULK, FIND)
        assert (await client.call(movies.MOVIES_BULK, FIND)).missing_ids == [603]
    assert scripted.connections == 1


@pytest.mark.parametrize("nonsense", ["{", "[]", "1", '{"type":1,"code":0}', '{"type":"pong!"}', "\ud800"])
async def test_what_is_no_frame_ends_the_client(scripted: ScriptedNode, nonsense: str) -> None:
    scripted.on["movies_bulk"] = lambda guest, _message: guest.say(nonsense.encode("utf-8", "replace"))
    async with user_of(scripted).open() as client:
        with pytest.raises(WrongReplyError):
            await client.call(movies.MOVIES_BULK, FIND)


async def test_a_server_that_is_another_is_not_tried_again(scripted: ScriptedNode, node: TestNode) -> None:
    scripted.greeting = lambda guest: guest.say({"type": "hello", "code": 0})
    async with user_of(scripted).open() as client:
        with pytest.raises(WrongReplyError):
            await client.call(movies.MOVIES_BULK, FIND)
    nowhere = Hurried(node.url, code="code")
    nowhere._urls = [url + "/nowhere" for url in nowhere._urls]
    async with nowhere.open() as client:
        with pytest.raises(Exception, match="403"):
            await client.call(movies.MOVIES_BULK, FIND)
    assert client.pauses == []


async def test_what_came_into_the_world_later_is_no_mistake(scripted: ScriptedNode) -> None:
    async def say_more(guest: Guest, message: Frame) -> None:
        await guest.say({"type": "weather", "code": 0, "message": "", "data": {"sunny": True}})
        await guest.say({"type": "conversation_updated", "code": 0, "message": "", "data": {"change": "painted"}})
        await guest.reply(message, {"request_id": "r", "conversation_id": None, "mood": 1}, "chat_processing")
        run: Frame = {"request_id": "r", "id": message["id"]}
        await guest.say({**run, "type": "image", "seq": 1, "content": {}})
        await guest.say({**run, "type": "chunk", "seq": 2, "content": "答", "more": 1})
        error = {"type": "error", "code": 418, "message": "", "reason": "teapot", "retryable": False}
        await guest.say({**run, **error, "seq": 3, "retry_after_ms": None})

    scripted.on["chat"] = say_more
    changed: list[ChangedConversation] = []
    async with user_of(scripted, on_change=changed.append).open() as client:
        shown: list[tuple[ChatFrame, str]] = []
        with pytest.raises(OperationError) as refused:
            await watch(client.ask("问题"), shown)
    assert shown == [(Chunk("答"), "答")]
    assert refused.value.kind == ErrorKind("teapot", 418, "")
    assert changed == []


async def skip_the_second(guest: Guest, message: Frame) -> None:
    await guest.reply(message, {"request_id": "r", "conversation_id": None}, "chat_processing")
    for seq in (1, 1, 3):
        await guest.say(encode_frame("r", seq, Chunk("答"), message["id"]))


async def test_a_frame_that_is_missing_is_asked_for_and_one_that_was_had_dropped(scripted: ScriptedNode) -> None:
    asked_from: list[int] = []

    async def say_the_rest(guest: Guest, message: Frame) -> None:
        asked_from.append(message["after_seq"])
        await guest.reply(message, {"recovered": True, "last_seq": 3, "running": True}, "resume_response")
        for seq, frame in ((2, Chunk("复")), (3, Chunk("案")), (4, Complete("答复案", None, "stop", None))):
            await guest.say(encode_frame("r", seq, frame, None))

    scripted.on |= {"chat": skip_the_second, "resume": say_the_rest}
    async with user_of(scripted).open() as client:
        assert await text_of(client) == "答复案"
    assert asked_from == [1]


async def test_a_frame_that_is_missing_for_good_is_said_and_not_passed_over(scripted: ScriptedNode) -> None:
    async def skip_it_again(guest: Guest, message: Frame) -> None:
        await guest.reply(message, {"recovered": True, "last_seq": 3, "running": True}, "resume_response")
        await guest.say(encode_frame("r", 3, Chunk("答"), None))

    scripted.on |= {"chat": skip_the_second, "resume": skip_it_again}
    async with user_of(scripted).open() as client:
        with pytest.raises(WrongReplyError):
            await text_of(client)


async def test_what_is_too_big_is_not_sent(scripted: ScriptedNode) -> None:
    scripted.greeting = lambda guest: guest.say({**CONNECTED, "server": SERVER | {"max_message_bytes": 100}})
    async with user_of(scripted).open() as client:
        with pytest.raises(OperationError) as refused:
            await text_of(client, "问" * 40)
    assert refused.value.kind is errors.TOO_LARGE
    assert scripted.messages.qsize() == 1
