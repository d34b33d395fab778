"""The page for old browsers, in Chromium, from a file and from another origin: with streams of fetch, and without.

Needs node, npm's packages of tests/legacy_page/ and Chromium; without them it says so and is skipped.
"""

import asyncio
import contextlib
import json
import shutil
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.staticfiles import StaticFiles

from storage.embedded import Services
from tests import parts
from tests.clients import PATIENCE_S
from tests.faults.proxy import Proxy
from tests.node import TestNode, serving
from tests.pairs import two_nodes
from tests.parts import INSTALL_S, PARTS, RAN, node_with
from tests.standins.llm import DONE, LLMStandIn, chunk, fails, gated, says, sends, text
from tests.standins.server import serve

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "examples" / "legacy_page"
HERE = ROOT / "tests" / "legacy_page"
PART = "Chromium: legacy page"
START_S = 60.0
"""Chromium's first start on a machine that does other things too."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(INSTALL_S + 2 * START_S)]


@dataclass(slots=True)
class Browser:
    """`browser.js`, and the page that is open in it."""

    process: asyncio.subprocess.Process

    async def do(self, do: str, **more: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"do": do, **more}).encode() + b"\n")
        async with asyncio.timeout(START_S):
            answer = json.loads(await self.process.stdout.readline())
        assert "error" not in answer, answer["error"]
        return answer.get("value")

    async def ask(self, query: str) -> None:
        await self.do(
            "run",
            code="(query) => { document.getElementById('query').value = query;"
            " document.getElementById('send').click(); }",
            value=query,
        )

    async def shows(self, selector: str, text: str) -> None:
        """Wait until the last element that the selector takes has this text."""
        code = (
            "([selector, text]) => { const all = document.querySelectorAll(selector);"
            " return all.length > 0 && all[all.length - 1].textContent === text; }"
        )
        try:
            await self.do("wait", code=code, value=[selector, text])
        except AssertionError:
            raise AssertionError(f"{selector} is not {text!r} but {await self.texts(selector)}") from None

    async def texts(self, selector: str) -> list[str]:
        code = "(selector) => Array.from(document.querySelectorAll(selector), (one) => one.textContent)"
        said: list[str] = await self.do("run", code=code, value=selector)
        return said

    async def click(self, selector: str, number: int) -> None:
        """Click it, once it is there: lists are drawn anew when something in them changed."""
        code = "([s, n]) => { const one = document.querySelectorAll(s)[n]; one?.click(); return one !== undefined; }"
        await self.do("wait", code=code, value=[selector, number])


@pytest.fixture(scope="module")
async def chromium() -> AsyncIterator[Browser]:
    node, browser = node_with(PART, HERE), parts.chromium(PART)
    PARTS[PART] = RAN
    process = await asyncio.create_subprocess_exec(node, str(HERE / "browser.js"), browser, stdin=PIPE, stdout=PIPE)
    assert process.stdin is not None
    yield Browser(process)
    process.stdin.close()
    try:
        async with asyncio.timeout(PATIENCE_S):
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def page_of(folder: Path, server: str) -> str:
    """A copy of the page that talks to this server; gives its address as a file."""
    shutil.copytree(PAGE, folder)
    index = folder / "index.html"
    index.write_text(index.read_text().replace("http://127.0.0.1:8000", server))
    return index.as_uri()


@dataclass(slots=True)
class Stage:
    """A server with a model behind a proxy, and the page on an origin of its own and as a file."""

    node: TestNode
    model: LLMStandIn
    proxy: Proxy
    urls: dict[str, str]


@pytest.fixture(scope="module")
async def _stage(services: Services, data_dir: Path) -> AsyncIterator[Stage]:
    model, folder = LLMStandIn(), data_dir / "legacy_page"
    web = Starlette()
    web.mount("/", StaticFiles(directory=folder, check_dir=False))
    async with serve(model.app) as model_url, serve(web) as origin:
        settings: dict[str, Any] = {"llm_base_url": [f"{model_url}/v1"], "llm_model": ["stand-in"], "roll_up_ms": 0}
        settings |= {"cors_origins": ["null", origin], "rate_limit_guest_chats_per_min": 1000}
        async with serving(services, data_dir, **settings) as node, Proxy(node.node.port).open() as proxy:
            url = page_of(folder, proxy.url)
            yield Stage(node, model, proxy, {"file": url, "web": f"{origin}/index.html"})


@pytest.fixture
def stage(_stage: Stage) -> Stage:
    _stage.model.reset()
    return _stage


@pytest.fixture(params=["fetch", "xhr"])
async def browser(request: pytest.FixtureRequest, chromium: Browser, stage: Stage) -> AsyncIterator[Browser]:
    """The page, just opened by somebody new; in an old browser it has no fetch."""
    async with opened(chromium, stage.urls["file"], old=request.param == "xhr") as browser:
        yield browser


@contextlib.asynccontextmanager
async def opened(browser: Browser, url: str, *, old: bool) -> AsyncIterator[Browser]:
    await browser.do("open", url=url, without=["fetch", "AbortController"] if old else [])
    assert await browser.do("run", code="() => typeof window.fetch") == ("undefined" if old else "function")
    yield browser
    # What the page did wrong and nobody saw.
    assert await browser.do("close") == []


@pytest.mark.parametrize("place", ["file", "web"])
@pytest.mark.parametrize("old", [False, True], ids=["fetch", "xhr"])
async def test_an_answer_is_shown_while_it_is_made_and_its_films_with_it(
    chromium: Browser, stage: Stage, place: str, old: bool
) -> None:
    plan, gates = gated("看看", "《星际穿越》", "吧👩‍🚀")
    stage.model.queue(plan)
    async with opened(chromium, stage.urls[place], old=old) as browser:
        await browser.ask("推荐诺兰的电影")
        await browser.shows(".question", "推荐诺兰的电影")
        shown = ""
        for gate, piece in zip(gates, ("看看", "《星际穿越》", "吧👩‍🚀"), strict=True):
            await browser.shows(".answer", shown)
            gate.open()
            shown += piece
        await browser.shows(".answer", "看看《星际穿越》吧👩‍🚀")
        await browser.shows(".answer + .note", "由 AI 生成")
        await browser.shows(".film > div:first-of-type", "星际穿越（2014）")
        await browser.shows("#conversations .current", "推荐诺兰的电影")


async def test_cut_off_again_and_again_the_page_shows_every_piece_once(browser: Browser, stage: Stage) -> None:
    pieces = [f"第{number}段；" for number in range(6)]
    plan, gates = gated(*pieces)
    stage.model.queue(plan)
    await browser.ask("说慢一点")
    for number, gate in enumerate(gates):
        gate.open()
        await browser.shows(".answer", "".join(pieces[: number + 1]))
        assert stage.proxy.cut_all("rst" if number % 2 else "fin") >= 1
    await browser.shows(".answer + .note", "由 AI 生成")
    assert await browser.texts(".answer") == ["".join(pieces)]
    assert len(stage.model.calls) == 1


async def test_a_question_that_found_nobody_is_asked_once_when_somebody_is_there(
    browser: Browser, stage: Stage
) -> None:
    stage.model.queue(says("好"))
    port, stage.proxy.target = stage.proxy.target, None
    stage.proxy.cut_all()
    await browser.ask("有人吗")
    await browser.shows(".answer + .note", "连接断了，正在接上……")
    stage.proxy.target = port
    await browser.shows(".answer", "好")
    await browser.shows(".answer + .note", "由 AI 生成")
    assert len(stage.model.calls) == 1


LOSE_THE_FIRST_RESPONSE = """() => {
  const fetch = window.fetch;
  window.fetch = (url, options) => fetch(url, options).then((response) => {
    if (!url.endsWith('/chat/stream')) { return response; }
    window.fetch = fetch;
    throw new TypeError('lost');
  });
}"""


async def test_a_question_whose_acceptance_was_lost_is_sent_again_as_the_same(chromium: Browser, stage: Stage) -> None:
    async with opened(chromium, stage.urls["file"], old=False) as browser:
        await browser.do("run", code=LOSE_THE_FIRST_RESPONSE)
        stage.model.queue(says("只说", "一次"))
        await browser.ask("问题")
        await browser.shows(".answer", "只说一次")
        await browser.shows(".answer + .note", "由 AI 生成")
        assert await browser.do("run", code="() => window.fetch.name") == "fetch"
    assert len(stage.model.calls) == 1


async def test_a_connection_that_stands_still_is_left_and_the_answer_goes_on(browser: Browser, stage: Stage) -> None:
    plan, gates = gated("一", "二")
    stage.model.queue(plan)
    await browser.do("run", code="() => { CineWire.SILENCE_MS = 300; }")
    await browser.ask("说慢一点")
    gates[0].open()
    await browser.shows(".answer", "一")
    stage.proxy.stall()
    await browser.shows(".answer + .note", "连接断了，正在接上……")
    gates[1].open()
    stage.proxy.flow()
    await browser.shows(".answer", "一二")
    await browser.shows(".answer + .note", "由 AI 生成")
    assert len(stage.model.calls) == 1


async def test_who_finds_nobody_for_long_is_told_and_may_ask_again(browser: Browser, stage: Stage) -> None:
    await browser.do("run", code="() => { CineWire.ATTEMPTS = 1; }")
    port, stage.proxy.target = stage.proxy.target, None
    stage.proxy.cut_all()
    await browser.ask("有人吗")
    await browser.shows(".answer + .note.wrong", "连不上服务器，请检查网络后重试")
    stage.proxy.target = port
    stage.model.queue(fails(401), says("有"))
    await browser.ask("现在呢")
    await browser.shows(".answer + .note", "服务端的模型配置有误，请联系管理员")
    await browser.ask("那现在呢")
    await browser.shows(".answer", "有")


async def test_a_page_that_is_loaded_anew_goes_on_with_the_answer(browser: Browser, stage: Stage) -> None:
    plan, gates = gated("一", "二")
    stage.model.queue(plan)
    await browser.ask("说慢一点")
    gates[0].open()
    await browser.shows(".answer", "一")
    await browser.do("reload")
    await browser.shows(".answer", "一")
    gates[1].open()
    await browser.shows(".answer", "一二")
    await browser.shows(".answer + .note", "由 AI 生成")
    assert len(stage.model.calls) == 1
    await browser.do("reload")
    assert await browser.texts(".answer") == []


@pytest.mark.slow
@pytest.mark.parametrize("old", [False, True], ids=["fetch", "xhr"])
async def test_an_answer_that_another_node_begins_anew_takes_the_place_of_its_text(
    chromium: Browser, services: Services, data_dir: Path, tmp_path: Path, old: bool
) -> None:
    plan, gates = gated("旧", "的")
    async with (
        contextlib.AsyncExitStack() as first,
        two_nodes(services, data_dir, first, drain_timeout_s=0.1, cors_origins=["null"]) as pair,
        Proxy(pair.one.node.port).open() as proxy,
        opened(chromium, page_of(tmp_path / "page", proxy.url), old=old) as browser,
    ):
        pair.model.queue(plan, says("新", "的"))
        await browser.ask("问题")
        gates[0].open()
        await browser.shows(".answer", "旧")
        proxy.target = pair.two.node.port
        await first.aclose()
        await browser.shows(".answer", "新的")
        await browser.shows(".answer + .note", "由 AI 生成")


async def test_conversations_are_listed_and_read_and_gone_on_with(browser: Browser, stage: Stage) -> None:
    stage.model.queue(says("一"), says("二"), says("三"))
    for query, answer in (("问一", "一"), ("问二", "二")):
        await browser.click("#conversations button", 0)
        await browser.shows("#conversations button:first-child", "新的对话")
        await browser.ask(query)
        await browser.shows(".answer", answer)
        await browser.shows("#conversations .current", query)
    assert await browser.texts("#conversations button") == ["新的对话", "问二", "问一"]
    await browser.click("#conversations button", 2)
    await browser.shows(".answer", "一")
    assert await browser.texts(".question, .answer") == ["问一", "一"]
    await browser.ask("再问一")
    await browser.shows(".answer", "三")
    await browser.shows("#conversations button:nth-child(2)", "问一")
    asked = [message["content"] for message in stage.model.calls[-1].json["messages"] if message["role"] == "user"]
    assert [question in asked[-1] for question in ("再问一",)] == [True]
    assert any(question == "问一" for question in asked[:-1])


async def test_what_is_taken_back_is_shown_no_more(browser: Browser, stage: Stage) -> None:
    stage.model.queue(sends(text("你"), text("好"), chunk({}, finish="content_filter"), DONE))
    await browser.ask("问题")
    await browser.shows(".answer + .note.wrong", "内容未通过安全检查，请换个说法")
    assert await browser.texts(".answer") == [""]
    await browser.ask("再来")
    await browser.shows(".answer + .note", "由 AI 生成")


async def test_a_server_that_wants_logins_is_quoted(
    chromium: Browser, services: Services, data_dir: Path, tmp_path: Path
) -> None:
    async with serving(services, data_dir, allow_guests=False, cors_origins=["null"]) as node:
        url = page_of(tmp_path / "page", node.url)
        for old in (False, True):
            async with opened(chromium, url, old=old) as browser:
                await browser.ask("问题")
                await browser.shows(".answer + .note.wrong", "请先登录：本服务不接受访客")


@pytest.mark.parametrize("name", ["cinewire.js", "page.js"])
async def test_the_scripts_are_what_old_browsers_can_read(chromium: Browser, name: str) -> None:
    await chromium.do("parse", file=str(PAGE / name))
