"""A few days of a little generated shop, replayed: what trainings are tried on. The same in every process."""

from dataclasses import replace

from finetune.first import PLANS
from finetune.history import Recording, catalogue_from, replay
from streams.catalog import Catalogue
from streams.sources.world import World, WorldConfig
from streams.tasks import make_task
from streams.vectors import HashingEncoder, catalogue_vectors

SHOP = WorldConfig(start="2011-09-01", end="2011-09-06", shop="generated", orders_a_day=25, fraud_rate=0.2, ads=30)
FEW = {name: replace(plan, steps=20, batch=16, frozen=()) for name, plan in PLANS.items()}


def small_shop() -> tuple[Recording, Catalogue]:
    world = World(SHOP, 5)
    items, ads = world.catalog()
    catalog = catalogue_from(items, ads, catalogue_vectors(items, ads, HashingEncoder()))
    stream = [(event.topic, event.record) for event in world.events()]
    return replay(stream, [make_task(name) for name in FEW], catalog), catalog
