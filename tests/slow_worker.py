"""`headrace worker` that takes its time, run as a process by the tests: for each partition that it has acquired so many
seconds, and before it joins the group until a file is there. It logs `acquired N`, and `ready to join`."""

import asyncio
import logging
import sys
import time
from pathlib import Path
from typing import Any

from streams import logs
from streams.changelog import Changelog
from streams.config import Settings
from streams.worker import Worker, run

log = logging.getLogger(__name__)


def main(seconds: float, gate: Path | None = None) -> None:
    restore, ready = Changelog.restore, Worker.ready

    def slowly(self: Changelog, partition: int, *args: Any) -> Any:
        log.info("acquired %d", partition)
        time.sleep(seconds)
        return restore(self, partition, *args)

    async def when_let(self: Worker, serving: "asyncio.Future[None]") -> None:
        await ready(self, serving)
        log.info("ready to join")
        while gate is not None and not gate.exists():
            await asyncio.sleep(0.05)

    Changelog.restore = slowly  # type: ignore[assignment,method-assign]  # it is the point
    Worker.ready = when_let  # type: ignore[method-assign]  # it is the point
    settings = Settings()
    logs.setup(settings)
    run(settings)


if __name__ == "__main__":
    main(float(sys.argv[1]), *map(Path, sys.argv[2:]))
