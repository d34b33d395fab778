"""What a reader looks for in the AsyncAPI document: each message of a client with what answers it, each once."""

from collections.abc import Iterator, Mapping
from functools import cached_property

from protocol.unasked import UNASKED
from wsserver.contract.asyncapi import SOCKETS
from wsserver.contract.fields import target
from wsserver.contract.schemas import Json


class Reading:
    """The document, by what it describes. The two sockets say the same, so only the first is looked at."""

    def __init__(self, document: Json) -> None:
        self.messages: Mapping[str, Json] = document["components"]["messages"]
        self.schemas: Mapping[str, Json] = document["components"]["schemas"]
        first = f"#/channels/{next(iter(SOCKETS))}"
        here = [one for one in document["operations"].values() if one["channel"]["$ref"] == first]
        self.operations: Mapping[str, Json] = {str(one["title"]): one for one in here if one["action"] == "receive"}
        """What clients send, by the names of the operations."""

    def request(self, name: str) -> Json:
        """The client's message of an operation."""
        (reference,) = self.operations[name]["messages"]
        return self._message(reference)

    def answers(self, name: str) -> Iterator[Json]:
        """What may answer it, except that it failed: first what comes first."""
        failed = self.failed(name)
        for reference in self.operations[name]["reply"]["messages"]:
            if (message := self._message(reference)) is not failed:
                yield message

    def failed(self, name: str) -> Json:
        """The message that says why not."""
        described: Json = self.messages[f"{name}_failed"]
        return described

    def domains(self, known: Mapping[str, str]) -> Mapping[str, list[str]]:
        """The names of the operations by their subjects, the known ones first."""
        found: dict[str, list[str]] = {name: [] for name in known}
        for name, operation in self.operations.items():
            found.setdefault(operation["tags"][0]["name"], []).append(name)
        return {name: names for name, names in found.items() if names}

    def is_frame(self, message: Json) -> bool:
        """Whether it is one of many that a run sends."""
        schema = self.schemas.get(target(message["payload"]) or "", {})
        return "seq" in schema.get("required", [])

    @cached_property
    def frames(self) -> Mapping[str, Json]:
        """The frames of a run by their types, the one that ends it last."""
        found = {one["name"]: one for name in self.operations for one in self.answers(name) if self.is_frame(one)}
        return dict(sorted(found.items(), key=lambda item: item[0] == "complete"))

    @cached_property
    def unasked(self) -> Mapping[str, Json]:
        """What the server says by itself, by its types."""
        described = [self.messages[type(noun).__name__] for noun in UNASKED]
        return {str(message["name"]): message for message in described}

    @cached_property
    def common_reasons(self) -> list[str]:
        """What every message may fail with."""
        each = [reasons_of(self.failed(name)) for name in self.operations]
        return [reason for reason in each[0] if all(reason in reasons for reasons in each)]

    def _message(self, reference: Json) -> Json:
        message: Json = self.messages[str(reference["$ref"]).rsplit("/", 1)[1]]
        return message


def reasons_of(failure: Json) -> list[str]:
    """The reasons that a failure may have."""
    return list(failure["payload"]["allOf"][1]["properties"]["reason"]["enum"])


def example_of(message: Json, name: str | None = None) -> Json:
    """A copy of a message's example: its first, or the one of that name."""
    examples = (one for one in message["examples"] if name is None or one["name"] == name)
    return dict(next(examples)["payload"])
