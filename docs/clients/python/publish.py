"""Publish a view of an item by each user: python publish.py BROKERS REGISTRY TOPIC click.avsc USER..."""

import sys
import time
import uuid
from pathlib import Path

from confluent_kafka import KafkaError, Message, Producer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

brokers, registry, topic, schema, *users = sys.argv[1:]
encode = AvroSerializer(SchemaRegistryClient({"url": registry}), Path(schema).read_text())
# murmur2_random: users go where Java clients and Headrace put them. librdkafka's default puts them elsewhere.
producer = Producer({"bootstrap.servers": brokers, "partitioner": "murmur2_random", "enable.idempotence": True})
refused = []


def acknowledged(error: KafkaError | None, message: Message) -> None:
    if error is not None:
        refused.append(error)


for user in users:
    click = {
        "event_id": str(uuid.uuid4()),  # a repeat under the same id counts once
        "event_time": int(time.time() * 1000),
        "user_id": user,
        "action": "view",
        "item_id": "item-1",
    }
    value = encode(click, SerializationContext(topic, MessageField.VALUE))
    producer.produce(topic, key=user.encode(), value=value, on_delivery=acknowledged)
    producer.poll(0)
producer.flush()
if refused:
    sys.exit(f"{len(refused)} were not taken: {refused[0]}")
print(f"published {len(users)}")
