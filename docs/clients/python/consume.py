"""Print scores as JSON lines: python consume.py BROKERS REGISTRY TOPIC GROUP [COUNT]"""

import json
import sys

from confluent_kafka import Consumer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

brokers, registry, topic, group, *count = sys.argv[1:]
decode = AvroDeserializer(SchemaRegistryClient({"url": registry}))
consumer = Consumer(
    {
        "bootstrap.servers": brokers,
        "group.id": group,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    }
)
consumer.subscribe([topic])
left = int(count[0]) if count else -1
try:
    while left:
        message = consumer.poll(1.0)
        if message is None:
            continue
        if message.error():
            sys.exit(str(message.error()))
        score = decode(message.value(), SerializationContext(topic, MessageField.VALUE))
        print(json.dumps(score, default=str), flush=True)
        consumer.commit(message)  # after the work: a score may be seen again, by its event_id, and is never missed
        left -= 1
finally:
    consumer.close()
