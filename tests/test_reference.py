"""The page at `/docs/ws` has everything that the socket's document has, in two languages, and runs nothing."""

from html.parser import HTMLParser
from typing import get_args

import httpx
import pytest

from protocol.chat import CHAT_FRAMES
from protocol.errors import CLOSE_CODES, ERRORS
from protocol.operations import OPERATIONS
from protocol.unasked import UNASKED
from wsserver.contract import chinese
from wsserver.contract.markup import coloured, json_block, prose, tag
from wsserver.contract.meanings import MEANINGS
from wsserver.contract.reference_words import LANGUAGES, Language

VOID = {"meta", "link", "input"}


class Page(HTMLParser):
    """Reads a page, and fails on what is not closed in the order in which it was opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.links: set[str] = set()
        self.attributes: set[str] = set()
        self.lang: str | None = None
        self.said: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.tags.add(tag)
        found = dict(attrs)
        self.attributes |= set(found)
        if (name := found.get("id")) is not None:
            self.ids.append(name)
        if tag == "html":
            self.lang = found["lang"]
        self.links |= {str(found[key]) for key in ("href", "src", "action") if key in found}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said.append(data)

    @property
    def text(self) -> str:
        return "".join(self.said)


@pytest.fixture(params=get_args(Language))
async def page(request: pytest.FixtureRequest, http: httpx.AsyncClient) -> Page:
    answer = await http.get("/docs/ws", params={"lang": request.param})
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "script-src" not in answer.headers["content-security-policy"]
    assert answer.headers["content-security-policy"].startswith("default-src 'none'; style-src 'self';")
    read = Page(answer.text)
    assert read.lang == LANGUAGES[request.param].html_lang
    return read


async def test_it_has_every_message_frame_error_and_close_code(page: Page) -> None:
    ids = set(page.ids)
    assert len(page.ids) == len(ids)
    assert set(OPERATIONS) <= ids
    assert {f"error-{reason}" for reason in ERRORS} <= ids
    assert {f"close-{code}" for code in CLOSE_CODES} <= ids
    frames = {*(frame.TYPE for frame in CHAT_FRAMES), "error", *(noun.model_dump()["type"] for noun in UNASKED)}
    assert {f"frame-{name}" for name in frames} <= ids


async def test_every_link_leads_somewhere_and_none_to_others(page: Page, http: httpx.AsyncClient) -> None:
    for link in page.links:
        if link.startswith("#"):
            assert link[1:] in page.ids, link
        elif link != "data:,":
            assert not link.startswith(("http:", "https:", "//"))
            answer = await http.get(httpx.URL(f"{http.base_url}/docs/ws").join(link), follow_redirects=False)
            assert answer.status_code == 200, link


async def test_nothing_in_it_runs_or_is_styled_by_itself(page: Page) -> None:
    assert not page.tags & {"script", "style", "iframe", "img", "object"}
    assert not {name for name in page.attributes if name.startswith("on") or name == "style"}


async def test_fields_are_there_with_type_bounds_default_and_meaning(http: httpx.AsyncClient) -> None:
    english = Page((await http.get("/docs/ws?lang=en")).text).text
    start = english.index("The question", english.index("Ask, and get the answer"))
    assert "string, 1–8,000 characters" in english[start - 60 : start]
    assert 'default "reject"' in english
    chinese_page = Page((await http.get("/docs/ws?lang=zh")).text).text
    for said in MEANINGS["limit"].zh, "字符串, 1–8,000 个字符", chinese.SUMMARIES["chat"], "等正在进行的回答结束":
        assert said in chinese_page, said


def test_every_message_and_frame_has_its_words_in_chinese() -> None:
    assert set(chinese.SUMMARIES) == set(OPERATIONS)
    assert {name for name, one in OPERATIONS.items() if one.request.__doc__} - {"ping"} == set(chinese.ABOUTS)


@pytest.mark.parametrize(
    ("accepts", "lang"),
    [
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh-CN"),
        ("fr,en;q=0.5,zh;q=0.9", "zh-CN"),
        ("de", "en"),
        ("*;q=x", "en"),
        ("", "en"),
    ],
)
async def test_it_speaks_the_first_language_of_the_browser_that_it_has(
    http: httpx.AsyncClient, accepts: str, lang: str
) -> None:
    answer = await http.get("/docs/ws", headers={"Accept-Language": accepts})
    assert Page(answer.text).lang == lang
    assert answer.headers["vary"] == "Accept-Language"
    again = {"Accept-Language": accepts, "If-None-Match": answer.headers["etag"]}
    assert (await http.get("/docs/ws", headers=again)).status_code == 304


def test_what_is_text_is_never_markup() -> None:
    assert tag("p", "<b>", title='"') == '<p title="&quot;">&lt;b&gt;</p>'
    assert prose("`<i>` & co") == "<code>&lt;i&gt;</code> &amp; co"
    assert "<script>" not in json_block({"<script>": ["</script>", 1, True, None]})


def test_json_is_coloured_by_what_it_is() -> None:
    text = '{"a": "b: 1", "c\\"d": [-1.5e3, true, null]}'
    kinds = [part.split('"')[0] for part in coloured(text).split('class="j-')[1:]]
    assert kinds == ["key", "string", "key", "number", "word", "word"]
    assert Page(coloured(text)).text == text
