"""Asks the workers' and the learners' Prometheus pages every other second, and wakes who shows the figures.
One task for all pages: however many people look, a worker is asked once a round.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import aiohttp

from streams.console.ops.rates import LEARNER, WORKER, Answer, History, Labels, parsed

log = logging.getLogger(__name__)

EVERY_S, PATIENCE_S = 2.0, 1.5
LONGEST = 4_000_000  # bytes of a page

Clock = Callable[[], float]


class Scraper:
    """`run` until it is cancelled; everything else from the event loop, too. clock: UTC seconds."""

    def __init__(self, workers: Sequence[str], learners: Sequence[str], clock: Clock = time.time) -> None:
        """Addresses as host:port."""
        self._workers, self._learners, self._clock = tuple(workers), tuple(learners), clock
        self.workers, self.learners = History(), History()
        self.rounds = 0
        self.stopped = False
        self._went_round = asyncio.Condition()

    async def run(self, every_s: float = EVERY_S) -> None:
        timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
        async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as session:
            while True:
                begun = time.monotonic()
                await self.round(session)
                await asyncio.sleep(max(0.1, every_s - (time.monotonic() - begun)))

    async def round(self, session: aiohttp.ClientSession) -> None:
        """Asks everybody once, all at the same time."""
        workers, learners = await asyncio.gather(
            self._asked(session, self._workers, WORKER), self._asked(session, self._learners, LEARNER)
        )
        now_ms = int(self._clock() * 1000)
        self.workers.add(now_ms, workers)
        self.learners.add(now_ms, learners)
        async with self._went_round:
            self.rounds += 1
            self._went_round.notify_all()

    async def stop(self) -> None:
        """Lets go of all who wait."""
        async with self._went_round:
            self.stopped = True
            self._went_round.notify_all()

    async def after(self, rounds: int, patience_s: float) -> int:
        """Returns when there were more rounds than that, or after `patience_s`: how many there were."""
        async with self._went_round:
            with suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await self._went_round.wait_for(lambda: self.rounds > rounds or self.stopped)
        return self.rounds

    async def _asked(
        self, session: aiohttp.ClientSession, addresses: Sequence[str], wanted: Mapping[str, Labels]
    ) -> dict[str, Answer]:
        answers = await asyncio.gather(*(self._answer(session, address, wanted) for address in addresses))
        return dict(zip(addresses, answers, strict=True))

    async def _answer(self, session: aiohttp.ClientSession, address: str, wanted: Mapping[str, Labels]) -> Answer:
        try:
            async with session.get(f"http://{address}/metrics", allow_redirects=False) as response:
                at_ms = int(self._clock() * 1000)
                if response.status != 200:
                    return Answer(at_ms, problem=f"answers with status {response.status}")
                page = await response.content.read(LONGEST)
            return Answer(at_ms, await asyncio.to_thread(parsed, page.decode(errors="replace"), wanted))
        except TimeoutError:
            problem = f"no answer in {PATIENCE_S:g} s"
        except (aiohttp.ClientError, OSError) as error:
            problem = "nobody listens" if isinstance(error, aiohttp.ClientConnectorError) else _short(error)
        except (ValueError, KeyError, IndexError) as error:  # what the parser raises for a page that is none
            problem = f"what it shows is no metrics page: {_short(error)}"
        return Answer(int(self._clock() * 1000), problem=problem)


def _short(error: Exception) -> str:
    return (str(error) or type(error).__name__)[:200]
