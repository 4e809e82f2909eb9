"""Labels: those that follow from events, and the event-time join of all of them to what was served.
Pure but for RocksDB in `store`: no Kafka, no clock, no torch. Who runs it brings records, time and transactions.

One partition number of `served.<task>` of every task and of `events.labels` belongs together: all are keyed by the
label's target id and must have one partition count. Over it a runner holds

    store = LabelStore(folder)                       # one for all its partitions
    state = State(store, partition)                  # one a partition, shared by its joins
    joins = {task.name: Join(Rule.of(task), state)}  # one a task
    watermark = Watermark(lateness_ms=..., idle_ms=..., start=...)   # its parts: these topics' partitions
    life = SourceLife(times)                         # one for all partitions: a shop's heartbeat comes on any

and goes round, one step a transaction:

1. Read a batch of served records and of labels, decode them, `join.fetch` their targets. Tell `watermark.observe`
   and `life.seen` of each with its broker timestamp, and `watermark.at_end` where there is nothing left to read.
2. `join.served(record, partition, offset)`, `join.label(label, now)` and, while it is `behind`, `join.advance(
   watermark.at(now), life.until(rule.sources), now)` give `Joined`: `Joined.example(served)` is the TrainingExample,
   once the served record at (partition, offset) was read for its features. They come in order of offset where
   windows close. A BadRecord is a dead letter.
3. In one Kafka transaction: `state.changes` to the changelog (a compacted topic, the partition named explicitly),
   the examples, the input offsets, and a frontier of `watermark.at(now)` and `life.times`.
4. Committed: `state.stored(offset)`, the changelog offset of the last change. Refused: `state.discard()`, and read
   again from the committed offsets.

On assignment: fence the predecessor, then `state.restore(records, offset)` with the changelog from `state.position`
on (a deletion is a None), then go on at the committed offsets. A position that is not in the changelog any more:
`store.drop(partition)` and read it whole. `derive` makes labels of clicks and orders, by user partition, before all
this: it publishes them to `events.labels` and, when it has read on, a `heartbeat` to each partition of it.
"""
