"""The page at `/docs/ws`: the AsyncAPI document for people to read, in English or Chinese, without a script.

Everything that it says of messages, errors and close codes comes from the document and the declarations. How it looks
is in `static/reference.css`; how it is served in `pages.py`.
"""

from collections.abc import Iterator, Mapping

from protocol.errors import CLOSE_CODES, ERRORS
from protocol.session import Limits
from protocol.unasked import UNASKED, Connected
from wsserver.contract import chinese
from wsserver.contract.advice import after_error, of_close
from wsserver.contract.asyncapi import SOCKETS
from wsserver.contract.fields import FieldRow, fields_of, target, type_of
from wsserver.contract.markup import (
    Markup,
    code,
    escaped,
    joined,
    json_block,
    json_line,
    link,
    paragraphs,
    prose,
    table,
    tag,
)
from wsserver.contract.meanings import Said, meaning
from wsserver.contract.reading import Reading, example_of, reasons_of
from wsserver.contract.reference_words import LANGUAGES, Language, Words
from wsserver.contract.schemas import Json

EVERY_MESSAGE = ("type", "id")
"""Fields that are explained once and for all."""

EVERY_FRAME = (*EVERY_MESSAGE, "code", "message", "request_id", "seq")

OPENED = ("data", "content")
"""Fields whose own fields stand in the same table."""


def reference(document: Json, language: Language, style: str) -> str:
    """The page, from the AsyncAPI document. `style` is the address of its style sheet."""
    return _Page(document, LANGUAGES[language]).html(style)


