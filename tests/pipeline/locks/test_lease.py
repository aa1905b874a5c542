"""One holder at a time, each with a higher token; a dead one is replaced, and a replaced one commits nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread

import pytest

from pipeline.errors import CannotRun
from pipeline.ledger import Ledger, Record
from pipeline.locks.cell import LockedCell, open_cell
from pipeline.locks.lease import KEY, Lease, LeaseHeld, LeaseLost, Process, Tenure, confirm, leased
from pipeline.storage import StorageError, Store
from tests.s3_server import S3Server

ROOT = Path(__file__).parents[3]
HERE = Process.this()
ELSEWHERE = Process("node-7", 4711, "another boot", 5)


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return Store(str(tmp_path / "run"), {})
    s3: S3Server = request.getfixturevalue("s3")
    return Store(f"s3://{s3.bucket()}/run", s3.storage_options)


@pytest.fixture
def local(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "run"), {})


@pytest.fixture
def clock() -> Clock:
    return Clock()


def lease_of(store: Store, clock: Clock, process: Process = HERE) -> Lease:
    return Lease(open_cell(store, KEY), clock=clock, process=process)


def stored(store: Store) -> Tenure:
    return Tenure.model_validate_json(store.get_bytes(KEY))


def test_a_second_driver_is_told_who_works(store: Store, clock: Clock) -> None:
    lease_of(store, clock, ELSEWHERE).take()
    with pytest.raises(LeaseHeld) as caught:
        lease_of(store, clock).take()
    assert isinstance(caught.value, CannotRun)
    for part in (
        store.uri,
        "node-7",
        "process 4711",
        "since 2027-01-15T08:00:00+00:00",
        "until 2027-01-15T08:01:00+00:00",
    ):
        assert part in str(caught.value)
    assert stored(store).process == ELSEWHERE


def test_every_holder_has_a_higher_token(store: Store, clock: Clock) -> None:
    tokens = []
    for _ in range(3):
        lease = lease_of(store, clock)
        lease.take()
        tokens.append(lease.token)
        lease.renew()
        assert stored(store).token == lease.token
        lease.release()
        assert stored(store).released
    assert tokens == [1, 2, 3]


def test_a_holder_of_another_machine_is_replaced_when_its_time_is_over(store: Store, clock: Clock) -> None:
    first = lease_of(store, clock, ELSEWHERE)
    first.take()
    clock.now += 40
    first.renew()
    clock.now += 59
    with pytest.raises(LeaseHeld):
        lease_of(store, clock).take()
    clock.now += 1
    second = lease_of(store, clock)
    second.take()
    assert (first.token, second.token) == (1, 2)

    with pytest.raises(LeaseLost, match=f"another run has taken it over .{HERE.host}, process {HERE.pid}"):
        first.renew()
    for act in (first.check, first.confirm, first.renew):
        with pytest.raises(LeaseLost):
            act()
    first.release()
    assert not stored(store).released, "what is lost is not given back"
    second.renew()
    second.confirm()


def test_a_lease_that_nobody_took_is_renewed_past_its_end(store: Store, clock: Clock) -> None:
    """The store was away for longer than a term."""
    lease = lease_of(store, clock)
    lease.take()
    clock.now += 1000
    lease.renew()
    assert stored(store).until == clock.now + 60
    with pytest.raises(LeaseHeld):
        lease_of(store, clock, ELSEWHERE).take()


def test_who_was_replaced_knows_it_before_the_next_renewal(store: Store, clock: Clock) -> None:
    first, second = lease_of(store, clock, ELSEWHERE), lease_of(store, clock)
    first.take()
    clock.now += 60
    second.take()
    first.check()  # asks nobody
    with pytest.raises(LeaseLost):
        first.confirm()
    ledger = Ledger(store)
    with pytest.raises(LeaseLost):
        ledger.write(Record(id="a", index=0, status="ok", fence=first.token))
    assert store.list("items") == set()
    ledger.write(Record(id="a", index=0, status="ok", fence=second.token))
    assert ledger.read(["a"])["a"].fence == 2


def test_a_lease_that_was_removed_is_lost(local: Store, clock: Clock) -> None:
    lease = lease_of(local, clock)
    lease.take()
    local.delete(KEY)
    with pytest.raises(LeaseLost, match="removed"):
        lease.confirm()
    with pytest.raises(LeaseLost, match="removed"):
        lease.renew()


def test_a_damaged_lease_is_nobodys(local: Store, clock: Clock) -> None:
    local.put_bytes(KEY, b'{"token": 3')
    lease = lease_of(local, clock)
    lease.take()
    lease.confirm()


class Interrupted(LockedCell):
    """Somebody else is faster, so many times."""

    def __init__(self, store: Store, clock: Clock, times: int) -> None:
        super().__init__(store, KEY)
        self.clock, self.times = clock, times

    def replace(self, data: bytes) -> bool:
        if self.times:
            self.times -= 1
            other = lease_of(self.store, self.clock)
            other.take()
            other.release()
        return super().replace(data)


def test_who_is_overtaken_looks_again(local: Store, clock: Clock) -> None:
    lease = Lease(Interrupted(local, clock, 2), clock=clock)
    lease.take()
    assert lease.token == 3
    lease.release()
    with pytest.raises(LeaseHeld, match="same moment"):
        Lease(Interrupted(local, clock, 100), clock=clock).take()


class Failing(LockedCell):
    """A store that is away after the first write."""

    away = False

    def replace(self, data: bytes) -> bool:
        if self.away:
            raise StorageError("writing failed")
        return super().replace(data)


def test_a_keeper_outlives_a_store_that_is_away(local: Store, clock: Clock) -> None:
    cell = Failing(local, KEY)
    lease = Lease(cell, term_s=0.03, clock=clock)
    lease.take()
    cell.away = True
    stop, renewed = Event(), Event()
    keeper = Thread(target=lease.keep, args=(stop,))
    write = cell.replace

    def noticed(data: bytes) -> bool:
        done = write(data)
        renewed.set()
        return done

    cell.replace = noticed  # type: ignore[method-assign]
    keeper.start()
    assert not renewed.wait(0.2)
    cell.away = False
    clock.now += 100
    assert renewed.wait(20)
    stop.set()
    keeper.join()
    lease.check()
    assert stored(local).until > clock.now
    # An end whose last word does not arrive is left to the term.
    cell.away = True
    lease.release()


def test_a_keeper_stops_when_the_lease_is_lost(local: Store, clock: Clock) -> None:
    lease = Lease(open_cell(local, KEY), term_s=0.03, clock=clock, process=ELSEWHERE)
    lease.take()
    clock.now += 1
    lease_of(local, clock).take()
    lease.keep(Event())  # returns
    with pytest.raises(LeaseLost):
        lease.check()


@pytest.mark.parametrize("ending", [None, ValueError, KeyboardInterrupt, SystemExit])
def test_a_lease_is_released_however_its_block_ends(local: Store, ending: type[BaseException] | None) -> None:
    with ExitStack() as stack:
        if ending is not None:
            stack.enter_context(pytest.raises(ending))
        with leased(local) as lease:
            assert not stored(local).released
            confirm(local, lease.token)
            if ending is not None:
                raise ending
    assert stored(local).released
    with leased(local) as lease:
        assert lease.token == 2


def test_the_lease_is_renewed_while_its_block_lasts(store: Store) -> None:
    with leased(store, term_s=0.3):
        first = stored(store)
        moved = Event()

        def look() -> None:
            while stored(store).until == first.until:
                pass
            moved.set()

        Thread(target=look, daemon=True).start()
        assert moved.wait(20)


def test_processes_are_told_apart() -> None:
    assert not HERE.is_gone(HERE)
    assert replace(HERE, started=(HERE.started or 0) + 1).is_gone(HERE), "another process has got its number"
    assert not replace(HERE, started=None).is_gone(HERE)
    assert not replace(HERE, machine="another").is_gone(HERE)
    assert not replace(HERE, machine=None, pid=2**22).is_gone(replace(HERE, machine=None))
    assert not Process("h", 1, HERE.machine, None).is_gone(HERE), "alive, and another user's"
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        name = replace(HERE, pid=child.pid, started=None)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert name.is_gone(HERE), "ended, though its parent has not asked"
    assert name.is_gone(HERE)


HOLD = """
import json, sys
from pipeline.locks.lease import leased
from pipeline.storage import Store
with leased(Store(sys.argv[1], json.loads(sys.argv[2]))) as lease:
    print("token", lease.token, flush=True)
    sys.stdin.read()
