"""What is no HTTP at all never reaches the application: here it is refused as everything else is.

So is a handshake that lacks what is known of it only here. What stands behind a handshake is handed on with it.
"""

import sys

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from protocol.errors import BAD_REQUEST, OperationError
from protocol.operation import Shape
from wsserver.http import dress_error
from wsserver.request_ids import HEADER, new_request_id


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with an error of ours for what its parser does not read."""

    _received = b""

    def data_received(self, data: bytes) -> None:
        """Read requests, or the one handshake."""
        self._received = data
        super().data_received(data)
        self._received = b""

    def _get_upgrade(self) -> bytes | None:
        """What a request asks to become. uvicorn reads the last of several `Connection` headers only."""
        connection = b",".join(value for name, value in self.headers if name == b"connection")
        upgrade = [value.lower() for name, value in self.headers if name == b"upgrade"]
        return upgrade[-1] if upgrade and b"upgrade" in connection.lower().replace(b" ", b"").split(b",") else None

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over, with what the client sent before it was answered: uvicorn would drop that."""
        if self.scope["http_version"] != "1.1" or not any(name == b"host" for name, _ in self.headers):
            self.send_400_response("No handshake of a WebSocket.")  # RFC 6455, 4.2.1
            return
        # uvicorn is handling what its parser raised, which says where the handshake ended.
        stopped = sys.exception()
        super().handle_websocket_upgrade()
        if isinstance(stopped, httptools.HttpParserUpgrade) and not self.transport.is_closing():
            behind = self._received[stopped.args[0] :]
            protocol = self.transport.get_protocol()
            if behind and protocol is not self:
                protocol.data_received(behind)  # type: ignore[attr-defined]  # ours, in `serving.py`
        # It holds this object, which would wait for the garbage collector with it.
        self.parser = None  # type: ignore[assignment]

    def send_400_response(self, msg: str) -> None:
        """Refuse what came and close the connection. `msg` is uvicorn's text, which says no more."""
        request_id = new_request_id()
        refusal = dress_error(OperationError(BAD_REQUEST), Shape.BARE, request_id)
        headers = [*self.server_state.default_headers, *refusal.raw_headers, (b"connection", b"close")]
        lines = [b"HTTP/1.1 400 Bad Request", *(name + b": " + value for name, value in headers)]
        lines.append(f"{HEADER.lower()}: {request_id}".encode())
        self.transport.write(b"\r\n".join((*lines, b"", bytes(refusal.body))))
        self.transport.close()
