"""What lies on Kafka of one scored event, the same score again, and a span of what was served through another release.
Everything here reads only: it joins no group, commits nothing and moves no pointer.
"""
