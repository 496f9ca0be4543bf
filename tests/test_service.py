"""The service over HTTP, with workers that are quick, and once with the real networks."""

import hashlib
import json
import os
import random
import re
import signal
import socket
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import psutil
import pytest
from data_helpers import write_video
from detect_json import read_detect
from hostile import CASES
from networks import dsp_fwa, member
from PIL import Image
from service_fakes import broken, greedy, late, quick, scored
from service_process import running, wait_for

from deepregions.commands.cli import run
from deepregions.commands.serve import _listen
from deepregions.errors import DeepregionsError, printable
from deepregions.service.scoring import FileScorer
from deepregions.weights.bundle import save_bundle

fastapi = pytest.importorskip("fastapi", reason="the extra serve is not installed")
from fastapi.testclient import TestClient  # noqa: E402

from deepregions.service.app import create_app  # noqa: E402
from deepregions.service.jobs import KILLS  # noqa: E402
from deepregions.service.keys import add_key, revoke_key  # noqa: E402
from deepregions.service.settings import ServiceSettings  # noqa: E402

TESTS = Path(__file__).parent
LOCAL = "http://127.0.0.1:8000"


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
        assert read_detect(answer.text)["input"] == "me.jpg"
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


def test_a_page_is_made_when_somebody_asks_for_it(tmp_path: Path) -> None:
    with served(tmp_path, make_scorer=late, workers=2) as client:
        (job,) = send(client, b"photograph")
        ended(client, job["id"])
        assert not (tmp_path / "pages.log").exists()
        told = [client.get(job["links"]["report"]).text for _ in range(2)]
        assert told == ["<!doctype html><title>0.jpg</title>"] * 2
        made = (tmp_path / "pages.log").read_text().split()
        assert 1 <= len(made) <= 2  # both workers may have begun
        (broken,) = send(client, b"broken:")
        ended(client, broken["id"])
        assert client.get(broken["links"]["report"]).status_code == 404
        assert (tmp_path / "pages.log").read_text().split() == made
        assert client.delete(job["links"]["self"]).status_code == 204
        assert not list((tmp_path / "reports").iterdir())


def test_a_page_that_does_not_come_is_said_to_be_late(tmp_path: Path) -> None:
    with served(tmp_path, make_scorer=late, wait=0.5) as client:
        (job,) = send(client, b"late:2")
        ended(client, job["id"])
        answer = client.get(job["links"]["report"])
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


def test_a_page_whose_worker_is_killed_is_made_by_the_next(tmp_path: Path) -> None:
    with served(tmp_path, make_scorer=late) as client:
        (job,) = send(client, b"mortal:")
        ended(client, job["id"])
        assert client.get(job["links"]["report"]).text == "<!doctype html><title>0.jpg</title>"
        assert len((tmp_path / "pages.log").read_text().split()) == 2


def test_a_page_that_ends_its_workers_ends_few(tmp_path: Path) -> None:
    with served(tmp_path, make_scorer=late) as client:
        (job,) = send(client, b"deadly:")
        ended(client, job["id"])
        assert client.get(job["links"]["report"]).status_code == 503
        assert client.app.state.service.supervisor.kills == KILLS + 1


def test_a_page_is_made_by_the_same_networks_only(tmp_path: Path) -> None:
    with served(tmp_path, make_scorer=late) as client:
        (job,) = send(client, b"photograph")
        ended(client, job["id"])
        supervisor = client.app.state.service.supervisor
        ours, supervisor.networks = supervisor.networks, ""
        assert client.get(job["links"]["report"]).status_code == 503  # they are being loaded
        supervisor.networks = "others"
        assert "not asked for" in client.get(job["links"]["report"]).json()["detail"]
        supervisor.networks = ours
        for file in (tmp_path / "uploads").iterdir():
            file.unlink()
        assert client.get(job["links"]["report"]).status_code == 404


def test_pages_are_made_at_once_where_files_go_before_results(tmp_path: Path) -> None:
    assert ServiceSettings(tmp_path).pages_later
    assert not ServiceSettings(tmp_path, keep=0).pages_later
    assert not ServiceSettings(tmp_path, keep=60).pages_later
    assert not ServiceSettings(tmp_path, ray="").pages_later


