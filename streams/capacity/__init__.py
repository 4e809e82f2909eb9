"""Capacity: from a shop's load to cores, memory, disk, partitions and workers, by figures that were measured.
`measured` has the figures, `model` the formulas; the calculator of the documentation site has the same figures.
"""
