from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.dispatch.policies import HostView, Queue, Waiting, bind, next_host
from tasks.core.settings import PolicyName

A, B, C = "http://a:1", "http://b:1", "http://c:1"
NOBODY: frozenset[str] = frozenset()


def host(
    url: str, in_flight: int = 0, slots: int = 4, waiting: int = 0, *, up: bool = True
) -> HostView:
    """A host as a policy sees it."""
    return HostView(url, slots, in_flight, waiting, takes_requests=up, is_lost=not up)


def queue_of(*waiting: Waiting) -> Queue:
    """A queue with these segments in it."""
    queue = Queue()
    for one in waiting:
        queue.put(one)
    return queue


def taken(queue: Queue, url: str, others: frozenset[str] = NOBODY) -> list[int]:
    """The keys that a host gets until there is nothing more for it."""
    keys = []
    while (waiting := queue.take(url, others)) is not None:
        keys.append(waiting.key)
    return keys


def test_longest_first() -> None:
    """A free slot takes the longest segment that waits; of equals, the one that came first."""
    queue = queue_of(Waiting(1, 5), Waiting(2, 50), Waiting(3, 5), Waiting(4, 500))
    assert taken(queue, A) == [4, 2, 1, 3]


def test_retried_segments_come_before_longer_ones() -> None:
    """A segment that failed before is not made to wait behind the whole queue again."""
    queue = queue_of(Waiting(1, 500), Waiting(2, 5, failed_on=frozenset({B})))
    assert taken(queue, A) == [2, 1]


def test_failed_segment_waits_for_another_host() -> None:
    """Where it failed it is not sent again while another host takes requests."""
    queue = queue_of(Waiting(1, 500, failed_on=frozenset({A})), Waiting(2, 5))
    assert taken(queue, A, frozenset({B})) == [2]
    assert taken(queue, B, frozenset({A})) == [1]


def test_failed_on_every_host_any_will_do() -> None:
    """A segment that failed on all hosts that take requests goes to whichever is free."""
    queue = queue_of(Waiting(1, 5, failed_on=frozenset({A, B})))
    assert taken(queue, A, frozenset({B})) == [1]


def test_failed_on_the_only_host_left() -> None:
    """With no other host that takes requests, the one where it failed gets it again."""
    queue = queue_of(Waiting(1, 5, failed_on=frozenset({A})))
    assert taken(queue, A, NOBODY) == [1]


def test_passed_over_segments_stay_in_order() -> None:
    """What was passed over for one host comes out for another in the same order."""
    failed = frozenset({A})
    queue = queue_of(*(Waiting(key, key, failed_on=failed) for key in range(1, 6)))
    assert queue.take(A, frozenset({B})) is None
    assert taken(queue, B, frozenset({A})) == [5, 4, 3, 2, 1]


def test_bound_segments_go_to_their_host_only() -> None:
    """A bound segment is not given to another host, however idle."""
    queue = queue_of(Waiting(1, 5, bound_to=A), Waiting(2, 5, bound_to=B))
    assert (queue.bound_to(A), queue.bound_to(C)) == (1, 0)
    assert taken(queue, B) == [2]
    assert taken(queue, C) == []
    assert taken(queue, A) == [1]


def test_bound_segment_that_failed_there_is_not_stuck() -> None:
    """A segment bound to the host where it failed goes there: no other host may take it."""
    queue = queue_of(Waiting(1, 5, bound_to=A, failed_on=frozenset({A})))
    assert taken(queue, A, frozenset({B})) == [1]


def test_unbound_and_bound_segments_share_one_order() -> None:
    """A slot takes the best of what waits for its host and what waits for any."""
    queue = queue_of(Waiting(1, 5, bound_to=A), Waiting(2, 50), Waiting(3, 500, bound_to=A))
    assert taken(queue, A) == [3, 2, 1]


def test_next_host_is_the_least_loaded() -> None:
    """Hosts come in the order of their load; full ones and those that are down do not come."""
    hosts = [host(A, 3), host(B, 1), host(C, 4), host("http://d:1", up=False)]
    assert next_host(hosts) == [B, A]


def test_next_host_prefers_more_slots() -> None:
    """Of equally loaded hosts the larger comes first."""
    assert next_host([host(A, slots=2), host(B, slots=8)]) == [B, A]


def test_pull_binds_nothing() -> None:
    """Until a slot is free a segment belongs to no host."""
    assert bind("pull", [host(A), host(B)], 0, random.Random(1)) is None


@pytest.mark.parametrize("policy", ["pull", "random", "round_robin", "least_connections"])
def test_no_hosts_no_binding(policy: PolicyName) -> None:
    """Without hosts nothing is bound."""
    assert bind(policy, [], 0, random.Random(1)) is None


