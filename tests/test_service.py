"""The service over HTTP, with workers that are quick, and once with the real networks."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from service_fakes import quick, scored

fastapi = pytest.importorskip("fastapi", reason="the extra serve is not installed")
from fastapi.testclient import TestClient  # noqa: E402

from deepregions.service.app import create_app  # noqa: E402
from deepregions.service.keys import add_key, revoke_key  # noqa: E402
from deepregions.service.settings import ServiceSettings  # noqa: E402

LOCAL = "http://127.0.0.1:8000"


def wait_for(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "nothing has come"
        time.sleep(0.02)
    return found


@contextmanager
def served(data: Path, **settings: Any) -> Iterator[TestClient]:
    """A service that is ready."""
    settings = {"make_scorer": quick, **settings}
    with TestClient(create_app(ServiceSettings(data, **settings)), base_url=LOCAL) as client:
        wait_for(lambda: client.get("/readyz").status_code == 200)
        yield client


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("service")


@pytest.fixture(scope="module")
def client(data: Path) -> Iterator[TestClient]:
    with served(data, workers=2, max_size=1000) as client:
        yield client


def send(client: TestClient, *contents: bytes, **query: Any) -> list[dict[str, Any]]:
    files = [("file", (f"{number}.jpg", each)) for number, each in enumerate(contents)]
    answer = client.post("/v1/jobs", files=files, params=query)
    assert answer.status_code == 202, answer.text
    return list(answer.json()["jobs"])


def ended(client: TestClient, id: str) -> dict[str, Any]:
    def look() -> Any:
        job = client.get(f"/v1/jobs/{id}").json()
        return job if job["state"] in ("done", "error") else None

    return dict(wait_for(look))


def test_a_photograph_is_answered_at_once(client: TestClient, data: Path) -> None:
    before = len(scored(data))
    for _ in range(2):
        answer = client.post("/v1/detect", files={"file": ("me.jpg", b"photograph")})
        assert answer.status_code == 200
        assert answer.json()["input"] == "me.jpg"
    assert len(scored(data)) == before + 1
    client.post("/v1/detect", files={"file": b"photograph"}, params={"again": True})
    assert len(scored(data)) == before + 2


def test_a_job_goes_its_way(client: TestClient) -> None:
    (job,) = send(client, b"slow:0.4 job")
    with client.stream("GET", job["links"]["events"]) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in answer.iter_lines() if line]
    assert set(lines[::2]) == {"event: job"}
    assert '"state": "done"' in lines[-1]
    done = client.get(job["links"]["self"]).json()
    assert done["progress"] == {"done": 4, "total": 4}
    assert done["error"] is None
    report = client.get(job["links"]["report"])
    assert report.text == "<!doctype html><title>0.jpg</title>"
    assert report.headers["content-security-policy"].startswith("sandbox;")
    assert client.delete(job["links"]["self"]).status_code == 204
    for link in job["links"].values():
        assert client.get(link).status_code == 404


def test_a_file_that_kills_two_workers_is_given_up(client: TestClient, data: Path) -> None:
    jobs = send(client, b"kill:", b"once:", b"memory:")
    kill, once, memory = (ended(client, job["id"]) for job in jobs)
    assert kill["error"]["detail"].endswith("by SIGKILL")
    assert once["state"] == "done"
    assert memory["error"]["detail"].endswith("exit code 1")


def test_an_unreadable_file_has_a_reason(client: TestClient) -> None:
    answer = client.post("/v1/detect", files={"file": ("b.jpg", b"broken:")})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["detail"] == "b.jpg: no picture"
    assert problem["request_id"] == answer.headers["x-request-id"]
    job = ended(client, send(client, b"broken:")[0]["id"])
    assert (job["state"], job["result"], job["error"]["status"]) == ("error", None, 422)


def test_keys_are_needed_elsewhere(tmp_path: Path) -> None:
    key, other = (add_key(tmp_path / "keys.json", name) for name in ("one", "other"))
    assert (tmp_path / "keys.json").stat().st_mode & 0o777 == 0o600
    assert key not in (tmp_path / "keys.json").read_text()
    with served(tmp_path, host="0.0.0.0") as client:
        mine, theirs = ({"authorization": f"Bearer {each}"} for each in (key, other))
        for wrong in ("", key, f"Bearer {key}x", f"Bearer {key[:-1]}x", "Bearer \u00e9"):
            sent = {"authorization": wrong.encode("latin-1")}
            answer = client.post("/v1/detect", headers=sent, files={"file": b"a"})
            assert answer.status_code == 401
            assert "serve keys add" in answer.json()["hint"]
        files = {"file": b"mine"}
        job = client.post("/v1/jobs", headers=mine, files=files).json()["jobs"][0]
        for link in job["links"].values():
            assert client.get(link, headers=theirs).status_code == 404
        assert client.delete(job["links"]["self"], headers=theirs).status_code == 404
        assert client.get(job["links"]["self"], headers=mine).status_code == 200
        client.post("/v1/detect", headers=theirs, files=files)
        assert len(scored(tmp_path)) == 2
        revoke_key(tmp_path / "keys.json", "one")
        assert client.get(job["links"]["self"], headers=mine).status_code == 401
        assert client.get("/").status_code == client.get("/healthz").status_code == 200
        assert client.get("/metrics").status_code == 401
