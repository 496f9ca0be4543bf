"""``deepregions serve``: scores over HTTP, with a page for people."""

from __future__ import annotations

import os
import re
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from deepregions.commands import checks
from deepregions.errors import DeepregionsError, UsageError, require

if TYPE_CHECKING:
    import socket

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_LAST_PORT = 65535
_GRACE = 3  # seconds that open requests have when the service stops


def serve(
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    bundle: list[Path] | None = None,
    workers: int = 1,
    runtime: Literal["torch", "onnxruntime", "openvino", "auto"] | None = None,
    data: Path | None = None,
    keep: str = "1d",
    max_size: str = "200MB",
    queue: int = 1000,
    rate: float = 600.0,
    ray: list[str] | bool | None = None,
) -> None:
    """Runs a service that scores photographs and videos over HTTP, and a page for people.

    Without options, only this machine can reach it. Elsewhere, each request needs a key:
    `deepregions serve keys add NAME` makes one, `deepregions serve keys list` and `revoke` look
    after them. docs/service.md describes the interface.

    Jobs and results are kept in a folder, and a service that is started again goes on with them.

    Args:
        host: The address to listen at.
        port: The port to listen at; 0 picks a free one.
        bundle: Bundles, or folders of bundles, to score with; by default what `deepregions
            detect` uses.
        workers: Number of processes that score.
        runtime: What runs the networks: torch; onnxruntime or openvino, on the CPU (the first run
            exports the networks, which takes minutes, unless the bundle has a graph); auto picks
            the fastest. By default as for `deepregions detect`.
        data: The folder for jobs, files and keys; by default one of your user account.
        keep: How long files and results are kept after scoring, such as 30m, 12h or 7d. With 0, a
            file is deleted at once, and its result after an hour.
        max_size: The largest file that is taken, such as 500KB, 200MB or 2GB.
        queue: The largest number of jobs that may wait; more are refused.
        rate: The largest number of uploads in a minute with one key; 0 sets no limit.
        ray: Score by replicas of Ray Serve, at this address; without one, on the cluster that runs
            here, or else on one of its own.
    """
    require("uvicorn", "serve")
    require("fastapi", "serve")
    import uvicorn

    from deepregions.commands.options import NetworkOptions
    from deepregions.files import lock_folder
    from deepregions.service.app import create_app
    from deepregions.service.keys import read_keys
    from deepregions.service.settings import ServiceSettings

    largest = int(_number(max_size, _SIZES, "--max-size", "such as 500KB, 200MB or 2GB"))
    checks.positive(workers=workers, queue=queue, max_size=largest)
    if rate < 0:
        raise UsageError(f"--rate is {rate:g}", "it must be 0 or more")
    if not 0 <= port <= _LAST_PORT:
        raise UsageError(f"--port is {port}", f"it must be 0 to {_LAST_PORT}")
    if ray is not None and runtime == "auto":
        raise UsageError("--ray does not try which runtime is fastest", "--runtime torch")
    kept = _number(keep, _UNITS, "--keep", "such as 30m, 12h, 7d or 0")
    named = NetworkOptions(bundle).bundle
    settings = ServiceSettings(
        data=_data(data),
        host=host,
        port=port,
        bundle=None if named is None else tuple(path.absolute() for path in named),
        workers=workers,
        runtime=runtime,
        keep=kept,
        max_size=largest,
        queue=queue,
        rate=rate,
        ray=None if ray is None else ray[0] if isinstance(ray, list) and ray else "",
    )
    if not settings.loopback and not read_keys(settings.keys):
        raise UsageError(
            f"other machines can reach {host}, and there is no key yet",
            "deepregions serve keys add NAME makes one; --host 127.0.0.1 needs none",
        )
    failures: list[DeepregionsError] = []

    def fail(error: DeepregionsError) -> None:
        failures.append(error)
        server.should_exit = True

    os.umask(0o077)  # what is sent here is nobody else's business
    with lock_folder(settings.data, "serve"), closing(_listen(host, port)) as listener:
        _log()
        config = uvicorn.Config(
            create_app(settings, fail),
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="on",
            ws="none",
            timeout_graceful_shutdown=_GRACE,
        )
        server = uvicorn.Server(config)
        shown = f"[{host}]" if ":" in host else host
        checks.print_lines(f"http://{shown}:{listener.getsockname()[1]}/ (Ctrl-C ends it)")
        server.run(sockets=[listener])
    if failures:
        raise failures[0]


def add_key(name: str, *, data: Path | None = None) -> None:
    """Makes a key for the service, and prints it once.

    Args:
        name: What the key is called, such as that of the program that will use it.
        data: The service's folder, as for `deepregions serve`.
    """
    from deepregions.service.keys import add_key

    checks.print_lines(add_key(_keys(data), name))
    checks.warn("keep it: it cannot be shown again")


def list_keys(*, data: Path | None = None) -> None:
    """Lists the names of the service's keys.

    Args:
        data: The service's folder, as for `deepregions serve`.
    """
    from deepregions.service.keys import read_keys

    rows = [(key.name, key.id, key.created) for key in read_keys(_keys(data))]
    checks.print_table(("name", "id", "made"), rows)


def revoke_key(name: str, *, data: Path | None = None) -> None:
    """Makes a key of the service worthless, at once.

    Args:
        name: The key's name or id.
        data: The service's folder, as for `deepregions serve`.
    """
    from deepregions.service.keys import revoke_key

    revoke_key(_keys(data), name)


def _keys(data: Path | None) -> Path:
    return _data(data) / "keys.json"


def _data(data: Path | None) -> Path:
    """Returns the service's folder; no other user may look into it."""
    from platformdirs import user_data_path

    folder = (data or user_data_path("deepregions") / "service").absolute()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _number(text: str, units: dict[str, int], option: str, hint: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text)
    by_unit = {unit.lower(): factor for unit, factor in units.items()}
    if found is None or found[2].lower() not in by_unit:
        raise UsageError(f"{option} is {text!r}", hint)
    return float(found[1]) * by_unit[found[2].lower()]


def _listen(host: str, port: int) -> socket.socket:
    import socket

    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address[:2], family=family)
        # For connections that it accepts; asyncio sets it on sockets of its own only. Without it,
        # the second half of an answer waits 40 ms for the client's word that it has the first.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{host}:{port}: {reason}", "--host and --port name others") from error
    return listener


def _log() -> None:
    import logging

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for name in ("deepregions.service", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO if name == "deepregions.service" else logging.WARNING)
