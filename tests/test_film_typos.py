"""Slips of the pen: counted, and titles found in spite of them. No database."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.film_typos import pieces, probes, slips_allowed, slips_between

_LETTERS = st.text(alphabet="abcdefg", min_size=4, max_size=20)


@given(whole=_LETTERS, data=st.data())
def test_every_slip_leaves_a_piece_by_which_the_title_is_found(whole: str, data: st.DataObject) -> None:
    asked = _with_a_slip(whole, data)
    assert slips_between(asked, whole, slips_allowed(whole)) in {0, 1}
    assert set(probes(asked)) & set(pieces(whole)) or len(asked) < 3


@given(whole=st.text(alphabet="abcdefghijkl", min_size=8, max_size=20), data=st.data())
def test_two_letters_that_are_wrong_missing_or_too_many_leave_a_piece(whole: str, data: st.DataObject) -> None:
    asked = _with_a_slip(_with_a_slip(whole, data, swaps=False), data, swaps=False)
    assert slips_between(asked, whole, 2) in {0, 1, 2}
    assert set(probes(asked)) & set(pieces(whole))


def _with_a_slip(whole: str, data: st.DataObject, *, swaps: bool = True) -> str:
    at = data.draw(st.integers(0, len(whole) - 2))
    slips = [whole[:at] + whole[at + 1 :], whole[:at] + "z" + whole[at + 1 :], whole[:at] + "z" + whole[at:]]
    if swaps:
        slips.append(whole[:at] + whole[at + 1] + whole[at] + whole[at + 2 :])
    return data.draw(st.sampled_from(slips))


@pytest.mark.parametrize(
    ("asked", "whole", "slips"),
    [
        ("abcd", "abcd", 0),
        ("abdc", "abcd", 1),
        ("acd", "abcd", 1),
        ("", "ab", 2),
        ("badc", "abcd", 2),
        ("x", "abcd", None),
    ],
)
def test_slips_are_counted(asked: str, whole: str, slips: int | None) -> None:
    assert slips_between(asked, whole, 2) == slips
