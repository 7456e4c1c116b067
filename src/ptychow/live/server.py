"""The page: a web server in a thread of its own, read-only.

What it tells the worker has worked out; the mosaic is held only while tiles that changed are copied, or while somebody
saves a preview.

It answers on 127.0.0.1 alone unless another address is asked for, and then only to who knows the token. Requests that
name another host (DNS rebinding) or come from another page (Origin) are refused.
"""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
import socket
import tempfile
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

from ptychow.errors import InputError, MissingExtraError, PtychoWError
from ptychow.live import board
from ptychow.live.session import Session

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.datastructures import Headers, QueryParams
    from starlette.requests import Request, cookie_parser
    from starlette.responses import FileResponse, PlainTextResponse, Response
    from starlette.routing import Mount, Route, WebSocketRoute
    from starlette.staticfiles import StaticFiles
    from starlette.types import ASGIApp, Receive, Scope, Send
    from starlette.websockets import WebSocket, WebSocketDisconnect
except ImportError:
    raise MissingExtraError("the live page", "live") from None

PAGE = Path(__file__).parent / "page"
PORT = 8642
UPDATE_SECONDS = 0.2
MOST_BROWSERS = 16
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def cookie_name(scope: Scope) -> str:
    """Of the token: with the port, as browsers send a host's cookies to all its ports."""
    return f"ptychow-token-{scope['server'][1]}"


def _own_address(family: socket.AddressFamily) -> str:
    """This machine's address as others know it, or the loopback where it has none: nothing is sent to find out."""
    outside, loopback = ("192.0.2.1", "127.0.0.1") if family == socket.AF_INET else ("2001:db8::1", "::1")
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((outside, 9))
        except OSError:
            return loopback
        return str(probe.getsockname()[0])


class Guard:
    """Lets through only requests that mean this server and, where there is a token, know it.

    hosts: what the Host header may say, or None: anything, for those who know the token.
    """

    def __init__(self, app: ASGIApp, hosts: set[str] | None, token: str | None) -> None:
        self.app, self.hosts, self.token = app, hosts, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI applications are called."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        foreign = self.hosts is not None and host not in self.hosts
        if foreign or (origin is not None and origin.partition("://")[2] != host):
            port = scope["server"][1]
            tunnel = f"an ssh tunnel must keep the port: -L {port}:127.0.0.1:{port}"
            await self._refuse(scope, receive, send, 421, f"this server does not go by that name ({tunnel})")
        elif self.token is not None and not self._knows(scope, headers):
            await self._refuse(scope, receive, send, 401, "token missing or wrong: use the address that was printed")
        else:
            await self.app(scope, receive, partial(self._send, send, scope))

    def _knows(self, scope: Scope, headers: Headers) -> bool:
        cookies = cookie_parser(headers.get("cookie", ""))
        given = [QueryParams(scope["query_string"]).get("token"), cookies.get(cookie_name(scope))]
        assert self.token is not None
        return any(secrets.compare_digest(one.encode(), self.token.encode()) for one in given if one)

    async def _send(self, send: Send, scope: Scope, message: Any) -> None:
        if message["type"] == "http.response.start":
            extra = dict(HEADERS)
            if self.token is not None and scope["path"] == "/":
                extra["Set-Cookie"] = f"{cookie_name(scope)}={self.token}; HttpOnly; SameSite=Strict; Path=/"
            message["headers"] += [(name.lower().encode(), value.encode()) for name, value in extra.items()]
        await send(message)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, code: int, why: str) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": why})
        else:
            await PlainTextResponse(why, code)(scope, receive, send)


