"""When text leaves: the interval that follows how busy a node is, and the one timer that serves all runs."""

import asyncio
import time
from itertools import pairwise

import pytest

from tests.clients import PATIENCE_S
from wsserver.roll_up import LOOK_S, MOST_S, SLOT_S, Held, Pace, RollUp
from wsserver.wheel import Wheel

LEAST_S = 0.04


def looks(pace: Pace, seconds: float, *, share: float, late_s: float = 0.0) -> list[float]:
    """The interval after each of the looks of that time, at a steady load."""
    intervals = []
    for _ in range(round(seconds / LOOK_S)):
        pace.look(elapsed_s=LOOK_S, busy_s=share * LOOK_S, late_s=late_s)
        intervals.append(pace.interval_s)
    return intervals


def test_a_node_that_is_half_busy_rolls_up_as_it_is_told_to() -> None:
    pace = Pace(LEAST_S)
    assert set(looks(pace, 10, share=0.5)) == {LEAST_S}
    assert pace.strain == 0


def test_a_busy_node_widens_within_a_second_and_narrows_when_there_is_room_again() -> None:
    pace = Pace(LEAST_S)
    widening = looks(pace, 1, share=0.95)
    assert all(earlier < later for earlier, later in pairwise(widening))
    assert widening[-1] > 0.95 * MOST_S
    narrowing = looks(pace, 10, share=0.1)
    assert all(earlier > later for earlier, later in pairwise(narrowing))
    assert narrowing[4] > 0.8 * widening[-1], "what was widened swings back at once"
    assert narrowing[-1] == pytest.approx(LEAST_S, rel=0.01)


def test_a_loop_that_is_late_is_full_whatever_it_takes_of_a_core() -> None:
    pace = Pace(LEAST_S)
    assert looks(pace, 2, share=0.2, late_s=0.05)[-1] > 0.95 * MOST_S


def test_makers_rest_on_a_busy_node_whose_loop_is_in_time_and_on_no_other() -> None:
    idle, busy, late, off = Pace(LEAST_S), Pace(LEAST_S), Pace(LEAST_S), Pace(0.0)
    looks(idle, 2, share=0.4)
    looks(busy, 2, share=0.9)
    looks(late, 2, share=0.9, late_s=0.03)
    looks(off, 2, share=0.9)
    assert [pace.rests for pace in (idle, busy, late, off)] == [False, True, False, False]


def test_one_stall_widens_little() -> None:
    pace = Pace(LEAST_S)
    pace.look(elapsed_s=LOOK_S, busy_s=LOOK_S, late_s=0.1)
    assert pace.interval_s < (LEAST_S + MOST_S) / 2


def test_the_interval_stays_between_its_bounds_whatever_is_measured() -> None:
    pace = Pace(LEAST_S)
    for share, late_s in ((9.0, 9.0), (-1.0, 0.0), (0.7, 0.0), (1.0, 1.0), (0.0, 0.0)):
        for elapsed_s in (0.1, 5.0, 3600.0):
            pace.look(elapsed_s=elapsed_s, busy_s=share * elapsed_s, late_s=late_s)
            assert LEAST_S <= pace.interval_s <= MOST_S
            assert 0 <= pace.strain <= 1


@pytest.mark.parametrize("per_frame", [0.2, 0.5, 0.7])
def test_a_load_that_depends_on_the_interval_comes_to_rest(per_frame: float) -> None:
    pace = Pace(LEAST_S)
    intervals = []
    for _ in range(300):
        share = 0.3 + per_frame * LEAST_S / pace.interval_s
        pace.look(elapsed_s=LOOK_S, busy_s=share * LOOK_S, late_s=0.0)
        intervals.append(pace.interval_s)
    assert max(intervals[-50:]) - min(intervals[-50:]) < 0.001
    assert max(intervals) < MOST_S


@pytest.mark.parametrize(("least_s", "at_most_s"), [(0.0, 0.0), (0.5, 0.5)])
def test_what_an_operator_wants_off_or_longer_stays_so(least_s: float, at_most_s: float) -> None:
    assert looks(Pace(least_s), 5, share=1.0, late_s=1.0)[-1] == at_most_s


