"""One question on its way to its answer, as a client keeps it, and the promises that every frame of it is held to."""

import time
from dataclasses import dataclass, field
from typing import Any

Frame = dict[str, Any]

STREAMED = frozenset({"status", "chunk", "recommendations", "watchlist", "restart", "retract", "complete", "error"})


class BrokenPromiseError(AssertionError):
    """The server did what the wire contract says it never does."""


@dataclass(slots=True)
class Broken:
    """How often frames were not what they must be. A test fails on the first; the counts say what it was."""

    lost: int = 0
    doubled: int = 0
    reordered: int = 0


@dataclass(slots=True)
class Answer:
    """What a client knows of the answer to a question. `text` is what its user sees."""

    query: str
    id: str
    expected: str
    broken: Broken = field(default_factory=Broken)
    message: Frame = field(default_factory=dict)
    was_sent: bool = False
    request_id: str | None = None
    conversation_id: str | None = None
    seq: int = 0
    text: list[str] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    arrivals: list[float] = field(default_factory=list)
    """When each of the frames came, on the clock of `time.monotonic()`."""
    restarts: int = 0
    end: Frame | None = None
    stored: Frame | None = None
    """The stored message, when the frames could not be had any more."""

    @property
    def is_over(self) -> bool:
        return self.end is not None or self.stored is not None

    @property
    def shown(self) -> str:
        return "".join(self.text)

    def accept(self, reply: Frame) -> None:
        """The chat was accepted; when it was sent again, it must be the same run."""
        data = reply["data"]
        if self.request_id not in (None, data["request_id"]):
            raise self._broken(f"sent again it became another run, {data['request_id']}", reply)
        self.request_id = data["request_id"]
        self.conversation_id = data["conversation_id"]

    def take(self, frame: Frame) -> None:
        """A frame of the run. Raises BrokenPromiseError unless it is exactly the next one."""
        seq = frame["seq"]
        if self.is_over:
            self.broken.doubled += 1
            raise self._broken("a frame after the last one", frame)
        if seq <= self.seq:
            had = [one for one in self.frames if one["seq"] == seq]
            if had == [frame]:
                self.broken.doubled += 1
                raise self._broken("doubled", frame)
            self.broken.reordered += 1
            raise self._broken("reordered", frame)
        if seq > self.seq + 1 and frame["type"] != "restart":
            self.broken.lost += seq - self.seq - 1
            raise self._broken(f"lost {seq - self.seq - 1} frames", frame)
        if frame.get("id") not in (None, self.id):
            raise self._broken("the frame of another chat", frame)
        self.seq = seq
        self.frames.append(frame)
        self.arrivals.append(time.monotonic())
        match frame["type"]:
            case "chunk":
                self.text.append(frame["content"])
                if not self.expected.startswith(self.shown):
                    raise self._broken("text that the model did not say", frame)
            case "restart":
                self.restarts += 1
                self.text.clear()
            case "retract":
                self.text.clear()
            case "complete":
                self._check_end(frame)
                self.end = frame
            case "error":
                self.end = frame

    def _check_end(self, frame: Frame) -> None:
        if frame["answer"] != self.shown:
            raise self._broken("the whole answer is not what its chunks were", frame)
        if frame["finish_reason"] == "stop" and self.shown != self.expected:
            raise self._broken("complete, and not what the model said", frame)

    def gone(self, data: Frame) -> None:
        """The frames cannot be had any more: the stored message is the answer."""
        message = data.get("message")
        if message is None or message["content"] != self.expected:
            raise self._broken("not recovered, and not stored as the model said it", data)
        self.text = [message["content"]]
        self.stored = message

    def _broken(self, how: str, frame: Frame) -> BrokenPromiseError:
        before = [(one["type"], one["seq"]) for one in self.frames[-4:]]
        shortened = str(frame)[:300]
        return BrokenPromiseError(
            f"{how}: run {self.request_id}, chat {self.id}, after seq {self.seq} (last {before}): {shortened}"
        )
