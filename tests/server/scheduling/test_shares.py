"""Fair shares of the engine between clients, in simulated time."""

import pytest

from server.auth.clients import ANYONE, Client
from server.context import RpcContext
from server.engine.cost import CostModel
from server.scheduling.batch import BatchItem, BatchLimits
from server.scheduling.fair_queue import FairQueue
from server.scheduling.shares import Group, Line, Share
from tests.server.fakes import EchoGraph
from tests.server.scheduling.waiting import COST, GRAPH, fill, make_waiting

FLOOD, MODEST, HEAVY = Client("flood"), Client("modest"), Client("heavy", weight=2.0)
ALONE = BatchLimits(rows=1, tokens=256, attention_bytes=1)  # every request is a batch


def callers(batch: list[BatchItem]) -> list[str]:
    """Whose requests these are."""
    return [item.context.caller.name for item in batch]


def share_of(queue: FairQueue, waiting: list[Client], turns: int) -> dict[str, int]:
    """How many turns each client gets while all of them always wait."""
    had = {client.name: 0 for client in waiting}
    for turn in range(turns):
        there = set(callers(list(queue)))
        for client in waiting:
            if client.name not in there:
                queue.add(make_waiting(16, arrived=turn, caller=client))
        had[queue.take()[0].context.caller.name] += 1
    return had


def test_a_flood_of_another_client_is_waited_for_by_one_batch_at_most() -> None:
    """A hundred wait, all more urgent and due earlier: a modest client is next."""
    queue = fill(*(make_waiting(16, arrived=turn, priority=1, due=1, caller=FLOOD) for turn in range(100)))
    queue.take()
    modest = make_waiting(60, arrived=200, priority=3, caller=MODEST)
    queue.add(modest)
    assert modest in queue.take()


def test_who_has_two_waiting_does_not_get_more_than_who_has_one() -> None:
    """Turn by turn, however many a client has waiting."""
    queue = fill(*(make_waiting(16, caller=FLOOD) for _ in range(50)), limits=ALONE)
    assert share_of(queue, [FLOOD, MODEST], 40) == {"flood": 20, "modest": 20}


def test_a_client_of_weight_two_gets_two_turns_for_one() -> None:
    """While both wait."""
    assert share_of(fill(limits=ALONE), [HEAVY, MODEST], 30) == {"heavy": 20, "modest": 10}


def test_a_weight_that_was_changed_holds_for_what_comes() -> None:
    """The file of clients was read again: one of the same name now weighs three times as much."""
    queue = fill(make_waiting(16, caller=MODEST), limits=ALONE)
    turns = share_of(queue, [FLOOD, Client("modest", weight=3.0)], 40)
    assert 29 <= turns["modest"] <= 30


def test_a_client_that_asked_for_nothing_cannot_claim_that_time() -> None:
    """After a hundred turns of the other, it gets every second one."""
    queue = fill(limits=ALONE)
    share_of(queue, [FLOOD], 100)
    assert share_of(queue, [FLOOD, MODEST], 10) == {"flood": 5, "modest": 5}


def test_priority_orders_one_clients_own_requests() -> None:
    """Its urgent one goes before its others."""
    urgent = make_waiting(16, arrived=9, priority=1, caller=MODEST)
    queue = fill(make_waiting(16, caller=MODEST), urgent, limits=ALONE)
    assert queue.take() == [urgent]


def test_who_shares_anothers_batch_pays_for_its_own_rows() -> None:
    """Three rows of one client came along in the other's batch: the other's next one goes first."""
    queue = fill(make_waiting(16, caller=FLOOD), make_waiting(16, rows=3, arrived=1, caller=MODEST))
    assert callers(queue.take()) == ["flood", "modest"]
    queue.add(make_waiting(16, arrived=2, caller=MODEST))
    queue.add(make_waiting(17, arrived=3, caller=FLOOD))
    assert callers(queue.take())[0] == "flood"


