"""The rules of one connection, told what time it is."""

import uuid

import pytest

from protocol.accounts import Caller
from protocol.errors import FAST_SENDER, NO_LOGIN, NOT_THE_PROTOCOL, REVOKED, SILENT, OperationError
from protocol.operation import Access
from protocol.session import Limits, Session

SOMEBODY = Caller("user", "wx_a", "s", uuid.UUID(int=1), expires_at=2_000.0)


def logged_in(now: float = 0.0) -> Session:
    session = Session(Limits(), now)
    session.caller = SOMEBODY
    return session


def test_who_does_not_log_in_within_a_minute_is_closed() -> None:
    session = Session(Limits(), 100.0)
    session.received(159.0)
    assert session.overdue(159.9, 0.0) is None
    assert session.overdue(160.0, 0.0) is NO_LOGIN


def test_silence_of_three_pings_closes_and_any_traffic_prevents_it() -> None:
    session = logged_in()
    assert session.overdue(74.9, 0.0) is None
    assert session.overdue(75.0, 0.0) is SILENT
    session.received(74.0)
    assert session.overdue(148.9, 0.0) is None
    session.sent(148.0)
    assert session.overdue(222.9, 0.0) is None
    assert session.overdue(223.0, 0.0) is SILENT


def test_an_expired_token_closes() -> None:
    session = logged_in()
    assert session.overdue(1.0, 1_999.0) is None
    assert session.overdue(1.0, 2_000.0) is REVOKED


def test_a_burst_is_allowed_and_refills_with_time() -> None:
    session = logged_in()
    for _ in range(40):
        session.received(0.0)
    with pytest.raises(OperationError) as limited:
        session.received(0.0)
    assert limited.value.kind.reason == "rate_limited"
    assert limited.value.retry_after_ms is not None
    session.received(limited.value.retry_after_ms / 1000)
    assert session.closing is None


def test_the_promised_wait_is_long_enough() -> None:
    session, now = logged_in(), 0.0
    for _ in range(200):
        try:
            session.received(now)
        except OperationError as limited:
            assert limited.retry_after_ms is not None
            now += limited.retry_after_ms / 1000
            session.received(now)


def test_ten_limited_messages_in_a_row_close() -> None:
    session = logged_in()
    for _ in range(40):
        session.received(0.0)
    for number in range(10):
        assert session.closing is None, number
        with pytest.raises(OperationError):
            session.received(0.0)
    assert session.closing is FAST_SENDER


def test_ten_bad_messages_in_a_row_close_and_a_good_one_forgives() -> None:
    session = logged_in()
    for _ in range(9):
        session.was_bad()
    session.was_good()
    for _ in range(9):
        session.was_bad()
    assert session.closing is None
    session.was_bad()
    assert session.closing is NOT_THE_PROTOCOL


def test_before_login_only_what_is_open_to_anyone_is_allowed() -> None:
    session = Session(Limits(), 0.0)
    session.authorise(Access.ANYONE)
    for access in (Access.GUEST, Access.NAMED, Access.USER):
        with pytest.raises(OperationError) as refused:
            session.authorise(access)
        assert refused.value.kind.reason == "login_required"
    session.caller = SOMEBODY
    session.authorise(Access.USER)


def test_operations_at_once_are_bounded_and_an_ended_one_makes_room() -> None:
    session = logged_in()
    for _ in range(32):
        session.begin()
    with pytest.raises(OperationError) as refused:
        session.begin()
    assert refused.value.kind.reason == "too_many_in_flight"
    session.end()
    session.begin()
