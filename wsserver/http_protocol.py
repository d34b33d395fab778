"""What is no HTTP at all never reaches the application: here it is refused as everything else is."""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from protocol.errors import BAD_REQUEST, OperationError
from protocol.operation import Shape
from wsserver.http import dress_error
from wsserver.request_ids import HEADER, new_request_id


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with an error of ours for what its parser does not read."""

    def send_400_response(self, msg: str) -> None:
        """Refuse what came and close the connection. `msg` is uvicorn's text, which says no more."""
        request_id = new_request_id()
        refusal = dress_error(OperationError(BAD_REQUEST), Shape.BARE, request_id)
        headers = [*self.server_state.default_headers, *refusal.raw_headers, (b"connection", b"close")]
        lines = [b"HTTP/1.1 400 Bad Request", *(name + b": " + value for name, value in headers)]
        lines.append(f"{HEADER.lower()}: {request_id}".encode())
        self.transport.write(b"\r\n".join((*lines, b"", bytes(refusal.body))))
        self.transport.close()