def test_a_file_that_kills_two_workers_is_given_up(client: TestClient, data: Path) -> None:
    jobs = send(client, b"kill:", b"once:", b"memory:")
    kill, once, memory = (ended(client, job["id"]) for job in jobs)
    assert kill["error"]["detail"].endswith("by SIGKILL")
    assert once["state"] == "done"
    assert memory["error"]["detail"].endswith("exit code 1")


def test_files_beside_one_that_kills_workers_are_not_given_up(tmp_path: Path) -> None:
    contents = [b"first", b"kill:", *(b"other %d" % number for number in range(8))]
    with served(tmp_path, make_scorer=greedy) as client:
        found = [ended(client, job["id"]) for job in send(client, *contents)]
        deaths = client.app.state.service.supervisor.kills
    assert [job["state"] for job in found] == ["done", "error"] + ["done"] * 8
    digests = [hashlib.sha256(each).hexdigest() for each in contents]
    assert [job["result"]["warnings"][0] for job in found if job["result"]] == [
        digest for digest in digests if digest != digests[1]
    ]
    assert deaths == 1 + KILLS


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


def test_what_cannot_be_taken_is_a_problem(client: TestClient, data: Path) -> None:
    def refused(answer: Any) -> tuple[int, str]:
        problem = answer.json()
        assert answer.headers["content-type"] == "application/problem+json"
        assert {"type", "title", "status", "detail", "request_id"} <= problem.keys()
        assert problem["status"] == answer.status_code
        return answer.status_code, problem["detail"]

    def posted(path: str = "/v1/detect", **request: Any) -> tuple[int, str]:
        return refused(client.post(path, **request))

    form = {"content-type": "multipart/form-data; boundary=b"}
    whole = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nabc\r\n--b--\r\n'
    large = b"x" * 1001

    def pieces() -> Iterator[bytes]:  # without a Content-Length
        yield b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
        for _ in range(100):
            yield large

    before = set((data / "uploads").iterdir())
    too_large = 413, "a file may have 1,000 bytes"
    assert posted(files={"file": large}) == too_large
    assert posted("/v1/jobs", files=[("file", b"good"), ("file", large)]) == too_large
    assert posted(content=pieces(), headers=form) == too_large
    assert posted(content=b"--b", headers={**form, "content-length": "9" * 12})[0] == 413
    assert posted(files=[("file", b"one"), ("file", b"two")])[0] == 413
    assert posted("/v1/jobs", files=[("file", b"f")] * 101)[0] == 413
    assert posted(content=whole[:-20], headers=form) == (400, "the form ends in the middle")
    assert posted(content=b"--c\r\n", headers=form) == (400, "the form cannot be read")
    assert posted(content=b"--b\r\n" + b"x" * 9000 + b": y\r\n\r\n", headers=form)[0] == 400
    assert posted(files={"other": b"a"}) == (422, "the form has no file")
    assert posted(content=b"", headers=form)[0] == 400
    assert posted(json={"url": "http://127.0.0.1/"})[0] == 415
    assert posted("/v1/detect?again=perhaps", files={"file": b"a"})[0] == 422
    assert refused(client.get("/v1/jobs"))[0] == 422
    assert refused(client.get("/v1/jobs", params={"ids": "a," * 101}))[0] == 422
    for path in ("/v1/jobs/x", "/v1/jobs/..%2fkeys.json", "/static/..%2fapp.py", "/v1", "/data"):
        assert refused(client.get(path))[0] == 404
    assert refused(client.put("/v1/detect"))[0] == 405
    assert set((data / "uploads").iterdir()) == before


@pytest.mark.parametrize(
    "name", ["../../keys.json", "..\\up.jpg", "/etc/passwd", "a\x00b", "\u202e", "", "x" * 999]
)
def test_a_stranger_s_name_is_no_path(client: TestClient, data: Path, name: str) -> None:
    (job,) = client.post("/v1/jobs", files=[("file", (name, name.encode()))]).json()["jobs"]
    shown = ended(client, job["id"])["result"]["input"]
    assert shown.isprintable()
    assert 0 < len(shown) <= 200
    assert not set(shown) & {"/", "\\"} or "\\x00" in shown or "\\u202e" in shown
    assert all(len(path.stem) == 24 for path in (data / "uploads").iterdir())