class LiveServer:
    """Serves the page of a session while used in `with`. url: with the token, where there is one.

    address: where to listen. token: what others than this machine must know; made up where it is needed and not given.
    Raises InputError for an address that is none, PtychoWError where it cannot be listened on.
    """

    def __init__(
        self, session: Session, address: str = "127.0.0.1", port: int = PORT, token: str | None = None
    ) -> None:
        try:
            parsed = ipaddress.ip_address("127.0.0.1" if address == "localhost" else address)
        except ValueError:
            raise InputError("not an address", field="--address", found=address, expected="as 127.0.0.1") from None
        if token is not None and (not token.isascii() or not token.isalnum()):
            raise InputError("not a token", field="--token", expected="letters and digits")
        if not parsed.is_loopback and token is None:
            token = secrets.token_hex(16)
        family = socket.AF_INET if parsed.version == 4 else socket.AF_INET6
        try:
            self._socket = socket.create_server((str(parsed), port), family=family)
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or error
            raise PtychoWError(f"cannot listen on {parsed} port {port}: {why} (--port 0 takes a free one)") from None
        self.port = self._socket.getsockname()[1]
        reached = _own_address(family) if parsed.is_unspecified else str(parsed)
        shown = f"[{reached}]" if ":" in reached else reached
        names = {"localhost", "127.0.0.1", "[::1]", shown}
        # Browsers leave HTTP's own port out.
        ports = [f":{self.port}", ""] if self.port == 80 else [f":{self.port}"]
        hosts = {name + port for name in names for port in ports} if parsed.is_loopback else None
        self.url = f"http://{shown}:{self.port}/" + (f"?token={token}" if token else "")
        config = uvicorn.Config(
            Guard(application(session), hosts, token),
            log_config=None,  # uvicorn's own would take over, and close, the log handlers of the whole process
            log_level="error",
            access_log=False,
            lifespan="off",
            ws_max_size=1024,
            ws_per_message_deflate=False,
            limit_concurrency=4 * MOST_BROWSERS,
            h11_max_incomplete_event_size=16384,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = Thread(target=self._server.run, args=([self._socket],), daemon=True)

    def __enter__(self) -> LiveServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=5)
        self._socket.close()


def application(session: Session) -> Starlette:
    """The page, what it is told, and what it can save."""
    browsers = 0

    async def live(websocket: WebSocket) -> None:
        nonlocal browsers
        if browsers >= MOST_BROWSERS:
            await websocket.close(1013, "too many browsers")
            return
        await websocket.accept()
        browsers += 1
        # What a browser says is not listened to; that it has gone is.
        gone = asyncio.create_task(_until_gone(websocket))
        try:
            seen = board.Seen()
            while not gone.done():
                for message in await run_in_threadpool(board.updates, session, seen):
                    if isinstance(message, str):
                        await websocket.send_text(message)
                    else:
                        await websocket.send_bytes(message)
                await asyncio.wait([gone], timeout=UPDATE_SECONDS)
        except (WebSocketDisconnect, RuntimeError):
            pass  # it went while something was being sent
        finally:
            browsers -= 1
            gone.cancel()

    async def page(_: Request) -> Response:
        return FileResponse(PAGE / "index.html")

    async def save_tiff(_: Request) -> Response:
        content = await run_in_threadpool(board.tiff, session)
        return _download(content, "image/tiff", f"{board.name(session)}.tiff")

    async def save_cxi(_: Request) -> Response:
        try:
            content = await run_in_threadpool(_cxi_bytes, session)
        except PtychoWError as error:  # no room in the folder for temporary files
            return PlainTextResponse(str(error), 507)
        return _download(content, "application/x-hdf5", f"{board.name(session)}.cxi")

    return Starlette(
        routes=[
            Route("/", page),
            Route("/object.tiff", save_tiff),
            Route("/object.cxi", save_cxi),
            WebSocketRoute("/live", live),
            Mount("/page", StaticFiles(directory=PAGE)),
        ],
    )


async def _until_gone(websocket: WebSocket) -> None:
    with suppress(WebSocketDisconnect, RuntimeError):
        while (await websocket.receive())["type"] != "websocket.disconnect":
            pass


def _cxi_bytes(session: Session) -> bytes | None:
    with tempfile.TemporaryDirectory(prefix="ptychow-") as folder:
        path = Path(folder, "object.cxi")
        return path.read_bytes() if board.cxi(session, path) else None


def _download(content: bytes | None, kind: str, name: str) -> Response:
    if content is None:
        return PlainTextResponse("nothing has been stitched yet", 404)
    plain = "".join(letter if (letter.isascii() and letter.isalnum()) or letter in "-_." else "_" for letter in name)
    return Response(content, media_type=kind, headers={"Content-Disposition": f'attachment; filename="{plain}"'})