"""


@contextmanager
def started_driver(store: Store) -> Iterator[subprocess.Popen[str]]:
    """Another process that tries to hold the lease."""
    given = {name: store.fs.storage_options[name] for name in ("key", "secret", "endpoint_url") if not store.is_local}
    command = [sys.executable, "-c", HOLD, store.uri, json.dumps({"s3": given})]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.kill()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@contextmanager
def driver(store: Store) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Another process that tries to hold the lease, and the first line that it says."""
    with started_driver(store) as process:
        yield process, first_line(process)


def test_a_killed_holder_of_this_machine_is_replaced_at_once(store: Store) -> None:
    with driver(store) as (process, said):
        assert said == "token 1"
        with pytest.raises(LeaseHeld, match=f"process {process.pid}"), leased(store):
            raise AssertionError("two hold it")
        process.send_signal(signal.SIGKILL)
        process.wait()
        with leased(store) as lease:
            assert lease.token == 2
    assert stored(store).released


def test_a_stopped_holder_is_replaced_and_stops_when_it_wakes(local: Store, clock: Clock) -> None:
    """Suspended for longer than its term, as on a machine that sleeps."""
    with driver(local) as (process, said):
        assert said == "token 1"
        process.send_signal(signal.SIGSTOP)
        clock.now = stored(local).until
        lease = lease_of(local, clock)
        lease.take()
        process.send_signal(signal.SIGCONT)
        with pytest.raises(LeaseLost):
            confirm(local, 1)
        process.communicate("", timeout=20)
        assert process.returncode == 0
        # It could not give back what was not its own any more.
        assert not stored(local).released
        lease.confirm()


def test_of_drivers_started_together_one_works(local: Store) -> None:
    with ExitStack() as stack:
        started = [stack.enter_context(started_driver(local)) for _ in range(3)]
        said = [first_line(process) for process in started]
    assert sum(line == "token 1" for line in said) == 1
    assert sum("Traceback" in line for line in said) == 2