def test_pages_of_strangers_are_refused(client: TestClient) -> None:
    def status(method: str, **headers: str) -> int:
        return client.request(method, "/v1/jobs?ids=a", headers=headers).status_code

    assert status("GET", host="evil.example:8000") == status("GET", host="[") == 403
    assert status("GET", host="localhost:8000") == status("GET", host="[::1]:8000") == 200
    for headers in (
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9000"},
        {"origin": "http://["},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ):
        assert status("POST", **headers) == 403
    for headers in ({"origin": LOCAL}, {"sec-fetch-site": "same-origin"}, {}):
        assert status("POST", **headers) == 415
    assert "access-control-allow-origin" not in client.get("/", headers={"origin": LOCAL}).headers


def test_every_answer_is_guarded(client: TestClient) -> None:
    for path in ("/", "/v1/models", "/nothing", "/static/index.html"):
        headers = client.get(path, headers={"x-request-id": "mine-1"}).headers
        assert headers["x-request-id"] == "mine-1"
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]
    answer = client.get("/v1/models", headers={"x-request-id": "a b"})
    assert answer.headers["x-request-id"] != "a b"
    assert answer.headers["cache-control"] == "no-store"


def test_a_full_queue_and_too_many_requests_say_when_to_come_back(tmp_path: Path) -> None:
    key = add_key(tmp_path / "keys.json", "one")
    mine = {"authorization": f"Bearer {key}"}
    with served(tmp_path, host="0.0.0.0", queue=2, rate=4) as client:
        for contents, status in (([b"slow:2 a", b"slow:2 b"], 202), ([b"c"], 429), ([b"d"], 429)):
            files = [("file", each) for each in contents]
            answer = client.post("/v1/jobs", files=files, headers=mine)
            assert answer.status_code == status
        assert int(answer.headers["retry-after"]) > 0
        assert answer.json()["detail"] == "the queue is full"
        client.post("/v1/jobs", headers=mine)
        answer = client.post("/v1/jobs", headers=mine)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "15")
        assert answer.json()["detail"] == "a key may send 4 requests a minute"
        assert len(scored(tmp_path)) < 2


def test_without_keep_a_file_goes_when_its_job_is_done(tmp_path: Path) -> None:
    with served(tmp_path, keep=0, wait=0.2) as client:
        (job,) = send(client, b"photograph")
        assert ended(client, job["id"])["result"]["status"] == "no_face"
        wait_for(lambda: not list((tmp_path / "uploads").iterdir()))
        answer = client.post("/v1/detect", files={"file": b"slow:2"})
        assert answer.status_code == 202
        assert answer.headers["link"].startswith(f"<{answer.json()['links']['self']}>")
        assert client.delete(answer.json()["links"]["self"]).status_code == 204
        (job,) = send(client, b"next")
        assert ended(client, job["id"])["state"] == "done"
        assert len(list((tmp_path / "reports").iterdir())) == 2


def test_metrics_count_what_happens(client: TestClient) -> None:
    client.post("/v1/detect", files={"file": b"counted"})
    text = client.get("/metrics").text
    for line in (
        r'deepregions_requests_total\{method="POST",route="/v1/detect",status="200"\} [1-9]',
        r'deepregions_stage_seconds_count\{stage="(request|queue|score|store)"\} [1-9]',
        r'deepregions_jobs\{state="done"\} [1-9]',
        r"deepregions_queue_length 0",
        r'deepregions_memory_bytes\{process="workers"\} [1-9]',
    ):
        assert re.search(line, text)


def test_workers_that_cannot_start_end_the_service(tmp_path: Path) -> None:
    failures: list[DeepregionsError] = []
    settings = ServiceSettings(tmp_path, make_scorer=broken)
    with TestClient(create_app(settings, failures.append), base_url=LOCAL) as client:
        wait_for(lambda: failures)
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 503
        assert client.post("/v1/detect", files={"file": b"a"}).status_code == 503
    assert str(failures[0]) == "the bundle is broken (get another)"