def test_a_wheel_gives_what_is_due_in_order_and_each_as_often_as_it_was_put_in() -> None:
    wheel: Wheel[str] = Wheel(0.005)
    assert not wheel
    assert wheel.due(1.0) == []
    for thing, at in (("c", 1.012), ("a", 1.001), ("b", 1.006), ("a", 1.012), ("late", 0.2)):
        wheel.put(thing, at)
    assert wheel.due(1.0) == ["late"]
    assert wheel.due(1.0051) == ["a"]
    assert wheel.due(1.0149) == ["b"]
    assert wheel
    assert wheel.due(1.0151) == ["c", "a"]
    assert not wheel


def test_a_wheel_gives_nothing_before_its_time_and_nothing_later_than_a_tick_after_it() -> None:
    for number in range(1_000):
        wheel: Wheel[int] = Wheel(0.005)
        at = 1_000 + number * 0.000_13
        wheel.put(number, at)
        assert wheel.due(at - 0.000_01) == []
        assert wheel.due(at + 0.005_01) == [number]


class Text:
    """A run that holds text back; `mistake` is what its release raises."""

    def __init__(self, mistake: Exception | None = None) -> None:
        self.released = asyncio.Event()
        self.at = 0.0
        self._mistake = mistake

    def release(self, now: float) -> None:
        self.at = now
        self.released.set()
        if self._mistake is not None:
            raise self._mistake


async def test_each_run_is_released_once_its_time_has_come_and_a_mistake_in_one_harms_no_other() -> None:
    loop = asyncio.get_running_loop()
    mistakes: list[object] = []
    loop.set_exception_handler(lambda _loop, context: mistakes.append(context.get("exception")))
    roll_up = RollUp(Pace(LEAST_S), lambda _interval_s: None)
    mistake = ValueError("no text")
    texts = [Text(), Text(mistake), Text(), Text()]
    until = [time.monotonic() + wait_s for wait_s in (0.02, 0.02, 0.02, 0.04)]
    for text, at in zip(texts, until, strict=True):
        roll_up.hold(text, at)
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*(text.released.wait() for text in texts))
    assert mistakes == [mistake]
    assert all(text.at >= at for text, at in zip(texts, until, strict=True))
    again = Text()
    roll_up.hold(again, 0.0)
    async with asyncio.timeout(PATIENCE_S):
        await again.released.wait()
    roll_up.close()


async def test_the_interval_is_told_while_text_is_held_back() -> None:
    told: list[float] = []
    roll_up = RollUp(Pace(LEAST_S), told.append)
    assert told == [LEAST_S]
    async with asyncio.timeout(PATIENCE_S):
        while len(told) < 3:
            roll_up.hold(text := Text(), time.monotonic())
            await text.released.wait()
    roll_up.close()
    assert all(LEAST_S <= interval_s <= MOST_S for interval_s in told)


class CountingWheel(Wheel[Held]):
    """Counts how often it is looked at."""

    looks = 0

    def due(self, now: float) -> list[Held]:
        self.looks += 1
        return super().due(now)


class Again(Text):
    """A run that holds text again whenever it is released, `times` times."""

    def __init__(self, roll_up: RollUp, times: int) -> None:
        super().__init__()
        self._roll_up = roll_up
        self._left = times

    def release(self, now: float) -> None:
        self._left -= 1
        if self._left > 0:
            self._roll_up.hold(self, now + SLOT_S)
        else:
            super().release(now)


async def test_runs_that_hold_text_again_while_they_are_released_have_one_timer_together() -> None:
    roll_up = RollUp(Pace(LEAST_S), lambda _interval_s: None)
    roll_up.wheel = wheel = CountingWheel(SLOT_S)
    times = 40
    runs = [Again(roll_up, times) for _ in range(3)]
    for run in runs:
        roll_up.hold(run, 0.0)
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*(run.released.wait() for run in runs))
    roll_up.close()
    assert wheel.looks == times
