"""Forgetting a person: what we have of them is deleted, and what is read again does not bring them back.

persons       whom the log of the forgotten is about: a keyed hash, and a user_id under the key
entries       an entry of that log, and what all of them together say
erasures      which events are of somebody who was forgotten: what every replay obeys
ledger        the log itself: topic privacy.forgotten
forgetting    the worker's part: the state of the person
places        where a topic of ours says whose a record is; finding, deleting and looking again
compaction    a topic's deletions take effect now, not some day
letters       dead letters are written again without those of a person
receipt       what was deleted, what is the shop's, who learned from it; with a digest
pseudonyms    chosen fields of events, replaced as they are read
forget        the order of all that: `headrace forget`
"""
