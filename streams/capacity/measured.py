"""The figures that capacity is reckoned from: each with the benchmark that measures it and the page that says it.
The only place of these numbers: the command, the page's table and its calculator read them here.
"""

from typing import Final, NamedTuple


class Measured(NamedTuple):
    """`said` is how `page` says it, which a test looks for: a figure that is measured again is changed in both."""

    value: float
    unit: str
    what: str
    bench: str
    page: str
    said: str


ENGINES, CAPACITY = "engines.md#measured", "capacity.md#the-figures"
SIZES = "python -m bench.capacity"


def _size(value: float, what: str) -> Measured:
    return Measured(value, "bytes", what, SIZES, CAPACITY, f"| {value:g} bytes |")


def _engine(value: float, task: str) -> Measured:
    what = f"CPU of the {task} engine, a row of a batch of 64, OpenVINO bf16"
    return Measured(value, "µs", what, "make bench-engines", ENGINES, f"{value:g}")


FIGURES: Final = {
    "worker_us": Measured(
        53.7,
        "µs",
        "CPU of a worker per event at full speed, all but the engines",
        *("make bench-throughput", "architecture.md#throughput", "53.7 elsewhere"),
    ),
    "fraud_us": _engine(50.6, "fraud"),
    "recommendations_us": _engine(58.9, "recommendations"),
    "ctr_us": _engine(70.6, "ctr"),
    "quiet_cores": Measured(
        0.82,
        "cores",
        "of a worker at 1,000 events/s, where micro-batches are small, all three tasks",
        *("make bench-latency", "architecture.md#latency", "30.0 | 0.82 |"),
    ),
    "worker_mb": Measured(
        1142,
        "MB",
        "memory of a worker with 65,536 slots and a million users on its disk",
        *("make bench-recovery", "architecture.md#recovery", "1,142 MB of memory"),
    ),
    "label_us": Measured(
        28, "µs", "CPU of the join, a label", "make bench-join", "learning.md#measured", "28 µs a label"
    ),
    "served_us": Measured(
        17, "µs", "CPU of the join, a served record", "make bench-join", "learning.md#measured", "17 µs a served record"
    ),
    "example_us": Measured(
        28, "µs", "CPU of the join, an example", "make bench-join", "learning.md#measured", "28 µs an example"
    ),
    "join_mb": Measured(
        204,
        "MB",
        "memory of the join with ten million entries that wait",
        *("python -m bench.join", "architecture.md#the-label-join", "139 | 204 |"),
    ),
    "waiting_bytes": Measured(
        221,
        "bytes",
        "on the disk, of an entry of the join that waits",
        *("make bench-join", "learning.md#measured", "221 MB on the disk"),
    ),
    "slot_bytes": _size(10649, "memory of a user in a worker's arrays"),
    "catalogue_row_bytes": _size(5666, "memory of an item or ad in a worker, with one release's tables of three tasks"),
    "row_bytes": _size(3570, "a user's packed row with a full history of 64"),
    "touch_bytes": _size(81, "a record of `entities.events`"),
    "click_bytes": _size(88, "a record of `events.clicks`"),
    "order_bytes": _size(254, "a record of `events.orders`, of three lines"),
    "impression_bytes": _size(219, "a record of `events.impressions`, of 8 ads"),
    "label_bytes": _size(122, "a record of `events.labels`"),
    "fraud_score_bytes": _size(125, "a record of `scores.fraud`"),
    "recommendations_score_bytes": _size(269, "a record of `scores.recommendations`"),
    "ctr_score_bytes": _size(223, "a record of `scores.ctr`, of 8 ads"),
    "fraud_served_bytes": _size(2130, "a record of `served.fraud`"),
    "recommendations_served_bytes": _size(1273, "a record of `served.recommendations`"),
    "ctr_served_bytes": _size(1587, "a record of `served.ctr`, of 8 ads"),
    "fraud_example_bytes": _size(2179, "a record of `training.examples` of an order"),
    "recommendations_example_bytes": _size(1190, "a record of `training.examples` of a recommendation"),
    "ctr_example_bytes": _size(1548, "a record of `training.examples` of an ad"),
}

# Settings and rules of the product, not measured; tests compare them with what they come from.
FIXED: Final = {
    "slots": 65_536,  # state.slots
    "releases_kept": 3,  # ready in memory: the live one and two to go back to
    "learner_mb": 3_000,  # learning.memory_mb
    "fine_tune_cores": 1,  # learning.threads
    "segment_mb": 64,  # of state.users and state.labels; one a partition is not compacted yet
    "dirty": 1.25,  # 1 / (1 - min.cleanable.dirty.ratio of 0.2): what the cleaner has not taken yet
    "negatives": 0.2,  # share of the ads that were not clicked that become examples
    "fraud_days": 88,  # how long an order's served record waits for labels: window and grace
    "recommendations_days": 0.5,
    "ctr_days": 1 / 24,
    "recommendations_answered_days": 7,  # and one with a click, for what is bought
    "ctr_answered_days": 7 + 1 / 24,  # the same seven days, from the click
    "entities": 5,  # card, device, address, email, ip
}
SPREAD: Final = 1.5
"""CPU figures of one machine vary by half from run to run when others use it; sizes do not vary."""


def constants() -> dict[str, float]:
    """All numbers by name: what a calculator needs."""
    return {name: figure.value for name, figure in FIGURES.items()} | FIXED