def test_a_run_is_charged_once_however_many_rows_it_has() -> None:
    """Four rows take 8.5 ms: the other's runs of one row, of 3.6 ms, come three times before it is its turn again."""
    queue = fill(make_waiting(16, rows=4, caller=FLOOD), limits=ALONE)
    queue.add(make_waiting(16, rows=4, arrived=1, caller=FLOOD))
    for turn in range(9):
        queue.add(make_waiting(16, arrived=2 + turn, caller=MODEST))
    assert [callers(queue.take())[0] for _ in range(5)] == ["flood", *["modest"] * 3, "flood"]


def test_a_run_that_took_longer_is_charged_to_whom_it_ran_for() -> None:
    """Each its rows: one of one row, the other of three."""
    queue = fill(make_waiting(16, caller=FLOOD), make_waiting(16, rows=3, arrived=1, caller=MODEST))
    queue.learn(queue.take(), 1.0, whole=True)
    assert share_of(FairQueue(ALONE), [FLOOD, MODEST], 2) == {"flood": 1, "modest": 1}
    turns = share_of(queue, [FLOOD, MODEST], 100)
    assert turns["flood"] > turns["modest"]


def test_a_run_of_all_threads_is_charged_as_one_of_one_thread() -> None:
    """However long it took: nobody else could run, and nobody else would have."""
    queue = fill(make_waiting(16, caller=FLOOD))
    queue.learn(queue.take(), 1.0, whole=True, all_threads=True)
    assert queue._share(make_waiting(16, caller=FLOOD)).served_seconds == pytest.approx(COST.seconds(1, 16))


def test_nothing_is_kept_of_graphs_that_were_unloaded() -> None:
    """However often a model is loaded again."""
    queue = fill()
    for _ in range(3):
        item = make_waiting(16, graph=EchoGraph(COST))
        queue.add(item)
        queue.remove(item)
    assert list(queue._groups) == [item.graph.token]


def test_where_nobody_is_known_addresses_have_their_shares() -> None:
    """A server without a file of clients; two connections of one machine are one."""
    queue = fill(*(make_waiting(16, address="ipv4:10.0.0.1") for _ in range(50)), limits=ALONE)
    queue.take()
    queue.add(make_waiting(16, arrived=9, address="ipv4:10.0.0.2"))
    queue.add(make_waiting(16, arrived=9, address="ipv4:10.0.0.1"))
    assert queue.take()[0].context.address == "ipv4:10.0.0.2"


def test_a_known_client_has_one_share_wherever_it_calls_from() -> None:
    """Its addresses do not make it several."""
    queue = fill(*(make_waiting(16, caller=FLOOD, address=f"ipv4:10.0.0.{turn}") for turn in range(50)), limits=ALONE)
    assert share_of(queue, [FLOOD, MODEST], 40) == {"flood": 20, "modest": 20}


def test_another_clients_backlog_is_waited_for_as_long_as_ones_own_work() -> None:
    """The other has a hundred waiting: one with nothing ahead of its own waits for its own time once more."""
    queue = fill(*(make_waiting(16, caller=FLOOD) for _ in range(100)))
    new = make_waiting(60, arrived=9, caller=MODEST)
    assert queue.wait_seconds(new, new.order) == pytest.approx(COST.rows_seconds(1, 60))
    queue.add(make_waiting(30, caller=MODEST))
    ahead = COST.rows_seconds(1, 30) * 1.03
    assert queue.wait_seconds(new, new.order) == pytest.approx(2 * ahead + COST.rows_seconds(1, 60))


def test_a_heavier_clients_backlog_is_waited_for_twice_as_long() -> None:
    """It gets two seconds while the other gets one."""
    queue = fill(*(make_waiting(16, caller=HEAVY) for _ in range(100)))
    new = make_waiting(60, arrived=9, caller=MODEST)
    assert queue.wait_seconds(new, new.order) == pytest.approx(2 * COST.rows_seconds(1, 60))
    queue = fill(*(make_waiting(16, caller=MODEST) for _ in range(100)))
    new = make_waiting(60, arrived=9, caller=HEAVY)
    assert queue.wait_seconds(new, new.order) == pytest.approx(COST.rows_seconds(1, 60) / 2)


