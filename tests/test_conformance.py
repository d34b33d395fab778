"""Clients keep the rules of `docs/conformance.yaml`, and the plays there find out who does not."""

import asyncio
import secrets
from collections.abc import Callable
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from protocol.errors import CLOSE_CODES
from tests.clients import PATIENCE_S
from tests.conformance.adapter import Adapter, Device
from tests.conformance.example_client import ExampleAdapter
from tests.conformance.http_stage import HttpStage
from tests.conformance.miniprogram import MiniProgramAdapter
from tests.conformance.python_client import SILENCE_S, Phone, PythonAdapter
from tests.conformance.rules import RULES_FILE, Rule, rules
from tests.conformance.stage import Stage
from tests.faults.answer import Answer, Frame
from tests.parts import INSTALL_S, PARTS, RAN, node_with

RULES = {rule.id: rule for rule in rules()}

PART = "conformance (Node)"
PHONE = Path(__file__).parent / "miniprogram"
"""Where the packages are that a phone made of Node needs."""


def _mini_program() -> Adapter:
    node = node_with(PART, PHONE)
    PARTS[PART] = RAN
    return MiniProgramAdapter(node)


ADAPTERS: dict[str, Callable[[], Adapter]] = {
    "tests/faults/client.py": PythonAdapter,
    "examples/client.py": ExampleAdapter,
    "examples/miniprogram/cinewire.js": _mini_program,
}
"""Each client that must keep the rules, and what makes its adapter, or leaves it out where that cannot be had."""

WITHOUT_SOCKETS = ["examples/miniprogram/cinewire.js"]
"""Those that take to HTTP; the others have nothing but sockets."""

NOT_PLAYED = {1000, 1009}
"""After the one a client does as it likes; the other follows a message that a client must never send."""

LOOK_S = 0.01
"""How often it is looked whether a client has come to where it must come."""


async def played(rule: Rule, adapter: Adapter, patience_s: float = PATIENCE_S) -> list[str]:
    """What the client did wrong."""
    stage = HttpStage(rule) if rule.requests else Stage(rule)
    async with stage.open() as url, adapter.open(url) as device:
        stage.device = device
        for question in rule.questions:
            await device.ask(question)
        try:
            async with asyncio.timeout(patience_s):
                await stage.over.wait()
                while not stage.wrong and await differences(rule, device):
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            return stage.wrong or await differences(rule, device) or ["it did not come to the end of the play"]
        return stage.wrong


async def differences(rule: Rule, device: Device) -> list[str]:
    """What is not yet, or never, as the rule ends."""
    found = []
    stopped = await device.stopped()
    if stopped != rule.stops and rule.stops:
        found.append("it did not stop")
    for question, ends in rule.ends.items():
        if question == "stopped":
            continue
        shown = await device.shown(question)
        wanted = ends.get("shown", shown.text)
        if shown.text not in (wanted if isinstance(wanted, list) else [wanted]):
            found.append(f"{question}: it shows {shown.text!r}")
        end = ends.get("end", shown.end)
        if shown.end not in (end if isinstance(end, list) else [end]):
            found.append(f"{question}: it ended with {shown.end}")
    return found


@pytest.fixture(scope="module", params=ADAPTERS)
def adapter(request: pytest.FixtureRequest) -> Adapter:
    return ADAPTERS[request.param]()


@pytest.mark.timeout(INSTALL_S + 60)
@pytest.mark.parametrize("rule", [rule for rule in RULES.values() if rule.play], ids=lambda rule: rule.id)
async def test_a_client_keeps_a_rule(adapter: Adapter, rule: Rule) -> None:
    assert await played(rule, adapter) == [], f"{rule.level}: {rule.then}"


@pytest.mark.timeout(INSTALL_S + 60)
@pytest.mark.parametrize("adapter", WITHOUT_SOCKETS, indirect=True)
@pytest.mark.parametrize("rule", [rule for rule in RULES.values() if rule.requests], ids=lambda rule: rule.id)
async def test_a_client_keeps_a_rule_where_sockets_are_not_to_be_had(adapter: Adapter, rule: Rule) -> None:
    assert await played(rule, adapter) == [], f"{rule.level}: {rule.then}"


# ---- the rules themselves ----


def test_each_rule_has_a_name_of_its_own_and_both_guides_speak_of_it() -> None:
    assert len(RULES) == len(rules())
    guides = sorted(RULES_FILE.parent.glob("clients*.md"))
    assert [guide.name for guide in guides] == ["clients.md", "clients.zh-CN.md"]
    for guide in guides:
        text = guide.read_text("utf-8")
        assert [rule for rule in RULES if f"`{rule}`" not in text] == [], guide.name


def test_there_is_a_rule_for_each_close_code() -> None:
    spoken_of = {int(rule.removeprefix("after-")) for rule in RULES if rule.startswith("after-")}
    assert spoken_of == set(CLOSE_CODES) - NOT_PLAYED


# ---- the plays find out who does not keep them ----


class Forgetful(Phone):
    """It asks anew, whatever it has, and does not know its token."""

    def _go_on(self, answer: Answer) -> None:
        answer.request_id = None
        answer.message["id"] = answer.id = secrets.token_hex(8)
        super()._go_on(answer)

    async def _log_in(self, socket: ClientConnection) -> None:
        self.token = None
        await super()._log_in(socket)


class Credulous(Phone):
    """It shows whatever comes."""

    def _take(self, frame: Frame) -> None:
        for answer in self.answers.values():
            if frame["type"] == "chunk":
                answer.text.append(frame["content"])
            elif frame["type"] in ("complete", "error"):
                answer.end = frame


class Stubborn(Phone):
    """It comes back whatever it is told, with the token that it has, and at once."""

    def _count_close(self, closed: ConnectionClosed) -> None:
        """Nothing of it counts."""

    async def _stay(self) -> None:
        while True:
            await self._connect_and_talk()
            self.waits_s.append(0.0)


class Silent(Phone):
    """It says nothing by itself."""

    async def _watch(self, socket: ClientConnection) -> None:
        """Nothing is looked at."""


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        (Forgetful, "same-id-again"),
        (Forgetful, "resume-from-last-seq"),
        (Forgetful, "token-again"),
        (Credulous, "answers-side-by-side"),
        (Credulous, "no-text-after-a-gap"),
        (Credulous, "no-piece-twice"),
        (Credulous, "restart-drops-the-text"),
        (Credulous, "retract-takes-back"),
        (Stubborn, "goodbye-says-when"),
        (Stubborn, "back-off-grows"),
        (Stubborn, "after-4002"),
        (Stubborn, "after-4003"),
        (Stubborn, "after-4008"),
        (Silent, "ping-in-silence"),
        (Silent, "leave-a-silent-socket"),
    ],
)
async def test_a_client_that_breaks_a_rule_is_found_out(kind: type[Phone], rule: str) -> None:
    # Who keeps them needs less time than this.
    patience_s = 2 * SILENCE_S + 1 if kind is Silent else 2.0
    assert await played(RULES[rule], PythonAdapter(kind), patience_s=patience_s)