def test_killed_workers_lose_nothing(tmp_path: Path) -> None:
    contents = [f"slow:0.2 {number}".encode() for number in range(20)]
    chance = random.Random(0)
    with served(tmp_path, workers=2) as client:
        jobs = send(client, *contents)
        supervisor, store = client.app.state.service.supervisor, client.app.state.service.store
        for kills in range(3):
            # A file during which two workers end is rightly given up, so each loses one at most.
            wait_for(lambda: not unfinished_and_killed(tmp_path))
            assert supervisor.kills == kills
            time.sleep(0.3)
            assert store.left()
            os.kill(chance.choice(supervisor.pids()), signal.SIGKILL)
            wait_for(lambda: supervisor.kills > kills)  # noqa: B023 - it is over in this turn
        found = [ended(client, job["id"]) for job in jobs]
        assert [job["result"]["warnings"][0] for job in found] == [
            hashlib.sha256(each).hexdigest() for each in contents
        ]
        assert supervisor.kills == 3
        counted = store.counts()
    assert counted == {"queued": 0, "running": 0, "done": 20, "error": 0}


def unfinished_and_killed(data: Path) -> int:
    """Counts the works that have ended a worker and are not done yet."""
    found = "SELECT count(*) FROM works WHERE kills > 0 AND finished IS NULL"
    with closing(sqlite3.connect(data / "jobs.sqlite")) as connection:
        return int(connection.execute(found).fetchone()[0])


def test_a_worker_that_is_killed_as_it_starts_comes_back_at_once(tmp_path: Path) -> None:
    with served(tmp_path) as client:
        supervisor = client.app.state.service.supervisor
        for kills in range(5):
            (pid,) = wait_for(supervisor.pids)
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda: supervisor.kills > kills)  # noqa: B023 - it is over in this turn
        wait_for(lambda: client.get("/readyz").status_code == 200, seconds=20)


