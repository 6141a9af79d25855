"""The settings of the queue, as a site writes them into its file and as ``--set`` takes them."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpujobs.errors import ConfigError, UsageError
from gpujobs.model import QueuePolicy
from gpujobs.records.config import load
from gpujobs.records.queuesettings import KEYS, changed

DAY = 86400.0
DURATIONS = ("half_life", "patience", "unknown", "lane_time", "yield_after", "yield_cost")


def loaded(tmp_path, site="", user=""):
    """The settings that a site and a user have written down."""
    (tmp_path / "site.toml").write_text(site)
    (tmp_path / "config.toml").write_text(user)
    variables = {"GPUJOBS_SITE_CONFIG": str(tmp_path / "site.toml"), "GPUJOBS_CONFIG_DIR": str(tmp_path)}
    return load(variables, tmp_path / "home")


# ---- one setting --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "means"),
    [
        *((key, "2h30m", 9000.0) for key in DURATIONS),
        ("half_life", "7d", 7 * DAY),
        ("half_life", "90", 90.0),
        ("half_life", 90, 90.0),
        ("half_life", 1.5, 1.5),
        ("patience", "1-12:00", 1.5 * DAY),
        ("cap", 0.25, 0.25),
        ("cap", "0.25", 0.25),
        ("cap", 1, 1.0),
        ("cap", "none", None),
        ("user_limit", 4, 4),
        ("user_limit", "4", 4),
        ("user_limit", 1, 1),
        ("user_limit", "none", None),
        ("lane", 2, 2),
        ("lane", "2", 2),
        ("lane", 0, 0),
    ],
)
def test_a_setting_is_written_as_people_write_it_and_no_other_changes(key, value, means):
    policy = QueuePolicy()
    found = changed(policy, key, value)
    assert (found, type(getattr(found, key))) == (policy._replace(**{key: means}), type(means))


@pytest.mark.parametrize("key", DURATIONS)
@pytest.mark.parametrize("value", ["soon", "", "none", "-1h", "1w", "nan", "inf", "1e400", 0, "0s", -5, "3651d"])
def test_what_is_no_time_that_passes_is_refused(key, value):
    with pytest.raises(UsageError, match="a duration"):
        changed(QueuePolicy(), key, value)


@pytest.mark.parametrize("key", DURATIONS)
@pytest.mark.parametrize("value", [True, False, None, [1], {"hours": 1}, b"1h"])
def test_what_is_not_even_a_number_or_a_text_is_no_duration(key, value):
    with pytest.raises(ValueError, match="a duration such as 1d is expected"):
        changed(QueuePolicy(), key, value)


@pytest.mark.parametrize(
    ("key", "says", "values"),
    [
        ("cap", "a part of all GPUs is expected, such as 0.5, or none", [
            0, 0.0, -0.5, 1.01, 2, "50%", "half", "", "nan", "inf", float("nan"), float("inf"), True, None, [0.5],
        ]),
        ("user_limit", "a whole number is expected", [
            -1, 1.5, "1.5", "two", "", " 3", "+3", "1_000", "٣", 10_000_000, 1e3, True, None, [1],
        ]),
        ("user_limit", "a number of GPUs from 1 is expected, or none", [0, "0", "000"]),
        ("lane", "a whole number is expected", [-1, 1.5, "none", "", "²", True, None]),
    ],
)  # fmt: skip
def test_a_value_that_makes_no_sense_is_refused_with_what_would(key, says, values):
    for value in values:
        with pytest.raises(ValueError, match=f"^{says}$"):
            changed(QueuePolicy(), key, value)


def test_a_setting_that_does_not_exist_is_no_setting():
    with pytest.raises(KeyError, match="halflife"):
        changed(QueuePolicy(), "halflife", "1d")


_ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.lists(st.integers(), max_size=2)
)


@given(key=st.sampled_from(sorted(KEYS)), value=_ANYTHING)
def test_whatever_is_written_it_is_refused_or_makes_a_policy_that_can_be_used(key, value):
    try:
        policy = changed(QueuePolicy(), key, value)
    except (ValueError, UsageError):
        return
    assert all(0 < getattr(policy, name) < float("inf") for name in DURATIONS)
    assert policy.cap is None or 0 < policy.cap <= 1
    assert policy.user_limit is None or policy.user_limit >= 1
    assert policy.lane >= 0


# ---- the table of the site's file ---------------------------------------------------------------------------------


def test_without_a_table_the_queue_has_its_own_settings(tmp_path):
    assert loaded(tmp_path, "threads = 2").queue == QueuePolicy()


def test_an_empty_table_sets_nothing(tmp_path):
    assert loaded(tmp_path, "[queue]").queue == QueuePolicy()


def test_the_site_can_set_every_one_of_them(tmp_path):
    site = """
        threads = 2
        [queue]
        half_life = "7d"
        cap = "none"
        patience = "10d"
        unknown = 1800
        user_limit = 6
        lane = 1
        lane_time = "15m"
        yield_after = "4h"
        yield_cost = 120.0
    """
    expected = QueuePolicy(7 * DAY, None, 10 * DAY, 1800.0, 6, 1, 900.0, 14400.0, 120.0)
    assert set(tomllib.loads(site)["queue"]) == set(KEYS)
    assert loaded(tmp_path, site).queue == expected


def test_other_settings_of_the_site_stand_beside_the_table(tmp_path):
    settings = loaded(tmp_path, 'grace = "5s"\n[queue]\nlane = 2')
    assert (settings.policy.grace, settings.queue) == (5.0, QueuePolicy(lane=2))


@pytest.mark.parametrize(
    ("site", "says"),
    [
        ("[queue]\nhalflife = 1", r"no 'halflife' in it; did you mean 'half_life'\?; it is the site's"),
        ("[queue]\ncolour = 1", r"it; there are: cap, half_life, .*, yield_cost; it is the site's"),
        ('[queue]\nhalf_life = "soon"', "half_life = 'soon': a duration is written"),
        ("[queue]\nhalf_life = 0", "half_life = 0: a duration must be"),
        ("[queue]\nhalf_life = true", "half_life = True: a duration such as 1d is expected"),
        ("[queue]\ncap = 50", "cap = 50: a part of all GPUs is expected, such as 0.5, or none"),
        ("[queue]\nlane = 0\nuser_limit = 0", "user_limit = 0: a number of GPUs from 1 is expected, or none"),
        ("[queue]\nlane = 1979-05-27", r"lane = datetime.date\(1979, 5, 27\): a whole number is expected"),
        ("queue = 3", r"a table \[queue\] is expected"),
        ("[[queue]]\nlane = 1", r"a table \[queue\] is expected"),
    ],
)
def test_a_mistake_names_the_file_the_setting_and_what_can_be_written(tmp_path, site, says):
    with pytest.raises(ConfigError, match=says) as caught:
        loaded(tmp_path, site)
    assert (f"in {tmp_path}/site.toml cannot be used: " in str(caught.value), "\n" in str(caught.value)) == (
        True,
        False,
    )


def test_how_turns_are_taken_is_not_for_one_user_to_say(tmp_path):
    with pytest.raises(ConfigError, match=r"config.toml cannot have 'queue': .* only the site may set it"):
        loaded(tmp_path, user='[queue]\nhalf_life = "1h"')
