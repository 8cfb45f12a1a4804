"""One of two runs beside each other: a process that waits for its start, then works."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from tasks.core.limits.local import LocalLedger
from tests.bench.children import end_with_parent, leave
from tests.bench.contenders import dispatched
from tests.bench.contest import Contest, Outcome, address_of
from tests.bench.scenarios import Load

READY = "ready"


@dataclass(frozen=True)
class Share:
    """What one run translates, and where: every `of`-th text of a load, from `number` on."""

    hosts: list[tuple[str, int]]
    folder: str
    reports: int
    seed: int
    number: int
    of: int = 2

    def texts(self) -> tuple[str, ...]:
        """Its texts."""
        return Load.drawn(self.reports, self.seed).texts[self.number :: self.of]


async def translate(share: Share) -> Outcome:
    """Translate it, under the limit of the folder."""
    hosts = [address_of(url, slots) for url, slots in share.hosts]
    contest = Contest(hosts, [], asyncio.Event(), share.texts(), share.seed)
    return await dispatched(contest, "pull", LocalLedger(Path(share.folder)))


def main() -> None:
    """Say that everything is imported, wait for a word, work, and write what came of it."""
    share = Share(**json.loads(sys.argv[1]))
    print(READY, flush=True)
    if os.read(sys.stdin.fileno(), 1024):
        end_with_parent()
        print(json.dumps(asdict(asyncio.run(translate(share)))))
        leave()


if __name__ == "__main__":
    main()
