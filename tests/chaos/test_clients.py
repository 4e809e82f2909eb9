"""What other people's producers do: transactions, whose marks take offsets, and every compression that Kafka knows."""

import random
import time
from contextlib import closing

import confluent_kafka
import pytest

from schemas.confluent import ConfluentRegistry
from schemas.wire import Encoder
from tests.chaos.harness import CONTRACTS, crew, crowd, judge, seed

pytestmark = pytest.mark.slow

WATCHDOG_S = 5


def test_transactions_and_compressions_are_read_and_their_marks_are_no_lag(shop_settings, tmp_path):
    settings, sent = shop_settings(watchdog_s=WATCHDOG_S), crowd(random.Random(seed()), 200)
    with closing(ConfluentRegistry(settings.registry())) as registry:
        encoders = {name: Encoder(registry, getattr(settings.topics, name), c) for name, c in CONTRACTS.items()}
    with crew(settings, tmp_path) as group:
        worker = group.start()
        for number, compression in enumerate(("none", "gzip", "lz4", "snappy", "zstd")):
            producer = confluent_kafka.Producer(
                settings.librdkafka()
                | {"transactional.id": f"{settings.app_id}-shop", "partitioner": "murmur2_random"}
                | {"compression.type": compression, "linger.ms": 20}
            )
            producer.init_transactions(30)
            producer.begin_transaction()
            for name, event in sent[40 * number : 40 * number + 40]:
                producer.produce(getattr(settings.topics, name), encoders[name](event), event["user_id"].encode())
            producer.commit_transaction(30)
        group.finish()
        time.sleep(3 * WATCHDOG_S)
        assert worker.process.poll() is None, worker.log.read_text()[-3000:]
        assert worker.ready()
        judge("transactions", settings, sent[:200], group)
