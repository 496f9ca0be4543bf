"""Jobs: none is lost, none is done twice, whoever dies when."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

from deepregions.service.jobs import KILLS, RESTARTS, JobStore, QueueFullError, Upload, Work
from deepregions.service.problems import problem

WORKERS = ("a", "b", "c")
DIED = problem(500, "died")
CONTENTS, OWNERS = st.sampled_from("xyz"), st.sampled_from(["", "k"])


def upload(content: str, number: int = 0, name: str = "a.jpg") -> Upload:
    return Upload(f"{content}{number}", content, 1, name)


class Jobs(RuleBasedStateMachine):
    """A service whose workers, and itself, die at any moment."""

    ids: Bundle[tuple[str, str]] = Bundle("ids")

    @initialize()
    def begin(self) -> None:
        self.folder = TemporaryDirectory()
        self.path = Path(self.folder.name) / "jobs.sqlite"
        self.store = JobStore(self.path)
        self.number = 0
        self.busy: dict[str, list[tuple[str, str]]] = {}  # by worker, works and their files
        self.kills: Counter[str] = Counter()
        self.claims: Counter[str] = Counter()
        self.finished: dict[str, str] = {}
        self.jobs: dict[str, tuple[str, str]] = {}  # by id, the owner and the content

    @rule(
        target=ids,
        content=st.sampled_from("xyz"),
        owner=st.sampled_from(["", "k"]),
        again=st.booleans(),
    )
    def submit(self, content: str, owner: str, again: bool) -> tuple[str, str]:
        self.number += 1
        before = self.store.left()
        (id,) = self.store.submit([upload(content, self.number)], "net", owner, again=again)
        job = self.store.job(id, owner)
        assert job is not None
        assert job.sha256 == content
        new = job.file == f"{content}{self.number}"
        assert new or not again
        assert self.store.left() == before + new
        self.jobs[id] = owner, content
        return id, owner

    @rule(worker=st.sampled_from(WORKERS))
    def claim(self, worker: str) -> None:
        if worker in self.busy:
            return
        waiting = self.store.counts()["queued"]
        work = self.store.claim(worker)
        assert (work is None) == (waiting == 0)
        if work is not None:
            self.begin_work(worker, work)

    @rule(worker=st.sampled_from(WORKERS))
    def claim_another(self, worker: str) -> None:
        works = self.busy.get(worker)
        if not works or self.claims[works[0][0]] > 1:
            return
        work = self.store.claim(worker, fresh=True)
        if work is not None:
            assert not self.claims[work.id]
            self.begin_work(worker, work)

    def begin_work(self, worker: str, work: Work) -> None:
        assert work.id not in self.running()
        assert work.id not in self.finished
        self.busy.setdefault(worker, []).append((work.id, work.file))
        self.claims[work.id] += 1
        assert work.attempts == self.claims[work.id]

    def running(self) -> list[str]:
        return [id for works in self.busy.values() for id, _ in works]

    @rule(worker=st.sampled_from(WORKERS))
    def finish(self, worker: str) -> None:
        if worker in self.busy:
            work, file = self.busy[worker].pop(0)
            if not self.busy[worker]:
                del self.busy[worker]
            self.store.advance(work, worker, 1, 2)
            if self.store.finish(work, worker, {"content": file[0], "input": file}):
                assert work not in self.finished
                self.finished[work] = file
            assert not self.store.finish(work, worker, {"content": "twice"})

    @rule(worker=st.sampled_from(WORKERS), fault=st.booleans())
    def die(self, worker: str, fault: bool) -> None:
        released = self.store.release(worker, DIED if fault else None)
        assert set(released) <= {id for id, _ in self.busy.pop(worker, [])}
        if len(released) == 1:  # of several, none is to blame
            self.kills[released[0]] += fault

    @rule()
    def restart(self) -> None:
        self.store.close()
        self.store = JobStore(self.path)
        self.store.recover(problem(500, "restarts"))
        old, self.busy = self.busy, {}
        for worker, works in old.items():  # it lives on for a moment
            for work, _ in works:
                assert not self.store.finish(work, worker, {"content": "late"})

    @rule(id=consumes(ids))
    def delete(self, id: tuple[str, str]) -> None:
        assert self.store.job(id[0], "somebody else") is None
        self.store.delete(id[0], "somebody else")
        assert self.store.job(*id) is not None
        self.store.delete(*id)
        assert self.store.job(*id) is None
        del self.jobs[id[0]]

    @rule(target=ids, id=consumes(ids))
    def look(self, id: tuple[str, str]) -> object:
        job = self.store.job(*id)
        assert job is not None
        assert (job.state == "done") == (job.result is not None)
        assert (job.state == "error") == (job.error is not None)
        return multiple(id)

    @invariant()
    def all_jobs_are_there(self) -> None:
        for id, (owner, content) in self.jobs.items():
            job = self.store.job(id, owner)
            assert job is not None
            told = job.to_dict()
            if job.state == "done":
                assert told["result"] == {"content": content, "input": "a.jpg"}
            if job.state == "error":
                tried = self.claims[job.work] >= RESTARTS
                assert self.kills[job.work] >= KILLS or tried
            if job.state == "running":
                assert job.work in self.running()

    def teardown(self) -> None:
        if not hasattr(self, "store"):
            return
        for worker in WORKERS:
            while worker in self.busy:
                self.finish(worker)
        while (work := self.store.claim("last")) is not None:
            self.busy["last"] = [(work.id, work.file)]
            self.finish("last")
        for id, (owner, _) in self.jobs.items():
            job = self.store.job(id, owner)
            assert job is not None
            assert job.ended
        self.all_jobs_are_there()
        self.store.close()
        self.folder.cleanup()


TestJobs = Jobs.TestCase
TestJobs.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    return JobStore(tmp_path / "jobs.sqlite")


def test_many_threads_get_each_work_once(store: JobStore) -> None:
    ids = store.submit([upload(f"c{n}") for n in range(60)], "net")
    start = threading.Barrier(4)

    def work(worker: str) -> list[str]:
        start.wait()
        done = []
        while (mine := store.claim(worker)) is not None:
            assert store.finish(mine.id, worker, {"content": mine.file})
            done.append(mine.id)
        return done

    with ThreadPoolExecutor(4) as pool:
        done = [id for each in pool.map(work, "abcd") for id in each]
    assert len(done) == len(set(done)) == 60
    assert [job.state for job in store.jobs(ids)] == ["done"] * 60


def test_identical_uploads_at_once_are_one_work(store: JobStore) -> None:
    with ThreadPoolExecutor(4) as pool:
        ids = list(pool.map(lambda n: store.submit([upload("same", n)], "net")[0], range(20)))
    assert len(set(ids)) == 20
    assert len({job.work for job in store.jobs(ids)}) == 1
    assert store.left() == 1


def test_who_waits_comes_first_and_others_in_order(store: JobStore) -> None:
    store.submit([upload("a"), upload("b")], "net")
    store.submit([upload("now")], "net", urgent=True)
    store.submit([upload("b", 2)], "net", urgent=True)
    found = [store.claim("w") for _ in range(4)]
    assert [work and work.file for work in found] == ["b0", "now0", "a0", None]


def test_a_full_queue_takes_all_of_a_request_or_none(store: JobStore) -> None:
    store.submit([upload("a"), upload("b")], "net", limit=3)
    with pytest.raises(QueueFullError):
        store.submit([upload("c"), upload("d")], "net", limit=3)
    assert store.left() == 2
    store.submit([upload("a", 1), upload("c")], "net", limit=3)
    assert store.left() == 3


def test_of_works_begun_together_the_one_that_ends_workers_is_blamed(store: JobStore) -> None:
    files = "abkcd"
    ids = store.submit([upload(each) for each in files], "net")
    deaths = 0
    while store.left():
        first = store.claim("w")
        assert first is not None
        works = [first]
        while first.attempts == 1 and (work := store.claim("w", fresh=True)):
            works.append(work)
        if any(work.file == "k0" for work in works):
            store.release("w", DIED)
            deaths += 1
            assert deaths <= 1 + KILLS
        else:
            assert all(store.finish(work.id, "w", {}) for work in works)
    found = dict(zip(files, (job.state for job in store.jobs(ids)), strict=True))
    assert found == {"a": "done", "b": "done", "c": "done", "d": "done", "k": "error"}
    assert deaths == 1 + KILLS


def test_other_networks_do_not_answer_for_the_first(store: JobStore) -> None:
    (first,) = store.submit([upload("a")], "one")
    store.retarget("two")
    work = store.claim("w")
    assert work is not None
    store.finish(work.id, "w", {})
    (second,) = store.submit([upload("a", 1)], "one")
    (third,) = store.submit([upload("a", 2)], "two")
    assert len({job.work for job in store.jobs([first, second, third])}) == 3


def test_what_is_old_is_forgotten(store: JobStore) -> None:
    (old,) = store.submit([upload("old")], "net")
    work = store.claim("w")
    assert work is not None
    store.finish(work.id, "w", {})
    (waiting,) = store.submit([upload("waiting")], "net")
    store.expire(files=0, results=3600)
    assert store.files() == ({"waiting0"}, {job.work for job in store.jobs([old, waiting])})
    store.expire(files=0, results=0)
    assert [job.id for job in store.jobs([old, waiting])] == [waiting]


def test_names_stand_in_results_as_they_are(store: JobStore) -> None:
    name = 'q"uo\\te<b>\u00e9.jpg'
    (id,) = store.submit([upload("token", name=name)], "net")
    work = store.claim("w")
    assert work is not None
    store.finish(work.id, "w", {"input": work.file, "message": f"{work.file}: odd"})
    job = store.job(id)
    assert job is not None
    assert job.to_dict()["result"] == {"input": name, "message": f"{name}: odd"}
    assert job.page("<b>token0</b>") == "<b>q&quot;uo\\te&lt;b&gt;\u00e9.jpg</b>"
