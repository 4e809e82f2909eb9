"""History first: a file or an old topic published as events that move the state and are not scored.
It goes through the event topics, not past them: recovery, forgetting and the first training then find it there.
"""
