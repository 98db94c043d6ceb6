import pytest

from server.auth.quota import Quota
from server.errors import TooBusy
from tests.server.fakes import Clock


def test_requests_come_back_with_time() -> None:
    """A second's worth at once, then one after the other; the refusal says when."""
    clock = Clock()
    quota = Quota("alice", requests_per_second=2, clock=clock)
    for _ in range(2):
        quota.admit()
    with pytest.raises(TooBusy, match="alice has used its quota of 2 requests a second") as refused:
        quota.admit()
    assert refused.value.retry_seconds == pytest.approx(0.5)
    clock.now += 0.5
    quota.admit()
    with pytest.raises(TooBusy):
        quota.admit()
    clock.now += 60  # nothing is saved up beyond a second
    quota.admit()
    quota.admit()
    with pytest.raises(TooBusy):
        quota.admit()


def test_further_inputs_of_a_request_are_owed() -> None:
    """It was let in as one request; who comes next waits until all of them have come back."""
    clock = Clock()
    quota = Quota("alice", requests_per_second=2, clock=clock)
    quota.admit()
    quota.count(4)
    with pytest.raises(TooBusy) as refused:
        quota.admit()
    assert refused.value.retry_seconds == pytest.approx(2.0)
    Quota("bob", clock=clock).count(4)


def test_a_rate_below_one_a_second_still_lets_one_in() -> None:
    """One every ten seconds."""
    clock = Clock()
    quota = Quota("bob", requests_per_second=0.1, clock=clock)
    quota.admit()
    with pytest.raises(TooBusy) as refused:
        quota.admit()
    assert refused.value.retry_seconds == pytest.approx(10)


def test_the_engines_time_is_charged_afterwards_and_owed() -> None:
    """A request is let in while anything is left; what it took too much is waited for."""
    clock = Clock()
    quota = Quota("carol", compute_seconds_per_second=0.5, clock=clock)
    quota.admit()
    quota.reserve(0.1)
    quota.charge(0.1, 2.0)
    with pytest.raises(TooBusy, match=r"carol has used its quota of 0.5 seconds of the engine a second") as refused:
        quota.admit()
    assert refused.value.retry_seconds == pytest.approx((2.0 - 0.5) / 0.5)
    clock.now += refused.value.retry_seconds
    quota.admit()


def test_what_is_expected_is_held_until_it_is_known() -> None:
    """A burst is let in by what it will take; what never runs, or takes less, is given back."""
    quota = Quota("dave", compute_seconds_per_second=1.5, clock=Clock())
    quota.reserve(1.0)
    quota.reserve(1.0)
    with pytest.raises(TooBusy, match=r"dave has used its quota of 1.5 seconds of the engine a second") as refused:
        quota.reserve(1.0)
    assert refused.value.retry_seconds == pytest.approx(0.5 / 1.5)
    quota.charge(1.0, 0.0)
    quota.reserve(1.0)


def test_without_rates_nothing_is_counted() -> None:
    """Nor ever refused."""
    quota = Quota("anyone")
    for _ in range(1000):
        quota.admit()
        quota.reserve(1e6)
