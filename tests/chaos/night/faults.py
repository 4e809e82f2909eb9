"""The faults: each kind by name, with what it strikes, for how long, and what applies it and returns its heal.
A heal blocks until the thing is whole again, so that the next fault meets a shop that can bear it.
"""

import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from streams.local import LocalBroker
from tests.chaos.night import clock
from tests.chaos.night.disk import limit_files
from tests.chaos.night.scene import LEARNER, WORKERS, Scene
from tests.chaos.night.schedule import Bounds

Heal = Callable[[], None]
Apply = Callable[[Scene, str, random.Random, float], Heal]
"""Of the scene, the target, the fault's own luck, and how long it is to last, seconds."""

START_S = 120.0
JUMPS_S = (-86_400.0, -3_600.0, -120.0, 120.0, 4 * 3_600.0, 86_400.0)


@dataclass(frozen=True, slots=True)
class Fault:
    bounds: Bounds
    apply: Apply


def nothing() -> None:
    """The heal of what is over by itself."""


def kill(scene: Scene, target: str, rng: random.Random, lasts_s: float) -> Heal:
    """SIGKILL; nobody in its place until healed."""
    scene.staff.hold(target)
    scene.staff.signal(target, signal.SIGKILL)
    return lambda: scene.staff.release(target)


def freeze(scene: Scene, target: str, rng: random.Random, lasts_s: float) -> Heal:
    """SIGSTOP, and it goes on as if nothing had been."""
    scene.staff.signal(target, signal.SIGSTOP)
    return lambda: scene.staff.signal(target, signal.SIGCONT)


def kill_broker(scene: Scene, target: str, rng: random.Random, lasts_s: float) -> Heal:
    broker = _broker(scene, target)
    broker.kill()
    return lambda: _back(scene, broker)


def freeze_broker(scene: Scene, target: str, rng: random.Random, lasts_s: float) -> Heal:
    """SIGSTOP for longer than its session with the controller, or for less; then it goes on."""
    pid = _broker(scene, target).status().pid
    assert pid is not None, "a broker that runs: faults that touch brokers are never on at once"
    os.kill(pid, signal.SIGSTOP)

    def heal() -> None:
        os.kill(pid, signal.SIGCONT)
        scene.wait_in_sync()

    return heal


def change_controller(scene: Scene, target: str, rng: random.Random, lasts_s: float) -> Heal:
    """The broker that leads the cluster is stopped in order, or killed: another one takes over."""
    broker = scene.cluster.controller()
    scene.say(f"the controller is {broker.folder.name}")
    if rng.random() < 0.5:
        broker.kill()
    else:
        broker.stop()
    return lambda: _back(scene, broker)


def cut(scene: Scene, target: str, rng: random.Random, lasts_s: float) -> Heal:
    """Connections to a broker end and are refused, or stay open while nothing passes."""
    proxy = scene.proxies[_number(target)]
    held = rng.random() < 0.5
    scene.say(f"connections to {target} {'stand still' if held else 'are refused'}")
    (proxy.hold if held else proxy.cut)()
    return proxy.mend


def slow(scene: Scene, target: str, rng: random.Random, lasts_s: float) -> Heal:
    proxy = scene.proxies[_number(target)]
    proxy.slow(rng.uniform(0.05, 0.4))
    return proxy.mend


def fill_disk(scene: Scene, target: str, rng: random.Random, lasts_s: float) -> Heal:
    disk, staff = scene.disks[target], scene.staff
    disk.fill(staff.pids(target))
    scene.say(f"the disk of {target} is full ({'a tmpfs' if disk.real else 'by a limit on files'})")
    return lambda: disk.empty(staff.pids(target))


def fill_broker_disk(scene: Scene, target: str, rng: random.Random, lasts_s: float) -> Heal:
    """By a limit on files: a broker that cannot write its log ends, and comes back when there is room."""
    broker = _broker(scene, target)
    if (pid := broker.status().pid) is not None:
        limit_files(pid, 0)

    def heal() -> None:
        scene.say(f"{target} with a full disk {'goes on' if broker.status().running else 'has ended'}")
        broker.kill()
        _back(scene, broker)

    return heal


def jump_clock(scene: Scene, target: str, rng: random.Random, lasts_s: float) -> Heal:
    """The wall clock of a process of ours jumps there, and back at the end."""
    path, seconds = scene.staff.members[target].clock, rng.choice(JUMPS_S)
    scene.say(f"the clock of {target} jumps by {seconds:+,.0f} s")
    clock.jump(path, seconds)
    return lambda: clock.jump(path, 0)


