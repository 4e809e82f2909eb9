"""The smallest worker, run as a process by the tests: every input record becomes one output, nothing else.
An output's key is its input's place, `topic/partition/offset`: a test can count what is lost or repeated."""

import asyncio
import json
import logging
import sys
from typing import Any

from schemas.errors import HeadraceError
from streams.app import App, make_app, run_app
from streams.config import Settings
from streams.intake import Intake, MicroBatch
from streams.producer import Output, Producer


def relay(micro: MicroBatch) -> list[Output]:
    return [
        (f"{record.topic}/{record.partition}/{record.offset}".encode(), record.value, None, None)
        for record in micro.records()
    ]


async def score(app: App, intake: Intake, output: str, pause_s: float) -> None:
    """Takes, computes for `pause_s`, sends, and acknowledges behind its own back."""
    producer = Producer(app.settings, lease=app.lease)
    slots = asyncio.Semaphore(app.settings.batch.in_flight)

    async def settle(micro: MicroBatch, sent: Any) -> None:
        await sent
        micro.done()
        slots.release()

    try:
        while True:
            await slots.acquire()
            micro = await intake.take()
            await asyncio.sleep(pause_s)
            micro.computed()
            app.add_future(settle(micro, producer.send(output, relay(micro))))
    finally:
        await producer.close(abandon=True)


def main(arguments: dict[str, Any]) -> None:
    logging.basicConfig(level="WARNING")
    app = make_app(Settings(**arguments["settings"]))
    intake = app.intake(*arguments["inputs"])

    async def assigned(partitions: Any, kept: Any) -> None:
        mine = sorted(f"{tp.topic}/{tp.partition}" for tp in partitions)
        print(json.dumps({"assigned": mine, "kept": len(kept)}), flush=True)

    app.on_assigned(assigned)

    async def scoring() -> None:
        await score(app, intake, arguments["output"], arguments["pause_s"])

    app.task(scoring)
    try:
        run_app(app)
    except HeadraceError as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