def test_workers_leave_signals_to_the_service(tmp_path: Path) -> None:
    """Service managers send SIGTERM to all processes; that ends no work and counts against none."""
    with served(tmp_path) as client:
        (job,) = send(client, b"slow:0.5")
        supervisor = client.app.state.service.supervisor
        for process in psutil.Process().children(recursive=True):
            process.terminate()
        assert ended(client, job["id"])["state"] == "done"
        assert supervisor.kills == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rate", "-1"], "--rate is -1 (it must be 0 or more)"),
        (["--max-size", "0"], "--max-size is 0 (it must be 1 or more)"),
        (["--port", "99999"], "--port is 99999 (it must be 0 to 65535)"),
        (["--keep", "soon"], "--keep is 'soon' (such as 30m, 12h, 7d or 0)"),
        (["--host", "0.0.0.0"], "there is no key yet (deepregions serve keys add NAME"),
        (["keys", "add", "a\nb"], "no name for a key: 'a\\nb' (give it 1 to 100 characters"),
        (["keys", "add", " "], "no name for a key"),
        (["keys", "revoke", "nobody"], "there is no key 'nobody'"),
    ],
)
def test_options_that_are_wrong_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert run(["serve", *options, "--data", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_no_room_for_semaphores_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("multiprocessing.context.BaseContext.Semaphore", refuse)
    assert run(["serve", "--port", "0", "--data", str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "/dev/shm: Permission denied (its semaphores are there: mount a tmpfs" in line


def test_answers_are_sent_at_once() -> None:
    """Not when the client says that it has their first half: that takes 40 ms."""
    listener = _listen("127.0.0.1", 0)
    with listener, socket.create_connection(listener.getsockname()), listener.accept()[0] as end:
        assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_service_that_is_killed_goes_on(tmp_path: Path) -> None:
    contents = [f"slow:0.2 {number}".encode() for number in range(10)]
    with running(tmp_path) as client:
        jobs = send(client, *contents)
        wait_for(lambda: scored(tmp_path))
    (tmp_path / "uploads" / "half").write_bytes(b"of an upload")
    with running(tmp_path) as client:
        found = [ended(client, job["id"]) for job in jobs]
    digests = [hashlib.sha256(each).hexdigest() for each in contents]
    assert [job["result"]["warnings"][0] for job in found] == digests
    assert not (tmp_path / "uploads" / "half").exists()
    assert len(scored(tmp_path)) <= 12  # those that were running are done again


@pytest.mark.filterwarnings("ignore")
def test_the_service_is_what_its_document_says(tmp_path: Path) -> None:
    schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
    with running(tmp_path) as client:
        document = schemathesis.openapi.from_url(f"{client.base_url}/v1/openapi.json")
        asked = Counter[str]()
        every = list(hypothesis.HealthCheck)
        quickly = hypothesis.settings(max_examples=15, database=None, suppress_health_check=every)
        for found in document.get_all_operations():
            operation = found.ok()

            @hypothesis.given(case=operation.as_strategy())
            @hypothesis.settings(quickly)
            def ask(case: Any) -> None:
                answer = case.call()
                asked[case.operation.label] += 1
                assert answer.status_code < 500
                case.validate_response(
                    answer,
                    checks=[
                        schemathesis.checks.not_a_server_error,
                        schemathesis.specs.openapi.checks.status_code_conformance,
                        schemathesis.specs.openapi.checks.content_type_conformance,
                        schemathesis.specs.openapi.checks.response_schema_conformance,
                    ],
                )

            ask()
        assert len(asked) == 11


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "one"
    save_bundle([member(dsp_fwa(5.0))], path)
    return path


def test_hostile_files_have_their_status_and_no_score(tmp_path: Path, bundle: Path) -> None:
    made, data = tmp_path / "made", tmp_path / "data"
    made.mkdir()
    sent = {}
    for number, case in enumerate(CASES):
        if number % 4 and not case.name.startswith(("bomb", "text")):
            continue  # the others differ for the decoder alone
        path = made / f"{number}{Path(case.name).suffix}"
        with suppress(OSError, ValueError):  # what no upload can be
            case.make(path)
            if path.is_file() and case.name.isprintable():
                sent[path] = case
    assert len(sent) > 25
    with served(data, make_scorer=FileScorer, bundle=(bundle,), wait=300) as client:
        largest = client.app.state.service.settings.max_size
        for path, case in sent.items():
            with path.open("rb") as stream:
                answer = client.post("/v1/detect", files={"file": (case.name, stream)})
            told = answer.json()
            if case.status == "ok":
                assert answer.status_code == 200, case.name
                assert (told["status"], told["score"]) == ("no_face", None)
            elif path.stat().st_size > largest:
                assert answer.status_code == 413, case.name
            else:
                assert answer.status_code == 422, case.name
                named = case.name.replace('"', "%22")  # as forms do, and nobody can undo
                assert printable(named) in told["detail"]
                assert re.search(case.says, told["detail"])
            assert str(data) not in answer.text
        assert client.app.state.service.supervisor.kills == 0


def test_it_answers_what_detect_prints(
    portrait: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """With the networks that come along: a photograph, a video, nothing, and what is broken."""
    monkeypatch.delenv("DEEPREGIONS_MODELS", raising=False)
    monkeypatch.setenv("DEEPREGIONS_OFFLINE", "1")
    pixels = np.asarray(Image.open(portrait))
    clip = write_video(tmp_path / "clip.mp4", [pixels] * 12)
    blank, wrong = tmp_path / "blank.png", tmp_path / "broken.jpg"
    Image.new("RGB", (90, 90)).save(blank)
    wrong.write_text("no picture")
    paths = [portrait, clip, blank, wrong]
    run(["detect", *map(str, paths), "--json"])
    expected = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    with served(tmp_path / "data", make_scorer=FileScorer) as client:
        answer = client.post("/v1/detect", files={"file": portrait.open("rb")})
        told = [read_detect(answer.text)]
        files = [("file", path.open("rb")) for path in paths]
        jobs = client.post("/v1/jobs", files=files).json()["jobs"]
        found = [ended(client, job["id"]) for job in jobs]
        report, photograph, no_face = (
            client.get(job["links"]["report"]).text for job in (found[1], found[0], found[2])
        )
        models = client.get("/v1/models").json()
    told += [job["result"] for job in found[1:3]]
    for ours, theirs, path in zip(told, expected, paths, strict=False):
        assert ours.pop("input") == path.name
        assert theirs.pop("input") == str(path)
        for each in (ours, theirs):
            each.pop("date")
            each.pop("command", None)
        assert ours == theirs
    assert told[0]["score"] is not None
    assert found[0]["result"]["score"] == told[0]["score"]
    assert found[1]["progress"] == {"done": 12, "total": 12}
    assert found[3]["error"]["detail"] == expected[3]["message"].replace(str(wrong), wrong.name)
    assert expected[1]["answer"]["conclusion"] in report
    assert "clip.mp4" in report
    assert expected[0]["answer"]["conclusion"] in photograph
    assert photograph.count("data:image/jpeg") > 5
    assert expected[2]["answer"]["conclusion"] in no_face
    assert models["models"] == expected[0]["models"]
