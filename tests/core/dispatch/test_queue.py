from __future__ import annotations

from collections import Counter
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tasks.core.dispatch.queue import Queue, Suits, Waiting

A, B, C = "http://a:1", "http://b:1", "http://c:1"
NOBODY: frozenset[str] = frozenset()


def queue_of(*waiting: Waiting) -> Queue:
    """A queue with these segments in it."""
    queue = Queue()
    for one in waiting:
        queue.put(one)
    return queue


def anything(_: Waiting) -> bool:
    """Suits whatever waits."""
    return True


def nothing(_: Waiting) -> bool:
    """Suits nothing."""
    return False


def keys_of(*keys: int) -> Suits:
    """Suits these segments."""
    return lambda waiting: waiting.key in keys


def key_of(waiting: Waiting | None) -> int | None:
    """The key of a segment, if there is one."""
    return None if waiting is None else waiting.key


# Which host suits


def test_a_new_segment_suits_every_host() -> None:
    """A segment that has not failed may go anywhere."""
    assert Waiting(1, 5).suits(A, frozenset({B, C}))
    assert Waiting(1, 5).suits(A, NOBODY)


def test_a_failed_segment_suits_the_others() -> None:
    """Where it failed it is not sent again while another host takes requests."""
    failed = Waiting(1, 5, failed_on=frozenset({A}))
    assert not failed.suits(A, frozenset({B}))
    assert failed.suits(B, frozenset({A}))


def test_failed_on_every_host_any_will_do() -> None:
    """A segment that failed on all hosts that take requests suits each of them again."""
    failed = Waiting(1, 5, failed_on=frozenset({A, B, C}))
    assert failed.suits(A, frozenset({B}))
    assert failed.suits(A, NOBODY)


def test_a_bound_segment_suits_its_host_alone() -> None:
    """A bound segment suits its host, even if it failed there, and no other."""
    bound = Waiting(1, 5, failed_on=frozenset({A}), bound_to=A)
    assert bound.suits(A, frozenset({B}))
    assert not bound.suits(B, frozenset({A}))


@given(st.frozensets(st.sampled_from([A, B, C])), st.frozensets(st.sampled_from([A, B, C])))
def test_every_segment_suits_some_host(failed_on: frozenset[str], hosts: frozenset[str]) -> None:
    """While any host takes requests, no segment is without one that may take it."""
    failed = Waiting(1, 5, failed_on)
    assert any(failed.suits(url, hosts - {url}) for url in hosts) == bool(hosts)


# The order


def test_longest_first() -> None:
    """The queue goes from the longest to the shortest; of equals the oldest comes first."""
    queue = queue_of(Waiting(1, 5), Waiting(2, 50), Waiting(3, 5), Waiting(4, 500))
    assert [waiting.key for waiting in queue] == [4, 2, 1, 3]


def test_an_empty_queue_has_nothing() -> None:
    """Nothing comes out of a queue in which nothing waits."""
    queue = Queue()
    assert not list(queue)
    assert (queue.longest(anything), queue.shortest(anything)) == (None, None)
    assert (queue.at(0.0, anything), queue.at(1.0, anything)) == (None, None)
    assert queue.drain() == []


def test_the_longest_of_at_most() -> None:
    """A limit leaves out what is longer, and lets in what is just as long."""
    queue = queue_of(Waiting(1, 5), Waiting(2, 50), Waiting(3, 50), Waiting(4, 500))
    limits = (inf, 500, 499.9, 50, 49.9, 5, 4.9, 0)
    assert [key_of(queue.longest(anything, limit)) for limit in limits] == [
        *(4, 4, 2, 2, 1, 1, None, None)
    ]


def test_the_longest_and_the_shortest_that_suit() -> None:
    """What does not suit is passed over, from either end."""
    queue = queue_of(*(Waiting(key, 10 * key) for key in range(1, 6)))
    assert key_of(queue.longest(keys_of(2, 4))) == 4
    assert key_of(queue.shortest(keys_of(2, 4))) == 2
    assert (queue.longest(nothing), queue.shortest(nothing)) == (None, None)


