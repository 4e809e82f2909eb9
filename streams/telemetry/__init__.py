"""OpenTelemetry traces from a publisher's headers through to the score: off by default, and then nothing is imported.
Not `streams.tracing`, which says from what a score that exists was computed.
"""
