"""Busy and waiting times, from made-up workers whose times are known."""

from __future__ import annotations

from pipeline.accounting.stage_times import StageTimes, stage_lines
from pipeline.accounting.usage import Usage
from pipeline.tasks import Worker


def worker(start: float, end: float, pid: int = 1, node: str = "n") -> Worker:
    return Worker(pid=pid, node=node, gpus="", started_at=start, ended_at=end)


def test_a_worker_waits_between_its_tasks_and_not_before_the_first() -> None:
    times = StageTimes()
    waits = [times.add("render", Usage(busy_s=e - s), worker(s, e)) for s, e in ((100, 110), (113, 120), (120, 125))]
    assert waits == [0, 3, 0]
    assert times.as_dict()["render"] == {"workers": 1, "busy_s": 22, "waiting_s": 3, "cpu_s": 0, "gpu_s": 0}


def test_items_that_overlap_in_one_worker_leave_no_gap() -> None:
    times = StageTimes()
    for start, end in ((0, 10), (2, 30), (5, 8), (31, 40)):
        times.add("render", Usage(busy_s=end - start), worker(start, end))
    assert times.waiting_s["render"] == 1


def test_workers_of_a_stage_are_told_apart_and_their_times_added() -> None:
    times = StageTimes()
    for pid, node in ((1, "a"), (2, "a"), (1, "b")):
        times.add("motion", Usage(busy_s=1, cpu_s=2, gpu_s=3), worker(0, 1, pid, node))
        times.add("motion", Usage(busy_s=1, cpu_s=2, gpu_s=3), worker(3, 4, pid, node))
    times.add("crop", Usage(busy_s=7), None)
    found = times.as_dict()
    assert found["motion"] == {"workers": 3, "busy_s": 6, "waiting_s": 6, "cpu_s": 12, "gpu_s": 18}
    assert (found["crop"]["workers"], found["crop"]["busy_s"]) == (0, 7)
    assert stage_lines(found)[0] == "motion   busy 6.0 s, waiting 6.0 s, 3 workers, 12.0 CPU s, 18.0 GPU s"