def take_registry(scene: Scene, target: str, rng: random.Random, lasts_s: float) -> Heal:
    scene.registry.kill()
    return lambda: scene.registry.start(START_S)


def take_store(scene: Scene, target: str, rng: random.Random, lasts_s: float) -> Heal:
    """The store of releases is gone, and a worker has to start meanwhile."""
    away = scene.store.with_name("store.away")
    scene.store.rename(away)
    scene.staff.signal(target, signal.SIGKILL)

    def heal() -> None:
        away.rename(scene.store)

    return heal


def flood(scene: Scene, target: str, rng: random.Random, lasts_s: float) -> Heal:
    scene.load.flood(rng, rng.randrange(300, 1_000))
    return nothing


def hot_key(scene: Scene, target: str, rng: random.Random, lasts_s: float) -> Heal:
    scene.load.hot(rng, rng.randrange(300, 1_000))
    return nothing


def rolling_restart(scene: Scene, target: str, rng: random.Random, lasts_s: float) -> Heal:
    """Each in order; the staff starts it again."""
    for name in (*WORKERS, LEARNER):
        code = scene.staff.end(name)
        if code != 0:
            scene.say(f"{name} was told to end, and ended with {code}")
        time.sleep(lasts_s / 3)
    return nothing


def rebalance_storm(scene: Scene, target: str, rng: random.Random, lasts_s: float) -> Heal:
    """Workers come and go, in order or not, before the group has come to rest."""
    names = []
    for _ in range(rng.randrange(2, 4)):
        scene.guests += 1
        names.append(name := f"guest {scene.guests}")
        scene.staff.hire(scene.member(name))
        time.sleep(lasts_s / 3)
        if rng.random() < 0.5:
            scene.staff.hold(name)
            scene.staff.end(name)

    def heal() -> None:
        for name in names:
            scene.staff.leave(name)

    return heal


def _number(target: str) -> int:
    return int(target.rpartition(" ")[2]) - 1


def _broker(scene: Scene, target: str) -> LocalBroker:
    return scene.cluster.brokers[_number(target)]


def _back(scene: Scene, broker: LocalBroker) -> None:
    broker.start(timeout=START_S)
    scene.wait_in_sync()


def _each(*names: str, also: frozenset[str] = frozenset()) -> dict[str, frozenset[str]]:
    """Targets that touch themselves, and `also`."""
    return {name: frozenset({name}) | also for name in names}


BROKERS = {f"broker {number}": frozenset({"brokers"}) for number in (1, 2, 3)}
CONTROLLER = {"the controller": frozenset({"brokers"})}
STAFF = _each(*WORKERS, LEARNER)
ALL = {"all of ours": frozenset((*WORKERS, LEARNER))}

FAULTS: dict[str, Fault] = {
    "kill a worker": Fault(Bounds(_each(*WORKERS), 0, 8), kill),
    "kill the learner": Fault(Bounds(_each(LEARNER), 0, 8), kill),
    "kill a broker": Fault(Bounds(BROKERS, 2, 15, settle_s=20), kill_broker),
    "freeze a worker": Fault(Bounds(_each(*WORKERS), 2, 25), freeze),
    "freeze the learner": Fault(Bounds(_each(LEARNER), 2, 25), freeze),
    "freeze a broker": Fault(Bounds(BROKERS, 2, 15, settle_s=15), freeze_broker),
    "change the controller": Fault(Bounds(CONTROLLER, 2, 8, settle_s=20), change_controller),
    "cut connections": Fault(Bounds(BROKERS, 1, 20, settle_s=5), cut),
    "slow a link": Fault(Bounds(BROKERS, 5, 25, settle_s=2), slow),
    "fill a disk": Fault(Bounds(STAFF, 3, 12, settle_s=5), fill_disk),
    "fill a broker's disk": Fault(Bounds(BROKERS, 2, 10, settle_s=20), fill_broker_disk),
    "jump a clock": Fault(Bounds(STAFF, 3, 15), jump_clock),
    "take the registry": Fault(Bounds({"the registry": frozenset({"registry"})}, 5, 25, settle_s=5), take_registry),
    "take the store": Fault(Bounds(_each(*WORKERS, also=frozenset({"store"})), 5, 15, settle_s=5), take_store),
    "flood with poison": Fault(Bounds({"the inputs": frozenset({"poison"})}, 0, 1), flood),
    "heat a key": Fault(Bounds({"one customer": frozenset({"hot"})}, 0, 1), hot_key),
    "restart in turn": Fault(Bounds(ALL, 3, 9, settle_s=5), rolling_restart),
    "storm of rebalances": Fault(Bounds({"the group": frozenset({"guests"})}, 6, 18, settle_s=5), rebalance_storm),
}  # fmt: skip
