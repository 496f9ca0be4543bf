"""A service with quick workers as a process of its own: ``service_process.py DATA PORT``."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from service_fakes import quick

from deepregions.service.app import create_app
from deepregions.service.settings import ServiceSettings


def wait_for(condition: Callable[[], Any], seconds: float = 120.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "nothing has come"
        time.sleep(0.02)
    return found


@contextmanager
def running(data: Path) -> Iterator[httpx.Client]:
    """Runs one until the block ends; then it is killed."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here), str(here.parent)])
    command = [sys.executable, __file__, str(data), str(port)]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths})
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:

            def ready() -> bool:
                with suppress(httpx.TransportError):
                    return client.get("/readyz").status_code == 200
                return False

            wait_for(ready)
            yield client
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    settings = ServiceSettings(Path(sys.argv[1]), workers=2, make_scorer=quick)
    uvicorn.run(create_app(settings), port=int(sys.argv[2]), log_level="warning")
