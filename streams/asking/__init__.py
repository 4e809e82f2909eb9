"""Synchronous scoring: an event is posted, its score is the answer, and then the event is published with that answer.
The loop absorbs it when it comes back, says what was answered, and does not score it again.

    header, answers     the answer as the event carries it; the answers that this worker knows
    asker               one engine call for those who wait; deadlines, the fallback, publishing
    events              a request's JSON to a checked event, and a score to the answer's JSON
    ownership           which worker owns a user, and how to reach it
    door, problems      who may ask; what is said to whom it cannot be answered
    routes, document    the pages, and their OpenAPI document
"""
