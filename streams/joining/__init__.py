"""The label join on Kafka: what `streams.labels` says, read, written and kept in transactions, over all partitions.

reading, lookup     records in order from kept offsets, and single ones by offset
ledger              a step's changes, outputs and offsets, all or nothing
deriver, joiner     events to labels, by user; labels and `served` to examples, by target
service             all of them as one process: `headrace learner`
"""
