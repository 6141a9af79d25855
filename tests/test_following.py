"""Whether what a submission comes after has ended as it must."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpujobs.runmodel import Cause
from gpujobs.scheduling.following import Followed, Never, Ready, Wait, standing

OK, FAILED, LOST, CANCELLED = Cause.OK, Cause.FAILED, Cause.LOST, Cause.CANCELLED


def runs(**known):
    """``n5=[OK, None]``: of the number 5 one run that ended well, and one that is open."""
    return {
        int(name[1:]): [Followed(int(name[1:]) + place, cause is not None, cause) for place, cause in enumerate(causes)]
        for name, causes in known.items()
    }


@pytest.mark.parametrize(
    ("after", "known", "all_well", "ended"),
    [
        ((), {}, Ready(), Ready()),
        ((5,), runs(n5=[OK]), Ready(), Ready()),
        ((5,), runs(n5=[None]), Wait((5,)), Wait((5,))),
        ((5,), runs(n5=[FAILED]), Never(5, 5, FAILED), Ready()),
        ((5,), runs(n5=[CANCELLED]), Never(5, 5, CANCELLED), Ready()),
        ((5, 9), runs(n5=[OK], n9=[OK]), Ready(), Ready()),
        ((9, 5), runs(n5=[None], n9=[None]), Wait((9, 5)), Wait((9, 5))),
        ((5, 9), runs(n5=[OK], n9=[None]), Wait((9,)), Wait((9,))),
        ((5, 9), runs(n5=[None], n9=[LOST]), Never(9, 9, LOST), Wait((5,))),
        ((9, 5), runs(n5=[FAILED], n9=[LOST]), Never(9, 9, LOST), Ready()),
        ((5,), runs(n5=[OK, OK, OK]), Ready(), Ready()),
        ((5,), runs(n5=[OK, None, OK]), Wait((5,)), Wait((5,))),
        ((5,), runs(n5=[None, LOST, FAILED]), Never(5, 6, LOST), Wait((5,))),
        ((5,), {}, Never(5, None, None), Ready()),
        ((5,), {5: []}, Never(5, None, None), Ready()),
        ((5,), {5: [Followed(5, ended=True)]}, Never(5, 5, None), Ready()),
        ((5,), {5: [Followed(7, True, LOST), Followed(6, True, FAILED)]}, Never(5, 6, FAILED), Ready()),
    ],
)
def test_all_have_to_end_well_or_just_to_end(after, known, all_well, ended):
    assert standing(after, False, known) == all_well
    assert standing(after, True, known) == ended


FOLLOWED = st.builds(
    lambda run, cause: Followed(run, cause is not None, cause), st.integers(1, 99), st.none() | st.sampled_from(Cause)
)
KNOWN = st.dictionaries(st.integers(1, 9), st.lists(FOLLOWED, min_size=1, max_size=4))


@given(KNOWN)
def test_it_is_ready_exactly_when_the_last_has_ended_as_it_must(known):
    every = [one for number in known for one in known[number]]
    assert (standing(tuple(known), True, known) == Ready()) == all(one.ended for one in every)
    assert (standing(tuple(known), False, known) == Ready()) == all(one.cause is OK for one in every)


@given(KNOWN, st.randoms(use_true_random=False))
def test_neither_the_order_of_the_runs_nor_other_numbers_matter(known, chance):
    after = tuple(sorted(known)[1:])
    shuffled = {number: chance.sample(known[number], len(known[number])) for number in after}
    for after_any in (False, True):
        found, expected = standing(after, after_any, shuffled), standing(after, after_any, known)
        assert type(found) is type(expected)
        if isinstance(found, Wait):
            assert found == expected


@given(KNOWN, st.sampled_from(Cause))
def test_what_can_never_start_stays_so_whatever_becomes_of_the_others(known, cause):
    before = standing(tuple(known), False, known)
    later = {
        number: [one if one.ended else Followed(one.run, True, cause) for one in known[number]] for number in known
    }
    after = standing(tuple(known), False, later)
    assert not isinstance(after, Wait)
    if isinstance(before, Never):
        assert isinstance(after, Never)


@pytest.mark.parametrize(
    ("never", "sentence"),
    [
        (Never(5, None, None), "it was to follow 5, of which there is no record any more"),
        (Never(5, 5, FAILED), "it was to follow run 5, which ended: failed"),
        (Never(5, 6, None), "it was to follow run 6 of 5, which ended: nobody knows how"),
    ],
)
def test_it_is_said_why_a_run_never_begins(never, sentence):
    assert never.sentence == sentence
