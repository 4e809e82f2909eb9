"""Bytes to records and back: the Avro contracts of every topic, their registry and the error tree.
It knows nothing of Kafka, Faust or torch, so a client may use it alone."""
