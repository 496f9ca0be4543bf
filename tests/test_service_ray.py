"""The service with replicas of Ray Serve, on two nodes of one machine."""

import hashlib
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import pytest
from service_fakes import quick
from service_process import wait_for

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("ray.serve", reason="the extra ray is not installed")
from fastapi.testclient import TestClient

from deepregions.service.app import create_app
from deepregions.service.settings import ServiceSettings

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two nodes, with room for a replica each."""
    here = Path(__file__).parent
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(here), str(here.parent)]))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    with TemporaryDirectory(prefix="ray") as short:  # paths of sockets are short
        monkeypatch.setenv("RAY_TMPDIR", short)
        from ray.cluster_utils import Cluster

        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        made.add_node(num_cpus=1)
        yield made
        made.shutdown()


def replicas() -> list[psutil.Process]:
    every = psutil.Process().children(recursive=True)
    return [each for each in every if "ray::ServeReplica" in " ".join(each.cmdline())]


def test_a_replica_that_is_killed_under_load_loses_nothing(tmp_path: Path, cluster: Any) -> None:
    contents = [f"slow:0.1 {number}".encode() for number in range(60)] + [b"kill:", b"broken:"]
    settings = ServiceSettings(tmp_path, workers=2, ray=cluster.address, make_scorer=quick)
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        wait_for(lambda: client.get("/readyz").status_code == 200)
        wait_for(lambda: len(replicas()) == 2)
        films = [b"slow:0.4 film", b"kill: film"]
        files = [("file", (f"{number}.jpg", each)) for number, each in enumerate(contents)]
        files += [("file", (f"{number}.mp4", each)) for number, each in enumerate(films)]
        jobs = client.post("/v1/jobs", files=files).json()["jobs"]
        store = client.app.state.service.store  # type: ignore[attr-defined]
        wait_for(lambda: store.counts()["done"] > 5)
        os.kill(random.Random(0).choice(replicas()).pid, signal.SIGKILL)
        wait_for(lambda: not store.left(), seconds=240)
        found = [client.get(job["links"]["self"]).json() for job in jobs]
        supervisor = client.app.state.service.supervisor  # type: ignore[attr-defined]
        assert supervisor.kills >= 3  # ours, and those of the file that kills
        assert client.get(jobs[0]["links"]["report"]).text.endswith("<title>0.jpg</title>")
    assert [job["state"] for job in found] == ["done"] * 60 + ["error"] * 2 + ["done", "error"]
    assert [job["result"]["warnings"][0] for job in found[:60]] == [
        hashlib.sha256(each).hexdigest() for each in contents[:60]
    ]
    assert found[62]["progress"] == {"done": 4, "total": 4}
    for killer in (found[60], found[63]):
        assert "the last one by the end of its process" in killer["error"]["detail"]
    assert found[61]["error"]["detail"] == "61.jpg: no picture"
