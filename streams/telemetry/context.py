"""W3C trace contexts in the headers of records: read, and handed on. Pure: nothing of OpenTelemetry is needed for it.
What is no context is passed over, as the recommendation has it: a trace is never a reason to refuse an event.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"
SAMPLED = 1
MOST_STATE = 512
"""Characters of a request's tracestate that are handed on; the recommendation asks for no more."""
#: version, trace id, span id, flags; a version after 00 may have more behind them.
PATTERN = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
#: Of a tracestate: a key and printable characters; what they say is their vendor's.
MEMBER = re.compile(r"[a-z0-9][a-z0-9_*/@-]{0,255}=[ -+\--<>-~]{0,256}")
MOST_MEMBERS = 32

Headers = list[tuple[str, bytes]]


class Parent(NamedTuple):
    """Who caused a record: the publisher's span, and what to hand on where no span of ours comes between."""

    trace_id: int
    span_id: int
    flags: int
    traceparent: bytes
    tracestate: bytes | None

    @property
    def sampled(self) -> bool:
        return bool(self.flags & SAMPLED)

    def carried(self, span_id: int | None = None) -> Headers:
        """Headers of what the record caused: by our span of that id, or by the publisher's own."""
        here = self.traceparent if span_id is None else traceparent(self.trace_id, span_id)
        state = [] if self.tracestate is None else [(TRACESTATE, self.tracestate)]
        return [(TRACEPARENT, here), *state]


def parent_of(headers: Sequence[tuple[str, bytes | None]]) -> Parent | None:
    """None where no header is a context. Of several the last counts, as Kafka's own clients have it."""
    found = state = None
    for name, value in headers:
        if name == TRACEPARENT:
            found = value
        elif name == TRACESTATE:
            state = value
    match = PATTERN.fullmatch(found) if found else None
    if match is None:
        return None
    version, trace, span, flags, more = match.groups()
    trace_id, span_id = int(trace, 16), int(span, 16)
    if version == b"ff" or (version == b"00" and more) or not trace_id or not span_id:
        return None
    assert found is not None
    return Parent(trace_id, span_id, int(flags, 16), found, state)


def parent_of_request(traceparents: Sequence[str], tracestates: Sequence[str]) -> Parent | None:
    """Of an HTTP request, by all its headers of these names. Two contexts are none; a state without one is nothing."""
    if len(traceparents) != 1:
        return None
    state = ",".join(tracestates)
    given = [(TRACEPARENT, traceparents[0].encode(errors="replace"))]
    if _is_state(state):
        given.append((TRACESTATE, state.encode()))
    return parent_of(given)


def _is_state(text: str) -> bool:
    members = [member for each in text.split(",") if (member := each.strip(" \t"))]
    fits = len(text) <= MOST_STATE and 0 < len(members) <= MOST_MEMBERS
    return fits and all(MEMBER.fullmatch(member) for member in members)


def traceparent(trace_id: int, span_id: int) -> bytes:
    """Of a sampled span."""
    return b"00-%032x-%016x-01" % (trace_id, span_id)
