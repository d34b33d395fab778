"""`/llms.txt`, for those who let a model write their client: what this is, the socket's rules in 60 lines, documents.

The form is that of llmstxt.org. There is no copy of it in the repository: it is made from the declarations, served, and
written by `run.py contract`.
"""

import json
from collections.abc import Iterable, Mapping

from protocol.envelope import MAX_MESSAGE_BYTES
from protocol.errors import CLOSE_CODES
from protocol.operation import AnyOperation
from protocol.session import Limits
from protocol.unasked import UNASKED, Connected
from wsserver.contract.examples import request_example

RULES = """\
1. Open `ws://HOST/wechat/ws` (over TLS `wss`). Wait for `{{"type":"connected",…}}`; it has `server.ping_interval_s`.
2. Send text frames only: one JSON object each, UTF-8, at most {max_bytes} bytes, a key at most once.
3. Within {login_s} s send `{{"type":"login","code":"<code from wx.login>"}}`; a development server takes any code. Keep
   `data.token` of the `login_response`. On later connections send `{{"type":"auth","token":"…"}}` instead, and keep the
   new token. If that is refused with `code` 401, forget the token and log in. A token never goes into the address.
   Until then only `ping`, `login` and `auth` are taken.
4. `code` 0 in a reply means success, anything else is an error. A failed login has the type of its own reply.
5. Give each message an `id` of its own (1 to 64 characters, random). Every answer to it has the same `id`. Replies come
   in any order: match by `id`, never by order.
6. Ignore keys, types and reasons that you do not know. Switch on `reason`, show `message`.
7. Send `{{"type":"ping"}}` every {ping_s} s. If nothing at all came for three times that, leave the socket and
   reconnect. After {silence_s} s of silence the server closes it.
8. Ask with `{{"type":"chat","id":"…","query":"…","stream":true}}`. First comes `chat_processing`: keep
   `data.request_id`. Then frames with `request_id` and `seq`: `chunk` (append `content`), at most one
   `recommendations` and one `watchlist`, last `complete` or `error`. Nothing comes after those two.
9. `seq` begins at 1 and grows by one. Drop a frame whose `seq` you have. At a gap do not go on: `resume`.
10. `restart`: clear the text of that answer; `seq` may jump here and only here. `retract`: clear it too; an `error`
    follows. `complete.answer` is the whole text. Show that a machine made it (`aigc`).
11. Without `stream` there is one `chat_response` with `data.msg` after `chat_processing`.
12. An answer belongs to the server: it goes on when the socket is gone. After a reconnect and a login send
    `{{"type":"resume","request_id":"…","after_seq":<last seq>}}` for every answer that has not ended.
    `recovered: true`: the missing frames follow. `recovered: false`: `data.message` is what was stored; show it, no
    frames follow.
13. No `chat_processing` when the socket was lost? Send the same `chat` with the same `id`: within 24 h it leads to the
    same answer and is asked once. Never resend under a new `id` by yourself.
14. Errors before `chat_processing`: `retryable: true` means wait `retry_after_ms` (1 s when null), send the same again.
    After it, the answer has ended: let the user ask again, with a new `id`. `retryable: false`: do not repeat it.
15. Reconnect with back-off: 1 s, doubling to 30 s, each times a random 0.5 to 1; begin anew after a login. `goodbye`
    says `retry_after_ms`: wait at least that long. Any node will do.
16. At most {rate} messages a second, {burst} at once, {in_flight} unanswered.
17. Where sockets are not to be had: `POST /api/v1/messages` takes any of the messages, with
    `Authorization: Bearer <token>`; with `Accept: text/event-stream` a chat comes as server-sent events, whose `data`
    are the same frames. Resume with `GET /api/v1/streams/{{request_id}}` and `Last-Event-ID`. Ignore lines that begin
    with a colon.
18. `conversation_updated` may come at any time and says what became of a conversation: show it, or ask for it anew.
19. Without a token, over HTTP only, the caller is a guest of the name in `X-User-ID`. The `guest_secret` of its first
    answer makes its conversations a user's: `adopt_guest`.
"""

DOCUMENTS = """\
- [AsyncAPI 3.0](/asyncapi.json): every message of the socket with its schema, examples, errors and close codes
- [Reference of the socket](/docs/ws): the same to read
- [OpenAPI 3.1](/openapi.json): every HTTP route
- [HTTP reference](/docs): the same to read and try
"""


def llms(operations: Mapping[str, AnyOperation]) -> str:
    """The text. Raises MissingExampleError for a declaration without an example."""
    limits = Limits()
    facts = next(noun for noun in UNASKED if isinstance(noun, Connected)).server
    rules = RULES.format(
        max_bytes=MAX_MESSAGE_BYTES,
        login_s=f"{limits.login_deadline_s:g}",
        ping_s=facts.ping_interval_s,
        silence_s=f"{limits.silence_s:g}",
        rate=f"{limits.messages_per_s:g}",
        burst=limits.burst,
        in_flight=limits.in_flight,
    )
    return (
        "# CineWire\n\n"
        "> One WebSocket that carries a whole AI cinema app: login, chat with answers that stream, films, watchlists.\n"
        "\n"
        f"## Rules of the socket\n\n{rules}\n"
        f"## When it is closed\n\n{_lines(_closes())}\n"
        "## Messages\n\nThe reply to `x` is `x_response` unless it says otherwise.\n\n"
        f"{_lines(_messages(operations))}\n"
        f"## Documents\n\n{DOCUMENTS}"
    )


def _closes() -> Iterable[str]:
    for close in CLOSE_CODES.values():
        yield f"- {close.code}, {close.reason}: {close.advice}"


def _messages(operations: Mapping[str, AnyOperation]) -> Iterable[str]:
    for operation in operations.values():
        example = json.dumps(request_example(operation), ensure_ascii=False, separators=(",", ":"))
        reply = "" if operation.reply_type == f"{operation.name}_response" else f" (`{operation.reply_type}`)"
        yield f"- `{example}`{reply}: {operation.summary}"


def _lines(items: Iterable[str]) -> str:
    return "".join(f"{item}\n" for item in items)
