"""WeChat checks what its users say and are told: the question before the model is asked, the answer beside its making.

Checked is who logged in with WeChat; guests and local logins are not. A question that is refused stays stored as it
was asked. An answer is checked in pieces while it streams: no check holds the stream up, and the answer's end waits
for the last of them. How WeChat is asked is `vendors/wechat_safety.py`'s; what is stored and sent, `answering.py`'s.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from typing import Protocol

import structlog

from protocol.errors import CONTENT_REFUSED, CONTENT_UNCHECKED, INTERNAL, ErrorKind, OperationError
from storage.accounts import Sessions
from wsserver.auth import is_guest
from wsserver.hub import Run, StoppedError
from wsserver.vendors.wechat import LOCAL
from wsserver.vendors.wechat_safety import DEADLINE_S, MAX_CHARACTERS, Verdict

log = structlog.get_logger(__name__)

STEP_CHARACTERS = 200
"""New text that is worth a check: a screen of a phone shows twice that. With 4,000 checks a minute, which WeChat
allows, about 800 answers of usual length can begin in one."""

OVERLAP_CHARACTERS = 500
"""What a piece repeats of the one before it: some sentences, so that nothing is split out of sight. A check costs by
the call and not by its length."""

_BORDER = re.compile(r"[。！？!?；;…\n]|\.(?=\s)")

Spawn = Callable[..., "asyncio.Task[None]"]


class Checks(Protocol):
    """Whoever says what is to be thought of a text."""

    async def check(self, text: str, openid: str) -> Verdict: ...


class Pieces:
    """Cuts a growing text into pieces of at most MAX_CHARACTERS, at the ends of sentences where there are any."""

    def __init__(self) -> None:
        self._text = ""
        self._done = 0

    def add(self, text: str) -> None:
        self._text += text

    def next(self, *, idle: bool = True, ended: bool = False) -> str | None:
        """The next piece that is due: a full one, a smaller one when nothing is being checked, at the end the rest."""
        fresh = len(self._text) - self._done
        full = MAX_CHARACTERS - OVERLAP_CHARACTERS
        if fresh > full or (fresh == full and not ended):
            end = self._border(self._done + full) or self._done + full
        elif ended and fresh:
            end = len(self._text)
        elif idle and fresh >= STEP_CHARACTERS:
            end = self._border(len(self._text)) or (len(self._text) if fresh >= 2 * STEP_CHARACTERS else 0)
        else:
            end = 0
        if not end:
            return None
        piece = self._text[:end]
        kept_from = max(0, end - OVERLAP_CHARACTERS)
        self._text, self._done = self._text[kept_from:], end - kept_from
        return piece

    def _border(self, before: int) -> int:
        """Where the last sentence ends that ends in the new text; 0 when none does."""
        return max((found.end() for found in _BORDER.finditer(self._text, self._done, before)), default=0)


class ContentSafety:
    """What is refused. Texts that WeChat wants a person to look at, and those that could not be checked, are logged."""

    def __init__(self, checks: Checks, sessions: Sessions, *, refuses_review: bool, refuses_unchecked: bool) -> None:
        self._checks = checks
        self._sessions = sessions
        self._refuses_review = refuses_review
        self._refuses_unchecked = refuses_unchecked

    @contextlib.asynccontextmanager
    async def over(self, run: Run, session_id: str, spawn: Spawn) -> AsyncIterator["Watch"]:
        """Watch the making of an answer in the block, which is cut short when something is refused.

        Also when the making was stopped or failed, what there is of it is checked before the block is left, unless
        another node makes it anew. Raises CONTENT_REFUSED, or CONTENT_UNCHECKED where that is refused.
        """
        watch = Watch(self, run, session_id, spawn)
        try:
            try:
                async with watch.making():
                    yield watch
            except StoppedError as stopped:
                if stopped.stop != "handed over":
                    await watch.finish()
                raise
            except OperationError as error:
                if error.kind not in (CONTENT_REFUSED, CONTENT_UNCHECKED):
                    await watch.finish()
                raise
            await watch.finish()
        finally:
            watch.close()

    async def openid(self, user_id: str, session_id: str) -> str | None:
        """Under whom a user's texts are checked, None for whom nothing is. Raises CONTENT_UNCHECKED when unknown."""
        if is_guest(user_id):
            return None
        try:
            async with asyncio.timeout(DEADLINE_S):
                session = await self._sessions.find(session_id)
        except (TimeoutError, OperationError):
            session = None
        # A session that was ended before its answer was begun anew knows nobody any more.
        if session is None or session.user_id != user_id:
            raise OperationError(CONTENT_UNCHECKED)
        return None if session.openid.startswith(LOCAL) else session.openid

    def unchecked(self, run: Run, what: str, reason: str) -> ErrorKind | None:
        """What becomes of a text that could not be checked."""
        log.warning("content is unchecked", request_id=run.request_id, what=what, reason=reason)
        return CONTENT_UNCHECKED if self._refuses_unchecked else None

    async def judge(self, run: Run, what: str, text: str, openid: str) -> ErrorKind | None:
        """Why the text is refused, None when it may be shown."""
        try:
            verdict = await self._checks.check(text, openid)
        except OperationError as error:
            return self.unchecked(run, what, error.kind.reason)
        if verdict is Verdict.PASS:
            return None
        refused = verdict is Verdict.RISKY or self._refuses_review
        log.warning("content is not safe", request_id=run.request_id, what=what, verdict=verdict.value, refused=refused)
        return CONTENT_REFUSED if refused else None


