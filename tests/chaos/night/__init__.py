"""A bad night, drawn by seed: a shop on three brokers under load, and one fault after another, some at once.
`python -m tests.chaos.night` runs it; a checker over the topics then says whether anything was lost or counted twice.
"""
