"""What is held for callers is counted until it is given back."""

import asyncio

import pytest

from server.errors import TooBusy
from server.ledger import Account, Ledger


def test_parts_are_counted_as_they_are_now_and_given_back_together() -> None:
    """A part that is told again replaces what was told before; closing twice gives back once."""
    ledger = Ledger(1000)
    one, other = Account(ledger), Account(ledger)
    one.hold("request", 10)
    one.hold("result", 500)
    other.hold("answer", 7)
    one.hold("result", 300)
    assert ledger.held_bytes == 317
    one.close()
    one.close()
    assert ledger.held_bytes == 7


def test_what_does_not_fit_is_refused_unless_it_is_alone() -> None:
    """One large request alone is let in; beside it nothing is, until it has gone."""
    ledger = Ledger(100)
    large, small = Account(ledger), Account(ledger)
    large.reserve("answer", 5000)
    with pytest.raises(TooBusy, match=r"the server holds 5001 bytes for its callers \(--max-held-bytes\)") as refused:
        small.reserve("request", 1)
    assert (refused.value.reason, refused.value.retry_seconds) == ("held", 1.0)
    with pytest.raises(TooBusy):
        ledger.check()
    small.close()
    large.check()
    large.close()
    ledger.check()
    small.reserve("request", 1)


async def test_requests_are_in_the_server_until_their_accounts_are_closed() -> None:
    """Whoever waits for an idle server waits for the last of them."""
    ledger = Ledger()
    one, other = Account(ledger), Account(ledger)
    for account in (one, one, other):
        account.accept()
    assert ledger.requests == 2
    waiting = asyncio.ensure_future(ledger.wait_idle())
    one.close()
    await asyncio.sleep(0)
    assert not waiting.done()
    other.close()
    await asyncio.wait_for(waiting, 10)
    assert ledger.requests == 0
