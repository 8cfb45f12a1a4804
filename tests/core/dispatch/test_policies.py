from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.dispatch.choose import HostView, Send
from tasks.core.dispatch.policies import Candidate, bind, choose_bound
from tasks.core.dispatch.queue import Queue, Waiting
from tasks.core.settings import PolicyName

A, B, C = "http://a:1", "http://b:1", "http://c:1"
BASELINES: list[PolicyName] = ["random", "round_robin", "least_connections"]
POLICIES: list[PolicyName] = ["pull", *BASELINES]


def host(url: str, in_flight: int = 0, waiting: int = 0, *, lost: bool = False) -> Candidate:
    """A host that a segment could be bound to."""
    return Candidate(url, in_flight, waiting, lost)


def view(url: str, in_flight: int = 0, slots: int = 4) -> HostView:
    """A host that takes requests."""
    return HostView(url, slots, in_flight, None)


def queue_of(*waiting: Waiting) -> Queue:
    """A queue with these segments in it."""
    queue = Queue()
    for one in waiting:
        queue.put(one)
    return queue


# Which host a segment is bound to


def test_pull_binds_nothing() -> None:
    """Until a slot is free a segment belongs to no host."""
    assert bind("pull", [host(A), host(B)], 0, random.Random(1)) is None


@pytest.mark.parametrize("policy", POLICIES)
def test_no_hosts_no_binding(policy: PolicyName) -> None:
    """Without hosts nothing is bound."""
    assert bind(policy, [], 0, random.Random(1)) is None


def test_round_robin_takes_turns() -> None:
    """Each host gets every n-th segment, however busy; one that is lost is passed over."""
    hosts, rng = [host(A, 9, 9), host(B), host(C, lost=True)], random.Random(1)
    assert [bind("round_robin", hosts, turn, rng) for turn in range(4)] == [A, B, A, B]


def test_least_connections_counts_what_waits() -> None:
    """The host with the fewest segments in flight or bound to it gets the next."""
    hosts = [host(A, in_flight=1, waiting=5), host(B, in_flight=4), host(C, 5)]
    assert bind("least_connections", hosts, 0, random.Random(1)) == B


def test_random_is_that_of_the_generator() -> None:
    """Random bindings reach every host and repeat with the same seed."""
    hosts = [host(A), host(B), host(C, lost=True)]

    def drawn(seed: int) -> list[str | None]:
        rng = random.Random(seed)
        return [bind("random", hosts, turn, rng) for turn in range(40)]

    assert drawn(7) == drawn(7)
    assert Counter(drawn(7)).keys() == {A, B}


@pytest.mark.parametrize("policy", BASELINES)
def test_binding_passes_over_where_it_failed(policy: PolicyName) -> None:
    """A segment that failed on a host is bound to another one, if there is one."""
    hosts, rng = [host(A), host(B, in_flight=4)], random.Random(1)
    bound = {bind(policy, hosts, turn, rng, frozenset({A})) for turn in range(8)}
    assert bound == {B}
    assert bind(policy, hosts, 0, rng, frozenset({A, B})) in {A, B}


@pytest.mark.parametrize("policy", BASELINES)
def test_failed_comes_before_lost(policy: PolicyName) -> None:
    """Rather where it failed than to a host that is lost."""
    hosts, rng = [host(A), host(B, lost=True)], random.Random(1)
    bound = {bind(policy, hosts, turn, rng, frozenset({A})) for turn in range(8)}
    assert bound == {A}


@pytest.mark.parametrize("policy", BASELINES)
def test_binding_with_all_hosts_lost(policy: PolicyName) -> None:
    """While every host is lost a segment is bound to any, to wait for it."""
    assert bind(policy, [host(A, lost=True)], 3, random.Random(1)) == A


# What a free slot takes of the segments bound to its host


def test_bound_segments_go_to_their_host_only() -> None:
    """A bound segment is not given to another host, however idle."""
    queue = queue_of(Waiting(1, 5, bound_to=A), Waiting(2, 500, bound_to=C))
    assert choose_bound([view(A, 3), view(B)], queue) == Send(Waiting(1, 5, bound_to=A), A)
    assert choose_bound([view(B)], queue) is None


def test_where_it_failed_it_still_goes_if_bound_there() -> None:
    """A segment bound to the host where it failed goes there: no other host may take it."""
    failed = Waiting(1, 5, frozenset({A}), bound_to=A)
    assert choose_bound([view(A), view(B)], queue_of(failed)) == Send(failed, A)


def test_longest_first_within_a_host() -> None:
    """A host takes the longest of what is bound to it; of equals, the one that came first."""
    queue = queue_of(*(Waiting(key, tokens, bound_to=A) for key, tokens in enumerate([5, 50, 50])))
    decision = choose_bound([view(A)], queue)
    assert decision
    assert decision.waiting.key == 1


def test_the_least_loaded_host_first() -> None:
    """The host with the smallest share of its slots in use comes first, full ones never."""
    queue = queue_of(*(Waiting(key, 5, bound_to=url) for key, url in enumerate([A, B, C])))
    decision = choose_bound([view(A, 1, 2), view(B, 3, 8), view(C, 0, 0)], queue)
    assert decision
    assert decision.url == B
    assert choose_bound([view(A, 2, 2), view(B, 9, 8), view(C, 0, 0)], queue) is None


URLS = [A, B, C]


@given(
    st.lists(st.tuples(st.integers(1, 99), st.sampled_from(URLS)), max_size=30),
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4)), min_size=3, max_size=3),
)
def test_slots_fill_up_with_what_is_bound(
    segments: list[tuple[int, str]], hosts: list[tuple[int, int]]
) -> None:
    """Every host gets as many of its own segments as it has slots free, each of them once."""
    queue = queue_of(
        *(Waiting(key, tokens, bound_to=url) for key, (tokens, url) in enumerate(segments))
    )
    in_flight = {url: busy for url, (busy, _) in zip(URLS, hosts, strict=True)}
    slots = {url: slots for url, (_, slots) in zip(URLS, hosts, strict=True)}
    got: Counter[str] = Counter()
    while decision := choose_bound([view(url, in_flight[url], slots[url]) for url in URLS], queue):
        assert decision.waiting.bound_to == decision.url
        queue.remove(decision.waiting)
        in_flight[decision.url] += 1
        got[decision.url] += 1
    bound = Counter(url for _, url in segments)
    for url, (busy, _) in zip(URLS, hosts, strict=True):
        assert got[url] == min(bound[url], max(0, slots[url] - busy))
