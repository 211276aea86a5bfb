"""Limits count the time that a candidate has had, and not what others took from it."""

import os
import signal
import subprocess
import sys
import time

import pytest

from holotype_conformance.judge import processes
from holotype_conformance.judge.time_limit import (
    IDLE,
    PATIENCE,
    Account,
    TimedOut,
    bad_limit,
    bad_seed,
    is_time_up,
    time_limit,
)

needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="no /proc here")


class World:
    """A clock, and a process that is given `share` of a processor."""

    def __init__(self, limit, share=1.0, told=True):
        self.now = self.had = 0.0
        self.share = share
        self.told = told
        self.account = Account(limit, 1, clock=lambda: self.now, used=lambda pid: self.used())

    def used(self):
        return self.had if self.told else None

    def pass_(self, seconds):
        self.now += seconds
        self.had += seconds * self.share

    def until_the_end(self):
        """Seconds on the wall until the time is up."""
        while (left := self.account.left()) > 0:
            self.pass_(left)
        return self.now


def test_a_process_of_its_own_processor_has_its_limit():
    assert World(60).until_the_end() == pytest.approx(60, abs=0.1)


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_a_process_that_shares_its_processor_has_as_much_of_it(share):
    world = World(60, share)
    assert world.until_the_end() == pytest.approx(60 / share, abs=1)
    assert "it had 60 s of processor time in" in world.account.told()


def test_threads_make_the_time_no_shorter():
    assert World(60, share=16).until_the_end() == 60


def test_what_waits_is_ended_once_that_is_seen():
    world = World(60, share=0)
    assert 60 < world.until_the_end() < 150
    assert world.account.told().endswith(" s, and waited")


def test_what_hardly_works_ends_too():
    assert World(60, share=2 * IDLE).until_the_end() == pytest.approx(PATIENCE * 60, abs=31)


def test_where_processor_time_cannot_be_told_the_wall_decides():
    world = World(60, told=False)
    assert world.until_the_end() == 60
    assert world.account.told() == ""


def test_a_look_that_comes_late_proves_no_waiting():
    world = World(60, share=0)
    world.pass_(600)  # it was stopped, and whoever looks with it
    assert world.account.left() > 0
    world.share = 1.0
    assert world.until_the_end() == pytest.approx(660, abs=1)


@needs_proc
def test_processor_time_counts_children_while_they_run():
    spin = "t = __import__('time'); end = t.process_time() + 0.5\nwhile t.process_time() < end: pass\ninput()"
    before = processes.processor_time(os.getpid())
    with subprocess.Popen(
        [sys.executable, "-c", spin], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as child:
        while (found := processes.processor_time(child.pid)) < 0.45:
            time.sleep(0.05)
        assert child.pid in [each.pid for each in processes.descendants(os.getpid())]
        assert processes.processor_time(os.getpid()) >= before + found - 0.05
        assert sys.executable in processes.command_of(child.pid)
        child.communicate(b"\n")
    assert processes.processor_time(os.getpid()) >= before + 0.45  # it has been waited for
    assert processes.processor_time(child.pid) is None


def test_the_children_of_a_process_are_found_without_the_systems_list(monkeypatch):
    listed = processes.descendants(os.getppid())
    monkeypatch.setattr(processes, "_listed_children", lambda pid: None)
    assert {each.pid for each in processes.descendants(os.getppid())} >= {
        each.pid for each in listed if processes.of(each.pid) is not None
    }


STOPPED = """
import time
from holotype_conformance.judge.time_limit import time_limit

with time_limit(0.5):
    print("ready", flush=True)
    input()
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass
print("done")
"""


@needs_proc
def test_time_in_which_it_had_no_processor_is_not_counted():
    with subprocess.Popen(
        [sys.executable, "-c", STOPPED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout.readline() == "ready\n"
        os.kill(child.pid, signal.SIGSTOP)
        time.sleep(2)
        os.kill(child.pid, signal.SIGCONT)
        assert child.communicate("\n")[0] == "done\n"


def test_the_end_of_a_limit_can_be_told_from_what_a_candidate_raises():
    with pytest.raises(TimedOut) as caught, time_limit(0.2):
        time.sleep(60)
    assert is_time_up(caught.value)
    assert not is_time_up(TimedOut("no end"))


def test_the_alarm_of_whoever_was_there_before_is_put_back():
    def mine(_signal, _frame):
        pass

    before = signal.signal(signal.SIGALRM, mine)
    try:
        with pytest.raises(TimedOut), time_limit(0.2):
            time.sleep(60)
        assert signal.getsignal(signal.SIGALRM) is mine
    finally:
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("seconds", [float("inf"), float("nan"), -1.0, 1e7])
def test_a_limit_that_no_clock_can_keep_is_refused(seconds):
    assert "expected 0, for none, or up to 1,000,000 s" in bad_limit(seconds)
    assert bad_limit(60.0) is bad_limit(0) is None


@pytest.mark.parametrize("seed", [-1, 2**32, 10**30])
def test_a_seed_that_no_generator_takes_is_refused(seed):
    assert "expected a whole number from 0 to 4,294,967,295" in bad_seed(seed)
    assert bad_seed(0) is bad_seed(2**32 - 1) is None
