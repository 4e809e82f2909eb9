"""The name of this machine's processor, as precisely as equal results need it."""

import platform
from functools import cache
from pathlib import Path

INSTRUCTIONS = (
    "amx_bf16",
    "avx512_bf16",
    "avx512_vnni",
    "avx512f",
    "avx2",
)  # widest first: it decides the kernels


@cache
def processor() -> str:
    """Model name, family/model/stepping and widest instruction set; where unknown, the architecture."""
    try:
        facts = described(Path("/proc/cpuinfo").read_text())
    except OSError:
        facts = {}
    name = facts.get("model name", platform.machine())
    numbers = "/".join(facts[key] for key in ("cpu family", "model", "stepping") if key in facts)
    flags = facts.get("flags", "").split()
    widest = next((flag for flag in INSTRUCTIONS if flag in flags), "")
    return " ".join(part for part in (name, numbers, widest) if part)


def described(cpuinfo: str) -> dict[str, str]:
    """The first processor's lines of /proc/cpuinfo."""
    lines = (line.partition(":") for line in cpuinfo.split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in lines}