def test_round_robin_takes_turns() -> None:
    """Each host gets every n-th segment; one that is down is passed over."""
    hosts = [host(A), host(B), host(C, up=False)]
    rng = random.Random(1)
    assert [bind("round_robin", hosts, turn, rng) for turn in range(4)] == [A, B, A, B]


def test_a_host_that_is_coming_up_gets_its_share() -> None:
    """The baselines know of no loading: what is queued meanwhile is spread as ever."""
    hosts = [host(A), HostView(B, 4, 0, 0, takes_requests=False)]
    rng = random.Random(1)
    assert [bind("round_robin", hosts, turn, rng) for turn in range(4)] == [A, B, A, B]


def test_least_connections_counts_what_waits() -> None:
    """The host with the fewest segments in flight or bound to it gets the next."""
    hosts = [host(A, in_flight=1, waiting=5), host(B, in_flight=4), host(C, 5)]
    assert bind("least_connections", hosts, 0, random.Random(1)) == B


def test_random_is_that_of_the_generator() -> None:
    """Random bindings reach every host and repeat with the same seed."""
    hosts = [host(A), host(B), host(C, up=False)]

    def drawn(seed: int) -> list[str | None]:
        rng = random.Random(seed)
        return [bind("random", hosts, turn, rng) for turn in range(40)]

    assert drawn(7) == drawn(7)
    assert Counter(drawn(7)).keys() == {A, B}


@pytest.mark.parametrize("policy", ["random", "round_robin", "least_connections"])
def test_binding_passes_over_where_it_failed(policy: PolicyName) -> None:
    """A segment that failed on a host is bound to another one, if there is one."""
    hosts, rng = [host(A), host(B, in_flight=4)], random.Random(1)
    bound = {bind(policy, hosts, turn, rng, frozenset({A})) for turn in range(8)}
    assert bound == {B}
    assert bind(policy, hosts, 0, rng, frozenset({A, B})) in {A, B}


@pytest.mark.parametrize("policy", ["random", "round_robin", "least_connections"])
def test_binding_with_all_hosts_down(policy: PolicyName) -> None:
    """While no host takes requests a segment is bound to any, to wait for it."""
    assert bind(policy, [host(A, up=False)], 3, random.Random(1)) == A


URLS = st.sampled_from([A, B, C])
SEGMENTS = st.lists(
    st.tuples(
        st.integers(min_value=1, max_value=99),
        st.none() | URLS,
        st.frozensets(URLS),
    ),
    max_size=30,
)


@given(SEGMENTS, st.data())
def test_every_segment_is_taken_exactly_once(
    segments: list[tuple[int, str | None, frozenset[str]]], data: st.DataObject
) -> None:
    """Whoever takes in whatever order: nothing is lost, nothing comes twice."""
    queue = queue_of(*(Waiting(key, *fields) for key, fields in enumerate(segments)))
    seen: Counter[int] = Counter()
    for _ in segments:
        url = data.draw(URLS)
        others = data.draw(st.frozensets(URLS)) - {url}
        if (waiting := queue.take(url, others)) is not None:
            assert waiting.bound_to in (None, url)
            seen[waiting.key] += 1
    for url in (A, B, C):
        seen.update(taken(queue, url))
    assert seen == Counter(range(len(segments)))
    assert len(queue) == 0


@given(SEGMENTS, URLS)
def test_unbind_and_drain_lose_nothing(
    segments: list[tuple[int, str | None, frozenset[str]]], gone: str
) -> None:
    """What waits for a host that is gone comes back, and draining gives all the rest."""
    queue = queue_of(*(Waiting(key, *fields) for key, fields in enumerate(segments)))
    unbound = queue.unbind(gone)
    assert len(queue) + len(unbound) == len(segments)
    assert all(waiting.bound_to == gone for waiting in unbound)
    rest = queue.drain()
    assert all(waiting.bound_to != gone for waiting in rest)
    assert sorted(one.key for one in [*unbound, *rest]) == list(range(len(segments)))
    assert len(queue) == 0
    assert queue.unbind(gone) == []


@given(SEGMENTS)
def test_others_never_starve_a_segment(
    segments: list[tuple[int, str | None, frozenset[str]]],
) -> None:
    """While all hosts take requests, every segment has a host that gets it."""
    queue = queue_of(*(Waiting(key, *fields) for key, fields in enumerate(segments)))
    every = frozenset({A, B, C})
    assert sum(len(taken(queue, url, every - {url})) for url in sorted(every)) == len(segments)
