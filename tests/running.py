"""Something that runs until it is stopped, in a thread, for as long as a test's block lasts."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar


class Stoppable(Protocol):
    def run(self) -> None: ...

    def stop(self) -> None: ...


Part = TypeVar("Part", bound=Stoppable)


@contextmanager
def running(part: Part) -> Iterator[Part]:
    """What it raises is raised where the block ends, also where the block failed: that is then the reason."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            part.run()
        except BaseException as error:  # noqa: BLE001  it is raised where the test ends
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield part
    finally:
        part.stop()
        thread.join(60)
        if failed:
            raise failed[0]