def test_a_share_of_the_way() -> None:
    """A share of the way from the shortest to the longest; the next shorter one that suits."""
    queue = queue_of(*(Waiting(key, 10 * key) for key in range(10)))
    shares = (0.0, 0.2, 0.55, 0.99, 1.0)
    assert [key_of(queue.at(share, anything)) for share in shares] == [0, 2, 5, 9, 9]
    assert key_of(queue.at(0.5, keys_of(1, 3, 6))) == 3
    assert key_of(queue.at(0.5, keys_of(8, 6))) == 6
    assert queue.at(0.5, nothing) is None


# What is taken out


def test_removing_what_does_not_wait() -> None:
    """To take out what is not there is an error, and changes nothing."""
    queue = queue_of(Waiting(1, 5), Waiting(3, 5))
    for missing in (Waiting(2, 5), Waiting(1, 6), Waiting(4, 5), Waiting(0, 1)):
        with pytest.raises(KeyError):
            queue.remove(missing)
    assert ([waiting.key for waiting in queue], queue.tokens) == ([1, 3], 10)


def test_a_segment_comes_back_under_its_key() -> None:
    """A segment that is taken out and put back keeps its place before younger ones."""
    first, second = Waiting(1, 5), Waiting(2, 5)
    queue = queue_of(first, second)
    queue.remove(first)
    queue.put(Waiting(1, 5, failed_on=frozenset({A})))
    assert [waiting.key for waiting in queue] == [1, 2]


class QueueIsAList(RuleBasedStateMachine):
    """A queue does what a list does that is sorted each time anew."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = Queue()
        self.waiting: list[Waiting] = []
        self.keys = 0

    def suitable(self, suits: frozenset[int], at_most: float = inf) -> list[Waiting]:
        """Longest first: what suits and is short enough."""
        return [each for each in self.waiting if each.key % 5 in suits and each.tokens <= at_most]

    @rule(tokens=st.integers(0, 9), bound_to=st.none() | st.sampled_from([A, B]))
    def put(self, tokens: int, bound_to: str | None) -> None:
        """A new segment, often as long as another."""
        self.keys += 1
        waiting = Waiting(self.keys, tokens, bound_to=bound_to)
        self.queue.put(waiting)
        self.waiting.append(waiting)
        self.waiting.sort(key=lambda each: (-each.tokens, each.key))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        """Any of them."""
        waiting = data.draw(st.sampled_from(self.waiting))
        self.queue.remove(waiting)
        self.waiting.remove(waiting)

    @rule()
    def drain(self) -> None:
        """All of them."""
        assert self.queue.drain() == self.waiting
        self.waiting.clear()

    @rule(suits=st.frozensets(st.integers(0, 4)), at_most=st.floats(0, 10) | st.just(inf))
    def ends(self, suits: frozenset[int], at_most: float) -> None:
        """The longest and the shortest that suit."""
        longest = self.queue.longest(lambda waiting: waiting.key % 5 in suits, at_most)
        assert longest == next(iter(self.suitable(suits, at_most)), None)
        shortest = self.queue.shortest(lambda waiting: waiting.key % 5 in suits)
        assert shortest == next(iter(reversed(self.suitable(suits))), None)

    @rule(suits=st.frozensets(st.integers(0, 4)), share=st.floats(0, 1))
    def at(self, suits: frozenset[int], share: float) -> None:
        """The nearest that suits that is no longer than the one there; else the next longer."""
        found = self.queue.at(share, lambda waiting: waiting.key % 5 in suits)
        ascending = self.waiting[::-1]
        place = min(int(share * len(ascending)), len(ascending) - 1)
        nearest = [*ascending[place::-1], *ascending[place + 1 :]] if ascending else []
        assert found == next((each for each in nearest if each.key % 5 in suits), None)

    @invariant()
    def same(self) -> None:
        """The same segments in the same order, and what is kept of them agrees."""
        assert list(self.queue) == self.waiting
        assert len(self.queue) == len(self.waiting)
        assert self.queue.tokens == sum(each.tokens for each in self.waiting)
        assert self.queue.bound == Counter(each.bound_to for each in self.waiting if each.bound_to)


QueueIsAList.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestQueueIsAList = QueueIsAList.TestCase
