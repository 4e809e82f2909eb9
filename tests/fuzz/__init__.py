"""Inputs drawn by seed and number, thrown at what strangers can reach: only stated answers may come out, in time.
`python -m tests.fuzz` runs it for as long as it is told; tests/test_fuzz.py for seconds.
"""

TARGETS = {
    "decoder": "tests.fuzz.decoder:Decoding",
    "worker": "tests.fuzz.worker:Scoring",
    "mapping": "tests.fuzz.mapping:Mappings",
    "rules": "tests.fuzz.rules:Policies",
    "http": "tests.fuzz.http:Requests",
}
"""Name to import path: a subprocess loads only its own."""