def test_a_little_that_another_has_waiting_is_waited_for_as_it_is() -> None:
    """No more than there is, whatever its priority: that orders one client's own requests."""
    queue = fill(make_waiting(16, priority=3, caller=FLOOD))
    new = make_waiting(60, arrived=9, priority=1, caller=MODEST)
    assert queue.wait_seconds(new, new.order) == pytest.approx(COST.rows_seconds(1, 16) * 1.03)


def test_what_is_less_urgent_of_another_graph_is_not_waited_for() -> None:
    """Of the same client, whose more urgent requests go first, of whatever graph."""
    other = EchoGraph(COST)
    queue = fill(make_waiting(30, caller=MODEST), make_waiting(16, priority=3, graph=other, caller=MODEST))
    new, ahead = make_waiting(60, arrived=9, caller=MODEST), COST.rows_seconds(1, 30) * 1.03
    assert queue.wait_seconds(new, new.order) == pytest.approx(ahead)
    queue.add(make_waiting(16, priority=2, graph=other, caller=MODEST))
    between = COST.rows_seconds(1, 16) * 1.03
    assert queue.wait_seconds(new, new.order) == pytest.approx(ahead + between)


def test_clients_that_have_gone_are_forgotten() -> None:
    """A thousand addresses asked once each: what is remembered stays bounded, and keeps who has had the most."""
    greedy = make_waiting(200, address="greedy")
    queue = fill(greedy, limits=ALONE)
    queue.learn(queue.take(), 3600.0, whole=False)
    for turn in range(1000):
        queue.add(make_waiting(16, arrived=turn, address=f"ipv4:{turn}"))
        queue.take()
    assert len(queue._shares) <= 256
    queue.add(make_waiting(16, arrived=1000, address="greedy"))
    queue.add(make_waiting(16, arrived=1001, address="new"))
    assert queue.take()[0].context.address == "new"


def test_of_graphs_that_were_unloaded_only_what_waits_is_kept() -> None:
    """The others' lines are dropped when a client asks for a graph that it has not asked for; served ones stay."""
    share, (served, *unloaded) = Share(weight=2.0), (Group(GRAPH), Group(EchoGraph(COST)), Group(EchoGraph(COST)))
    assert [group.is_gone for group in (served, *unloaded)] == [False, True, True]
    for group in (served, unloaded[0]):
        share.charge(group, 3.0)
    assert [line.served_seconds for line in share] == [3.0, 3.0]
    assert share.served_seconds == 3.0, "half of six: it weighs two"
    share.add(make_waiting(16), unloaded[1])
    kept = list(share)
    assert [(line.served_seconds, len(line.items)) for line in kept] == [(3.0, 0), (0.0, 1)]
    assert list(share) == kept
    assert [*kept, share.line(Group(GRAPH))] == list(share)


def test_a_graphs_rows_that_wait_are_those_of_all_its_requests() -> None:
    """Until they are taken away, also those of several rows."""
    group, items = Group(GRAPH), [make_waiting(16, rows=rows) for rows in (3, 2)]
    line, counts = Line(group), [group.rows]
    for change, item in ((line.add, items[0]), (line.add, items[1]), (line.remove, items[0]), (line.remove, items[1])):
        change(item)
        counts.append(group.rows)
    assert counts == [0, 3, 5, 2, 0]


def test_shares_hold_across_graphs() -> None:
    """The flood asks for two models, the modest client for one: half of the time is the modest client's."""
    other, had = EchoGraph(CostModel(0.002, 0.0001, 1e-7)), {"flood": 0, "modest": 0}
    queue = fill(limits=ALONE)
    for turn in range(60):
        there = {(item.context.caller.name, item.graph) for item in queue}
        for client, graph in ((FLOOD, GRAPH), (FLOOD, other), (MODEST, GRAPH)):
            if (client.name, graph) not in there:
                queue.add(make_waiting(16, arrived=turn, caller=client, graph=graph))
        had[queue.take()[0].context.caller.name] += 1
    assert had == {"flood": 30, "modest": 30}


