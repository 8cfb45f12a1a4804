"""The hosts and the reports of each scenario, and what happens to a host on the way."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp
from typing import Literal, NamedTuple

from deployments.local_ollama.lexicon import Lexicon
from deployments.local_ollama.settings import Settings
from deployments.local_ollama.timing_engine import (
    CHARACTERS_PER_TOKEN,
    count_tokens,
    seconds_per_token,
)
from tests.bench.bound import Capacity, lower_bound_s

REPORTS = 400
MEAN_TOKENS = 60
SIGMA = 0.8
"""Of the logarithm of a report's length."""

JITTER = 0.26
"""Largest relative error of a length predicted from the source; uniform, so 15 % on average."""

HAPPENS_AT = 0.4
"""Of the time that all hosts together need where nothing happens."""

SLOWER = 4.0
FEWEST_TOKENS = 4

Happening = Literal["dies", "hangs", "slows", "joins"]


class HostPlan(NamedTuple):
    """Slots, and the speed of each beside those of the other hosts."""

    slots: int
    speed: float


@dataclass(frozen=True)
class Scenario:
    """Hosts, and what happens to the last one."""

    key: str
    title: str
    hosts: tuple[HostPlan, ...]
    happening: Happening | None = None
    all_busy_s: float = 20.0
    """How long REPORTS reports take when every slot is busy all the time."""

    @property
    def speed(self) -> float:
        """Of all slots together."""
        return sum(host.slots * host.speed for host in self.hosts)


_FAST_LAST = (HostPlan(4, 1), HostPlan(4, 1), HostPlan(4, 2))

# At these times an answer takes 0.25 s on the fastest slots of B and D, and 0.4 s or more
# elsewhere; a request costs some 3 ms beside it. D is short because the baselines take ten
# times as long and more.
SCENARIOS = {
    each.key: each
    for each in (
        Scenario("A", "two equal hosts, 4 slots", (HostPlan(4, 1), HostPlan(4, 1))),
        Scenario("B", "two hosts, speeds 1:4", (HostPlan(4, 1), HostPlan(4, 4))),
        Scenario("C", "four equal hosts, 4 slots", (HostPlan(4, 1),) * 4),
        Scenario(
            "D",
            "1, 4 and 8 slots, speeds 1:2:6",
            (HostPlan(1, 1), HostPlan(4, 2), HostPlan(8, 6)),
            all_busy_s=12.0,
        ),
        Scenario("E", "speeds 1:1:2, the fast one dies", _FAST_LAST, "dies"),
        Scenario("F", "speeds 1:1:2, the fast one hangs", _FAST_LAST, "hangs"),
        Scenario("G", "speeds 1:1:2, the fast one slows down 4x", _FAST_LAST, "slows"),
        Scenario("H", "speeds 1:1:2, the fast one joins late", _FAST_LAST, "joins"),
    )
}


@dataclass(frozen=True)
class Load:
    """Reports, and the work in each: seconds on a slot that makes one token per second."""

    texts: tuple[str, ...]
    work: tuple[float, ...]
    seed: int

    @classmethod
    def drawn(cls, count: int, seed: int) -> Load:
        """Reports of log-normal length, which servers with this seed give back as they are."""
        rng = random.Random(seed)
        mean = MEAN_TOKENS / exp(SIGMA**2 / 2)
        lengths = [round(mean * rng.lognormvariate(0, SIGMA)) for _ in range(count)]
        texts = tuple(
            _text(number, max(FEWEST_TOKENS, each)) for number, each in enumerate(lengths)
        )
        one_per_second = Settings(decode_rate=1.0, jitter=JITTER, seed=seed)
        answers = map(Lexicon.french_to_english().translate, texts)
        work = tuple(
            count_tokens(answer) * seconds_per_token(answer, one_per_second) for answer in answers
        )
        return cls(texts, work, seed)


def _text(number: int, tokens: int) -> str:
    """A text of so many tokens, in words that occur nowhere else and in no lexicon."""
    words = (f"r{number}w{at}" for at in range(tokens))
    characters = tokens * CHARACTERS_PER_TOKEN
    return " ".join(words)[:characters].rstrip().ljust(characters, "x")


@dataclass(frozen=True)
class Timing:
    """A scenario and a load, with speeds in tokens per second."""

    scenario: Scenario
    load: Load
    all_busy_s: float

    @property
    def tokens_per_s(self) -> float:
        """Of a slot of speed 1."""
        return sum(self.load.work) / (self.all_busy_s * self.scenario.speed)

    @property
    def happens_at_s(self) -> float:
        """When the last host dies, hangs, slows down or joins, after the first request."""
        return HAPPENS_AT * self.all_busy_s

    def settings(self) -> list[Settings]:
        """Servers in which nothing but decoding takes time."""
        return [
            Settings(
                slots=host.slots,
                decode_rate=host.speed * self.tokens_per_s,
                prefill_rate=0.0,
                load_seconds=0.0,
                slowdown=0.0,
                jitter=JITTER,
                seed=self.load.seed,
            )
            for host in self.scenario.hosts
        ]

    def bound_s(self, happened_at_s: float | None = None) -> float:
        """The time no schedule can beat, when it happened then."""
        at_s = self.happens_at_s if happened_at_s is None else happened_at_s
        return lower_bound_s(self.load.work, self._capacities(at_s))

    def _capacities(self, at_s: float) -> Sequence[Capacity]:
        *others, last = (
            Capacity(host.slots, ((0.0, host.speed * self.tokens_per_s),))
            for host in self.scenario.hosts
        )
        speed = last.speed_at(0.0)
        match self.scenario.happening:
            case "dies" | "hangs":
                speeds = ((0.0, speed), (at_s, 0.0))
            case "slows":
                speeds = ((0.0, speed), (at_s, speed / SLOWER))
            case "joins":
                speeds = ((0.0, 0.0), (at_s, speed))
            case None:
                return [*others, last]
        return [*others, Capacity(last.slots, speeds)]


def timed(scenario: Scenario, reports: int, seed: int, *, time_scale: float = 1.0) -> Timing:
    """A scenario with so many reports; fewer take less time, each of them as long as ever."""
    all_busy_s = scenario.all_busy_s * time_scale * reports / REPORTS
    return Timing(scenario, Load.drawn(reports, seed), all_busy_s)