class _Page:
    def __init__(self, document: Json, words: Words) -> None:
        self._words = words
        self._read = Reading(document)
        self._schemas = self._read.schemas
        self._types: dict[str, None] = {}
        """The schemas that were referred to, in the order in which they were."""

    def html(self, style: str) -> str:
        words = self._words
        # The types come last: only then it is known which were referred to.
        sections = [
            self._connect(),
            self._talk(),
            self._shapes(),
            tag("div", *(self._domain(*each) for each in self._read.domains(words.domains).items()), id="messages"),
            self._frames(),
            self._unasked(),
            self._all_types(),
            self._errors(),
            self._closes(),
        ]
        head = tag(
            "head",
            Markup('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
            Markup('<meta name="color-scheme" content="light dark">'),
            tag("title", f"CineWire · {words.title}"),
            Markup('<link rel="icon" href="data:,">'),
            Markup(f'<link rel="stylesheet" href="{escaped(style)}">'),
        )
        body = tag(
            "body",
            link("#messages", words.skip, class_="skip"),
            self._top(),
            tag("div", self._navigation(), tag("main", *sections), class_="layout"),
        )
        return "<!doctype html>\n" + tag("html", head, body, lang=words.html_lang)

    # ---- around the sections ----

    def _top(self) -> Markup:
        words = self._words
        other = "zh" if words.language == "en" else "en"
        documents = [("../asyncapi.json", "AsyncAPI"), ("../docs", "HTTP"), ("../llms.txt", "llms.txt")]
        return tag(
            "header",
            tag("p", tag("b", "CineWire"), " ", words.title, class_="brand"),
            tag("nav", *(link(*one) for one in documents), aria_label=words.documents, class_="documents"),
            tag("a", words.other_language, href=f"?lang={other}", lang=LANGUAGES[other].html_lang, class_="language"),
            class_="top",
        )

    def _navigation(self) -> Markup:
        words = self._words
        groups: list[Markup] = []
        for anchor, title in (("connect", words.connect), ("talk", words.talk), ("shapes", words.shapes)):
            groups.append(tag("li", link(f"#{anchor}", title)))
        for domain, names in self._read.domains(words.domains).items():
            inner = tag("ul", *(tag("li", link(f"#{name}", code(name))) for name in names))
            groups.append(tag("li", link(f"#domain-{domain}", words.domains.get(domain, domain)), inner))
        frames = tag("ul", *(tag("li", link(f"#frame-{name}", code(name))) for name in (*self._read.frames, "error")))
        groups.append(tag("li", link("#frames", words.frames), frames))
        said = tag("ul", *(tag("li", link(f"#frame-{name}", code(name))) for name in self._read.unasked))
        groups.append(tag("li", link("#unasked", words.unasked), said))
        for anchor, title in (("types", words.types), ("errors", words.errors), ("closes", words.closes)):
            groups.append(tag("li", link(f"#{anchor}", title)))
        return tag(
            "nav",
            # A check box opens the list on narrow screens: no script is needed for it.
            Markup('<input type="checkbox" id="menu">'),
            tag("label", words.contents, for_="menu"),
            tag("ul", *groups, class_="contents"),
            aria_label=words.contents,
            class_="side",
        )

    def _section(self, anchor: str, title: str, about: str, *children: str) -> Markup:
        return tag("section", tag("h2", link(f"#{anchor}", title)), paragraphs(about), *children, id=anchor)

    # ---- pieces ----

    def _said(self, said: Said) -> str:
        return said.zh if self._words.language == "zh" else said.en

    def _in_chinese(self, texts: Mapping[str, str], name: str, english: str) -> str:
        return texts.get(name, english) if self._words.language == "zh" else english

    def _refer(self, name: str) -> str:
        self._types.setdefault(name)
        return f"#type-{name}"

    def _table(self, rows: list[tuple[str, FieldRow]], *, sent: bool = False) -> Markup:
        """A table of fields; `sent` by the client, which must know what it may leave out."""
        words = self._words
        cells = []
        for prefix, row in rows:
            need = (words.required if row.required else words.optional) if sent else words.sometimes
            note = [" ", tag("span", need, class_="need")] if sent or not row.required else []
            name = joined((code(prefix + row.name), *note))
            type_ = type_of(row.schema, words, self._refer)
            if row.default is not None:
                value = json_line(row.default)
                type_ = joined((type_, tag("span", words.default, " ", value, class_="default")))
            means = meaning(row.owner, row.name)
            cells.append((name, type_, prose(self._said(means)) if means else ""))
        return table((words.field, words.type_, words.meaning), cells, "fields")

    def _rows(self, schema_name: str, without: tuple[str, ...] = ()) -> list[tuple[str, FieldRow]]:
        rows: list[tuple[str, FieldRow]] = []
        for row in fields_of(schema_name, self._schemas[schema_name]):
            if row.name in without:
                continue
            inner = target(row.schema)
            if row.name in OPENED and inner is not None:
                opened = fields_of(inner, self._schemas[inner])
                rows += [(f"{row.name}.", one) for one in opened]
            else:
                rows.append(("", row))
        return rows

    def _reply(self, message: Json) -> Markup:
        """The fields of what the server says, without those that every frame has."""
        rows = self._rows(target(message["payload"]) or "", EVERY_FRAME)
        if all(row.schema.get("type") == "null" for _, row in rows):
            return tag("p", prose(self._words.no_data), class_="nothing")
        return self._table(rows)

    def _example(self, who: str, payload: Json) -> Markup:
        return tag("figure", tag("figcaption", who), json_block(payload), class_="example")

    def _chips(self, reasons: list[str]) -> Markup:
        return joined((link(f"#error-{reason}", code(reason), class_="chip") for reason in reasons), " ")

    # ---- sections ----

    def _connect(self) -> Markup:
        words, limits = self._words, Limits()
        facts = next(noun for noun in UNASKED if isinstance(noun, Connected)).server
        size = words.size_about.format(bytes=f"{facts.max_message_bytes:,}")
        beat = words.heartbeat_about.format(ping=facts.ping_interval_s, silence=f"{limits.silence_s:g}")
        addresses = joined((code(f"ws://…{address}") for address in SOCKETS.values()), words.or_)
        facts_of = [
            (words.addresses, joined((addresses, words.over_tls))),
            (words.subprotocol, joined((code("cinewire.v1"), " ", words.optional_subprotocol))),
            (words.bearer, joined((code("Authorization: Bearer …"), " ", prose(words.bearer_about)))),
            (words.login_within, prose(words.login_about.format(login=f"{limits.login_deadline_s:g}"))),
            (words.heartbeat, prose(beat)),
            (words.size, prose(size)),
        ]
        facts_list = tag("dl", *(joined((tag("dt", name), tag("dd", said))) for name, said in facts_of))
        return tag(
            "section",
            tag("h1", words.title),
            tag("p", words.about, class_="lead"),
            tag("h2", link("#connect", words.connect)),
            tag("p", words.connect_about),
            facts_list,
            id="connect",
        )

    def _talk(self) -> Markup:
        read = self._read
        frames = [example_of(read.frames[name]) for name in ("chunk", "recommendations", "complete")]
        for seq, frame in enumerate(frames, 1):
            frame |= {"seq": seq, "id": example_of(read.request("chat"))["id"]}
        frames[0]["content"] = frames[-1]["answer"]
        lines = [("server", example_of(read.unasked["connected"]))]
        for name in ("login", "chat"):
            lines.append(("client", example_of(read.request(name))))
            lines.append(("server", example_of(next(read.answers(name)))))
        lines += [("server", frame) for frame in frames]
        items = (tag("li", json_line(frame), class_=who) for who, frame in lines)
        return self._section("talk", self._words.talk, self._words.talk_about, tag("ol", *items, class_="talk"))

    def _shapes(self) -> Markup:
        words = self._words
        envelope = [("", row) for row in fields_of("CancelResponseFrame", self._schemas["CancelResponseFrame"])]
        frame = [("", row) for row in fields_of("ChunkFrame", self._schemas["ChunkFrame"])]
        error = [("", row) for row in fields_of("ErrorFrame", self._schemas["ErrorFrame"])]
        always = tag("p", words.any_may_fail, " ", self._chips(self._read.common_reasons), id="always")
        shapes = (
            (words.reply_shape, envelope, example_of(self._read.messages["CancelResponseFrame"])),
            (words.frame_shape, frame, example_of(self._read.frames["chunk"])),
            (words.error_shape, error, example_of(self._read.messages["refused"], "rate_limited")),
        )
        return self._section(
            "shapes",
            words.shapes,
            words.shapes_about,
            *(self._article(None, tag("h3", title), self._table(rows), [("", said)]) for title, rows, said in shapes),
            always,
        )

    def _article(self, anchor: str | None, title: str, text: str, examples: list[tuple[str, Json]]) -> Markup:
        said = joined(self._example(who, payload) for who, payload in examples)
        return tag(
            "article",
            tag("div", title, text, class_="text"),
            tag("div", said, class_="examples"),
            id=anchor,
        )

    def _domain(self, domain: str, names: list[str]) -> Markup:
        title = self._words.domains.get(domain, domain)
        articles = (self._operation(name) for name in names)
        return self._section(f"domain-{domain}", title, "", *articles)

    def _operation(self, name: str) -> Markup:
        words, read, described = self._words, self._read, self._read.operations[name]
        about, _, access = described["description"].rpartition("\n\n")
        rows = self._rows(target(read.request(name)["payload"]) or "", EVERY_MESSAGE)
        frames = [one["name"] for one in read.answers(name) if read.is_frame(one)]
        replies = [one for one in read.answers(name) if not read.is_frame(one)]
        text = joined(
            (
                tag("p", prose(self._in_chinese(chinese.SUMMARIES, name, described["summary"])), class_="summary"),
                self._badges(access, bool(frames)),
                paragraphs(self._in_chinese(chinese.ABOUTS, name, about)),
                tag("h4", words.you_send),
                self._table(rows, sent=True) if rows else tag("p", prose(words.no_fields), class_="nothing"),
                tag("h4", words.you_get),
                *self._replies(name, replies, frames),
                tag("h4", words.fails_with),
                self._failures(name),
            )
        )
        heading = tag("h3", link(f"#{name}", code(name)))
        examples = [(words.client, example_of(read.request(name)))]
        examples += [(words.server, example_of(message)) for message in replies]
        return self._article(name, heading, text, examples)

    def _badges(self, access: str, streams: bool) -> Markup:
        words = self._words
        before = access.startswith("Also")
        badges = [tag("span", words.before_login if before else words.after_login, class_="badge")]
        if streams:
            badges.append(tag("span", words.streams, class_="badge streams"))
        return tag("p", *badges, class_="badges")

    def _replies(self, name: str, replies: list[Json], frames: list[str]) -> Iterator[Markup]:
        words = self._words
        for number, message in enumerate(replies):
            note = Markup()
            if frames and number:
                note = joined((" ", tag("small", prose(words.whole))))
            yield tag("p", code(message["name"]), note, class_="answer")
            yield self._reply(message)
            if frames and number == 0:
                chips = joined((link(f"#frame-{one}", code(one), class_="chip") for one in frames), " ")
                then = words.resumed_frames if name == "resume" else words.then_frames
                yield tag("p", prose(then), " ", chips, " ", link("#frame-error", code("error"), class_="chip"))

    def _failures(self, name: str) -> Markup:
        message = self._read.failed(name)
        own = [reason for reason in reasons_of(message) if reason not in self._read.common_reasons]
        parts: list[str] = [self._chips(own), " "] if own else []
        parts.append(link("#always", self._words.also_always if own else self._words.always, class_="always"))
        if message["name"] != "error":
            parts = [code(message["name"]), " · ", *parts]
        return tag("p", *parts)

    def _frames(self) -> Markup:
        words, frames = self._words, self._read.frames
        articles = [self._server_message(name, message) for name, message in frames.items()]
        # The last frame of a run says of which it is; a refusal, which the document shows, has none.
        complete = example_of(frames["complete"])
        error = example_of(self._read.failed("chat"), "model_interrupted")
        error |= {"request_id": complete["request_id"], "seq": complete["seq"]}
        heading = tag("h3", link("#frame-error", code("error")))
        about = paragraphs(self._in_chinese(chinese.FRAMES, "error", self._schemas["ErrorFrame"]["description"]))
        rows = [("", row) for row in fields_of("ErrorFrame", self._schemas["ErrorFrame"])]
        articles.append(self._article("frame-error", heading, joined((about, self._table(rows))), [("", error)]))
        return self._section("frames", words.frames, words.frames_about, *articles)

    def _unasked(self) -> Markup:
        articles = (self._server_message(name, message) for name, message in self._read.unasked.items())
        return self._section("unasked", self._words.unasked, self._words.unasked_about, *articles)

    def _server_message(self, name: str, message: Json) -> Markup:
        heading = tag("h3", link(f"#frame-{name}", code(name)))
        about = paragraphs(self._in_chinese(chinese.FRAMES, name, message["summary"]))
        return self._article(
            f"frame-{name}", heading, joined((about, self._reply(message))), [("", example_of(message))]
        )

    def _all_types(self) -> Markup:
        shown: list[Markup] = []
        done: set[str] = set()
        # A type that is shown may refer to others.
        while missing := [name for name in self._types if name not in done]:
            for name in missing:
                done.add(name)
                schema = self._schemas[name]
                rows = [("", row) for row in fields_of(name, schema)]
                heading = tag("h3", link(f"#type-{name}", code(name)))
                shown.append(tag("div", heading, self._table(rows), id=f"type-{name}", class_="type"))
        return self._section("types", self._words.types, self._words.types_about, *shown)

    def _errors(self) -> Markup:
        words = self._words
        rows = []
        for kind in ERRORS.values():
            name = tag("span", code(kind.reason), id=f"error-{kind.reason}")
            again = [tag("span", words.retryable, class_="badge again")] if kind.retryable else []
            rows.append(
                (joined((name, *again), " "), str(kind.code), kind.message, prose(self._said(after_error(kind))))
            )
        heads = (words.reason, words.code, words.shown, words.do)
        return self._section("errors", words.errors, words.errors_about, table(heads, rows, "errors"))

    def _closes(self) -> Markup:
        words = self._words
        rows = []
        for number in CLOSE_CODES:
            because, advice = of_close(number)
            name = tag("span", code(str(number)), id=f"close-{number}")
            rows.append((name, prose(self._said(because)), prose(self._said(advice))))
        heads = (words.code, words.because, words.do)
        return self._section("closes", words.closes, words.closes_about, table(heads, rows, "closes"))
