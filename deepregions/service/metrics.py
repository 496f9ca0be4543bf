"""What the service counts, for Prometheus."""

import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from deepregions.service.jobs import JobStore
from deepregions.service.workers import Supervisor

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics(Collector):
    """Counts requests and times stages; asks the jobs and the workers when it is asked."""

    def __init__(self, store: JobStore, supervisor: Supervisor) -> None:
        self._store, self._supervisor = store, supervisor
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "deepregions_requests",
            "Requests answered.",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "deepregions_stage_seconds",
            "Seconds of each stage: request, queue, score, store.",
            ("stage",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._registry.register(self)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Counts a request."""
        self._requests.labels(method, route, str(status)).inc()
        self.stage("request", seconds)

    def stage(self, stage: str, seconds: float) -> None:
        """Notes how long a stage took."""
        self._seconds.labels(stage).observe(max(0.0, seconds))

    def text(self) -> bytes:
        """Returns everything in Prometheus's format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yields what is asked of the jobs and the workers."""
        jobs = GaugeMetricFamily("deepregions_jobs", "Jobs by state.", labels=["state"])
        for state, count in self._store.counts().items():
            jobs.add_metric([state], count)
        yield jobs
        left = self._store.left()
        yield GaugeMetricFamily("deepregions_queue_length", "Jobs that wait or run.", value=left)
        used = GaugeMetricFamily(
            "deepregions_memory_bytes",
            "Memory of the web process and of all that score; "
            "what several share counts once (PSS).",
            labels=["process"],
        )
        web, *others = _family(os.getpid())
        used.add_metric(["web"], _memory(web))
        used.add_metric(["workers"], sum(map(_memory, others)))
        yield used
        ended = "Workers that ended without being told to."
        yield CounterMetricFamily("deepregions_worker_deaths", ended, value=self._supervisor.kills)


def _family(pid: int) -> list[int]:
    """Returns a process and all below it; it alone where the system does not say."""
    below: defaultdict[int, list[int]] = defaultdict(list)
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            parent = path.read_text("utf-8").rpartition(")")[2].split()[1]
            below[int(parent)].append(int(path.parent.name))
    found = [pid]
    for each in found:
        found += below[each]
    return found


def _memory(pid: int) -> int:
    """Returns a process's bytes, with its part of what it shares; 0 where the system is silent."""
    with suppress(OSError):
        text = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii")
        return 1024 * int(text.partition("\nPss:")[2].split()[0])
    return 0