def test_anyone_is_who_is_not_known() -> None:
    """A known client of the same name is another."""
    assert make_waiting(1, caller=Client("anyone"), address="a").context.share == ("anyone", "")
    assert make_waiting(1, caller=ANYONE, address="a").context.share == ("anyone", "a")


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:10.0.0.1:50000", "ipv4:10.0.0.1"),
        ("ipv6:%5B2001:db8:1:2:3:4:5:6%5D:50000", "ipv6:2001:db8:1:2::/64"),
        ("ipv6:[fe80::1%25eth0]:50000", "ipv6:fe80::/64"),
        ("ipv6:%5B::ffff:10.0.0.1%5D:50000", "ipv4:10.0.0.1"),
        ("ipv6:what:50000", "ipv6:what"),
        ("unix:/run/regard.sock", "unix"),
        ("unix:", "unix"),
        ("nothing", "nothing"),
    ],
)
def test_an_address_is_a_peer_without_its_port(peer: str, address: str) -> None:
    """As gRPC names peers; whoever may open the socket is one, and so is whoever has an IPv6 network of 2^64."""
    assert RpcContext.begin("Predict", "m", {}, peer=peer).address == address


def test_half_of_256_idle_clients_are_forgotten_when_one_more_comes() -> None:
    """Not before, and not again at once."""
    queue = fill(limits=ALONE)
    for turn in range(256):
        queue.add(make_waiting(16, address=f"ipv4:{turn}"))
        queue.take()
    counts = [len(queue._shares)]
    for name in ("one more", "another"):
        queue.add(make_waiting(16, address=name))
        counts.append(len(queue._shares))
    assert counts == [256, 129, 130]


def test_rows_are_shared_out_where_that_is_measured_to_end_sooner() -> None:
    """Sixteen rows, eight and eight of which take 14.8 ms, and a tenth more for the slower of two."""
    one, graph = CostModel(run_seconds=0.002, token_seconds=0.0001), EchoGraph(COST)
    for all_threads_seconds, pays in ((0.0164, True), (0.0162, False)):
        graph.cost, graph.all_threads_cost = one, CostModel(run_seconds=all_threads_seconds)
        assert Group(graph).pays_to_share_out(16, 2, 16) is pays
        assert Group(graph).run_seconds(16, 16, all_threads=True) == all_threads_seconds


def test_few_rows_are_not_shared_out() -> None:
    """Where more than a quarter of each run would be its fixed part: three rows of 16 tokens, not four."""
    graph = EchoGraph(CostModel(run_seconds=0.002, token_seconds=0.0001))
    graph.all_threads_cost = CostModel(run_seconds=1.0)
    assert [Group(graph).pays_to_share_out(rows, 2, 16) for rows in (1, 6, 7, 8)] == [False, False, True, True]


def test_what_each_kind_of_run_takes_under_the_load_there_is_decides() -> None:
    """Measured alone all threads are twice as fast; once they take three times as long, rows are shared out."""
    graph = EchoGraph(CostModel(token_seconds=0.0001))
    graph.all_threads_cost = CostModel(token_seconds=0.00005)
    group = Group(graph)
    assert not group.pays_to_share_out(16, 2, 16)
    for _ in range(30):
        group.learn(3 / group._all_threads_slowdown, all_threads=True)
    assert group.pays_to_share_out(16, 2, 16)


@pytest.mark.parametrize("all_threads", [False, True])
def test_what_does_not_run_is_taken_to_become_as_fast_as_it_was_measured(all_threads: bool) -> None:
    """Little by little, so that it is tried again; never faster, and a fast one stays as it is."""
    group = Group(EchoGraph(COST))
    alone = group.run_seconds(4, 16, all_threads=all_threads)
    group.learn(11.0, all_threads=all_threads)  # counts as ten, and for a tenth
    slow = group.run_seconds(4, 16, all_threads=all_threads)
    group.learn(1.0, all_threads=not all_threads)
    assert slow == pytest.approx(1.9 * alone)
    assert group.run_seconds(4, 16, all_threads=all_threads) == pytest.approx((1.9 - 0.002 * 0.9) * alone)
    for _ in range(10_000):
        group.learn(1.0, all_threads=not all_threads)
    assert group.run_seconds(4, 16, all_threads=all_threads) == pytest.approx(alone)
    group.learn(0.5, all_threads=all_threads)
    group.learn(1.0, all_threads=not all_threads)
    assert group.run_seconds(4, 16, all_threads=all_threads) == pytest.approx(0.95 * alone)