class Watch:
    """One run under check: its question, then the pieces of its answer."""

    def __init__(self, safety: ContentSafety, run: Run, session_id: str, spawn: Spawn) -> None:
        self._safety = safety
        self._run = run
        self._session_id = session_id
        self._spawn = spawn
        self._openid: str | None = None
        self._pieces = Pieces()
        self._checks: set[asyncio.Task[None]] = set()
        self._refused: ErrorKind | None = None
        self._making: asyncio.Timeout | None = None

    @contextlib.asynccontextmanager
    async def making(self) -> AsyncIterator[None]:
        """The part that a refusal cuts short."""
        self._making = making = asyncio.timeout(None)
        try:
            async with making:
                yield
        except TimeoutError:
            if not making.expired():
                raise
        finally:
            self._making = None

    async def question(self, query: str) -> None:
        """Check what is asked. Raises CONTENT_REFUSED or CONTENT_UNCHECKED."""
        try:
            self._openid = openid = await self._safety.openid(self._run.user_id, self._session_id)
        except OperationError as error:
            if refused := self._safety.unchecked(self._run, "session", error.kind.reason):
                raise OperationError(refused) from None
            return
        if openid is None:
            return
        pieces = Pieces()
        pieces.add(query)
        checks = []
        while (piece := pieces.next(ended=True)) is not None:
            checks.append(self._safety.judge(self._run, "question", piece, openid))
        refusals = [refused for refused in await asyncio.gather(*checks) if refused is not None]
        if refusals:
            raise OperationError(CONTENT_REFUSED if CONTENT_REFUSED in refusals else refusals[0])

    def add(self, text: str) -> None:
        """More of the answer, which is shown already."""
        if self._openid is not None and self._refused is None:
            self._pieces.add(text)
            self._begin_checks()

    async def finish(self) -> None:
        """Check what is left, and wait for all checks, which have their deadlines. Raises as `question`."""
        if self._refused is None:
            self._begin_checks(ended=True)
        while self._checks and self._refused is None:
            await asyncio.wait(self._checks, return_when=asyncio.FIRST_COMPLETED)
        if self._refused is not None:
            raise OperationError(self._refused)

    def close(self) -> None:
        """Give up what is still being checked."""
        for check in self._checks:
            check.cancel()

    def _begin_checks(self, *, ended: bool = False) -> None:
        while (piece := self._pieces.next(idle=not self._checks, ended=ended)) is not None:
            check = self._spawn(self._check(piece), name=f"check of {self._run.request_id}")
            self._checks.add(check)
            check.add_done_callback(self._checked)

    async def _check(self, piece: str) -> None:
        assert self._openid is not None  # noqa: S101 (nothing is added for nobody)
        self._refuse(await self._safety.judge(self._run, "answer", piece, self._openid))

    def _checked(self, check: "asyncio.Task[None]") -> None:
        self._checks.discard(check)
        if check.cancelled():
            return
        if check.exception() is not None:
            self._refuse(self._safety.unchecked(self._run, "answer", INTERNAL.reason))
        if self._making is not None and self._refused is None:
            # What came meanwhile need not wait for what comes next.
            self._begin_checks()

    def _refuse(self, refused: ErrorKind | None) -> None:
        if refused is not None and self._refused is None:
            self._refused = refused
            if self._making is not None:
                self._making.reschedule(asyncio.get_running_loop().time())
