"""How often Python looks for garbage in cycles: seldom, in processes that make objects by the hundred thousand.
They make next to no cycles, and each look goes through what is kept: at every 700 new objects, a third of the CPU.
"""

import gc

#: New objects until the youngest are looked through, and looks until older ones are.
THRESHOLDS = (100_000, 50, 100)


def seldom() -> None:
    """For this process, from now on."""
    gc.set_threshold(*THRESHOLDS)
