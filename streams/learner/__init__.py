"""The learner: labels to examples, examples to a fine-tune, a gate, a live release, and back if it does worse.
It alone meets both Kafka and `finetune`; torch runs in a process of its own.

    training.examples -> Feed -> Arrivals -> trigger -> split -> Snapshot (files) -> finetune.run -> announce, move
    scores.shadow     -> Watching -> roll back
"""
