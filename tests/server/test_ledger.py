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
    large.reserve(answer=5000)
    with pytest.raises(
        TooBusy, match=r"the server holds 5001 bytes for its callers, of 100 at most \(--max-held"
    ) as refused:
        small.reserve(request=1)
    assert (refused.value.reason, refused.value.retry_seconds) == ("held", 1.0)
    with pytest.raises(TooBusy):
        ledger.check()
    small.close()
    large.check()
    large.close()
    ledger.check()
    small.reserve(request=1)


def fill(ledger: Ledger, client: str | None, size_bytes: int) -> list[Account]:
    """Hold requests of a client until one more is refused."""
    accounts = list[Account]()
    while True:
        account = Account(ledger)
        account.belong_to(client)
        try:
            account.reserve(request=size_bytes)
        except TooBusy:
            account.close()
            return accounts
        accounts.append(account)


def test_one_client_leaves_room_for_others() -> None:
    """Alone it has four fifths; a second has four fifths of what is left, and both together never more than all."""
    ledger = Ledger(1000)
    greedy = fill(ledger, "greedy", 1)
    assert ledger.held_bytes == len(greedy) == 800
    second = fill(ledger, "second", 1)
    assert len(second) == 160
    assert fill(ledger, "greedy", 1) == []
    for account in greedy:
        account.close()
    assert len(fill(ledger, "second", 1)) == 800 - 160


def test_one_request_of_a_client_needs_room_beside_others_alone() -> None:
    """However large a part of all it is; a second one of the same client is told how much is held for it."""
    ledger = Ledger(1000)
    large, more, other = Account(ledger), Account(ledger), Account(ledger)
    large.belong_to("one")
    large.reserve(request=990)
    more.belong_to("one")
    with pytest.raises(TooBusy, match=r"holds 991 bytes for this client; expected at most 36 while 991 are held"):
        more.reserve(request=1)
    more.close()
    other.belong_to("other")
    other.reserve(request=10)
    with pytest.raises(TooBusy, match="the server holds 1001 bytes for its callers"):
        other.reserve(request=11)


def test_what_is_held_moves_to_a_client_once_it_is_known() -> None:
    """Until then it is nobody's, of whom there are many; what is given back leaves nothing behind."""
    ledger = Ledger(1000)
    account, other = Account(ledger), Account(ledger)
    account.reserve(request=900)
    other.reserve(request=1)
    account.belong_to("client")
    other.belong_to("client")
    with pytest.raises(TooBusy):
        other.check()
    account.hold("answer", 5)
    other.close()
    account.close()
    assert (ledger.held_bytes, ledger._clients, ledger.nobody.held_bytes) == (0, {}, 0)


def test_a_client_has_nothing_only_once_its_last_account_is_closed() -> None:
    """One that holds nothing yet is still the client's; whatever is counted behind the end is nobody's."""
    ledger = Ledger(100)
    one, other = Account(ledger), Account(ledger)
    one.belong_to("client")
    other.belong_to("client")
    one.close()
    one.close()
    other.hold("request", 90)
    third = Account(ledger)
    third.belong_to("client")
    with pytest.raises(TooBusy):
        third.reserve(request=10)
    one.hold("request", 5)
    assert (ledger.held_bytes, ledger.nobody.held_bytes) == (95, 5)


def test_what_is_refused_holds_what_it_held_before() -> None:
    """Whoever is told may take long to read it, and keeps no room from others meanwhile."""
    ledger = Ledger(1000)
    one, other = Account(ledger), Account(ledger)
    other.belong_to("other")
    one.reserve(request=900)
    other.hold("request", 50)
    with pytest.raises(TooBusy):
        other.reserve(result=30, answer=60)
    assert ledger.held_bytes == 950
    other.reserve(result=30, answer=0)
    assert ledger.held_bytes == 980


def test_who_needs_no_more_than_before_is_not_refused() -> None:
    """Though others have come meanwhile, so that it would not get as much now."""
    ledger = Ledger(100)
    one, two = Account(ledger), Account(ledger)
    one.belong_to("one")
    two.belong_to("two")
    with_one = Account(ledger)
    with_one.belong_to("one")
    with_one.hold("request", 30)
    one.reserve(writing=40)
    two.reserve(writing=25)
    one.reserve(writing=40)
    with pytest.raises(TooBusy):
        one.reserve(writing=41)
    assert ledger.held_bytes == 95


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


def accept(ledger: Ledger, client: str) -> Account:
    """Count a request of a client."""
    account = Account(ledger)
    account.accept()
    account.belong_to(client)
    return account


def crowd(ledger: Ledger, client: str, limit: int) -> list[Account]:
    """Let requests of a client in until one more is refused."""
    accounts = list[Account]()
    while True:
        account = accept(ledger, client)
        try:
            ledger.check_requests(client, limit, lambda: 2.0)
        except TooBusy as refused:
            assert (refused.reason, refused.retry_seconds) == ("requests", 2.0)
            account.close()
            return accounts
        accounts.append(account)


def test_one_client_alone_has_all_places_and_others_still_find_some() -> None:
    """All together no more than five fourths; those that are computed take none, and closed ones leave nothing."""
    ledger = Ledger()
    greedy = crowd(ledger, "greedy", 1000)
    assert len(greedy) == 1000
    second = crowd(ledger, "second", 1000)
    assert len(second) == 200
    assert crowd(ledger, "greedy", 1000) == []
    which = "1201 requests are in it, 1001 of them this client's; one alone may have 1000"
    with pytest.raises(TooBusy) as refusal:
        accept(ledger, "greedy")
        ledger.check_requests("greedy", 1000, lambda: 1.0)
    assert str(refusal.value) == f"the server is full: {which} (--max-queue-size and --max-batch-size); retry later"
    for account in greedy:
        account.answer()
    assert len(crowd(ledger, "third", 1000)) > 600
    many = Ledger()
    assert sum(len(crowd(many, str(number), 1000)) for number in range(200)) <= 1250


def test_requests_that_are_over_are_nobodys() -> None:
    """Whether they were computed or not."""
    ledger = Ledger()
    for ends in (Account.close, Account.answer):
        account = accept(ledger, "one")
        ends(account)
        account.close()
    assert (ledger.requests, ledger.unread, ledger._clients, ledger.nobody.computing) == (0, 0, {}, 0)
