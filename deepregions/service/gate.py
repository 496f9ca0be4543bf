"""What every request goes through: who may ask, how often, and what every answer carries."""

import json
import logging
import re
import secrets
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deepregions.service.keys import KeyRing
from deepregions.service.problems import MEDIA_TYPE, ProblemError
from deepregions.service.settings import ServiceSettings

logger = logging.getLogger("deepregions.service")

Count = Callable[[str, str, int, float], None]

_OPEN = ("/", "/healthz", "/readyz", "/v1/openapi.json")
_PROBES = ("/healthz", "/readyz", "/metrics")  # asked every few seconds: not worth a line
_REQUEST_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "media-src 'self' blob:; connect-src 'self'; frame-src 'self' blob:; "
        "manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    ),
}


class Gate:
    """Lets requests through, or says why not; ``count`` is told of each."""

    def __init__(self, app: ASGIApp, settings: ServiceSettings, count: Count) -> None:
        self._app = app
        self._settings = settings
        self._count = count
        self._keys = KeyRing(settings.keys)
        self._buckets: dict[str, tuple[float, float]] = {}  # by key: uploads left, and when

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status, started = time.perf_counter(), 500, False
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = id

        async def answer(message: Message) -> None:
            nonlocal status, started
            if message["type"] == "http.response.start":
                status, started = message["status"], True
                written = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    written.setdefault(name, value)
                written["X-Request-Id"] = id
                if scope["path"].startswith("/v1/"):
                    written.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            scope["state"]["owner"] = self._admit(scope, headers)
            await self._app(scope, receive, answer)
        except ProblemError as refused:
            await _refuse(refused, id, answer)
        except Exception:
            logger.exception("request %s: a fault", id)
            if started:  # nothing can be said any more
                raise
            await _refuse(ProblemError(500, "the service has a fault"), id, answer)
        finally:
            seconds = time.perf_counter() - start
            route = getattr(scope.get("route"), "path", "")
            self._count(scope["method"], route, status, seconds)
            logger.log(
                logging.DEBUG if scope["path"] in _PROBES else logging.INFO,
                "%s %s %d %.3f s request=%s key=%s",
                *(scope["method"], route or "-", status, seconds, id),
                scope["state"].get("owner") or "-",
            )

    def _admit(self, scope: Scope, headers: Headers) -> str:
        """Returns whose request it is: a key's id, or nobody's on this machine alone."""
        path, changes = scope["path"], scope["method"] not in ("GET", "HEAD", "OPTIONS")
        if self._settings.loopback:
            self._check_host(headers.get("host", ""))
        if changes:
            _check_origin(headers)
        if self._settings.loopback or path in _OPEN or path.startswith("/static/"):
            return ""
        scheme, _, key = headers.get("authorization", "").partition(" ")
        owner = self._keys.owner(key.strip()) if scheme.lower() == "bearer" else None
        if owner is None:
            hint = "send the header Authorization: Bearer KEY (deepregions serve keys add)"
            raise ProblemError(401, "there is no such key", hint, {"WWW-Authenticate": "Bearer"})
        if changes and self._settings.rate > 0:
            self._take(owner)
        return owner

    def _check_host(self, host: str) -> None:
        """A page of strangers can let its own name lead to this machine; then it is the host."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            name = ""
        if name not in (*_LOOPBACK, self._settings.host):
            raise ProblemError(403, "the service is not known by this name", "use localhost")

    def _take(self, owner: str) -> None:
        """Takes an upload out of a key's bucket, which fills up evenly in a minute."""
        now, rate = time.monotonic(), self._settings.rate
        left, then = self._buckets.get(owner, (rate, now))
        left = min(rate, left + (now - then) * rate / 60)
        if left < 1:
            wait = str(int((1 - left) * 60 / rate) + 1)
            raise ProblemError(
                429, f"a key may send {rate:g} requests a minute", "", {"Retry-After": wait}
            )
        self._buckets[owner] = left - 1, now


def _check_origin(headers: Headers) -> None:
    """Refuses what a page of strangers sends through somebody's browser."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    foreign = site not in (None, "same-origin", "none")
    if not foreign and site is None and origin is not None:
        try:
            foreign = urlsplit(origin).netloc != headers.get("host")
        except ValueError:
            foreign = True
    if foreign:
        raise ProblemError(403, "another page asks", "open the service's own page")


async def _refuse(refused: ProblemError, id: str, send: Send) -> None:
    content = json.dumps(refused.to_dict() | {"request_id": id}).encode()
    headers = {"Content-Type": MEDIA_TYPE, "Content-Length": str(len(content)), **refused.headers}
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refused.status, "headers": raw})
    await send({"type": "http.response.body", "body": content})
