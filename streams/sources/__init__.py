"""Where events come from when there is no shop to hand: real data sets, one simulated world, and publishers.
Nothing here is imported by the worker; the real part and the simulated part of every stream are named in
words.
"""
