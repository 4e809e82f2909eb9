"""CEL as somebody may write it: mostly of the right types, so that it is evaluated, and sometimes not CEL at all."""

from collections.abc import Mapping
from random import Random

from streams.policy.facts import FACTS

FACTS_OF: Mapping[str, list[str]] = {
    kind: [name for name, fact in FACTS.items() if fact.type == kind] for kind in {f.type for f in FACTS.values()}
}
LITERALS: Mapping[str, tuple[str, ...]] = {
    "bool": ("true", "false", "true || 1 / 0 > 0"),
    "int": ("0", "1", "-1", "9223372036854775807", "-9223372036854775808", "int('x')", "1 / 0", "size('')"),
    "double": ("0.0", "-1.5", "1e308", "1.0 / 0.0", "0.0 / 0.0", "double('NaN')", "double(9223372036854775807)"),
    "string": (
        "''", "'x'", "'\\u0000'", "'😀'", "string(1e308)", "'" + "y" * 200 + "'", "r'[a-z]+$'", "string(b'\\xff')",
    ),
    "list": ("[]", "[1, 2, 3]", "['a', 1, null, 2.5]", "[[1], [[2]]]", "order.items"),
    "dyn": (
        "dyn(1)", "null", "attributes.a", "attributes['vpn']", "order.items[0].quantity", "order.items[99].item_id",
        "order.items[-1]", "{'a': 1}.b", "[1][5]", "timestamp('2026-01-01T00:00:00Z')", "duration('1s')",
    ),
}  # fmt: skip
SHAPES: Mapping[str, tuple[str, ...]] = {
    "bool": (
        "{bool} && {bool}", "{bool} || {bool}", "!({bool})", "({bool}) ? {bool} : {bool}", "{int} < {int}",
        "{double} >= {double}", "{string} == {string}", "{string}.startsWith({string})", "{string}.contains({string})",
        "{string}.matches({string})", "{string} in {list}", "{list}.all(x, x == {dyn})", "{list}.exists(x, {bool})",
        "{list}.exists_one(x, x != {dyn})", "{dyn} == {dyn}", "{dyn} > {dyn}", "has(attributes.a)",
        "'vpn' in attributes", "{list} == {list}", "dyn({int}) == dyn({double})", "type({dyn}) == {type}",
    ),
    "int": (
        "{int} + {int}", "{int} * {int}", "{int} / {int}", "{int} % {int}", "-({int})", "size({string})",
        "size({list})", "int({double})", "int({string})", "int({dyn})", "timestamp({string}).getFullYear()",
    ),
    "double": (
        "{double} + {double}", "{double} * {double}", "{double} / {double}", "double({int})", "double({string})",
        "-({double})",
    ),
    "string": (
        "{string} + {string}", "string({int})", "string({double})", "string({dyn})", "string(bytes({string}))",
    ),
    "list": (
        "{list} + {list}", "{list}.map(x, {dyn})", "{list}.map(x, x)", "{list}.filter(x, {bool})",
        "[{dyn}, {string}, {list}]",
    ),
    "dyn": (
        "dyn({int})", "dyn({string})", "dyn({list})", "{list}[{int}]", "attributes[{string}]", "{{{string}: {dyn}}}",
    ),
}  # fmt: skip
TYPES = ("int", "double", "string", "list", "map", "bool", "null_type", "bytes")
BROKEN = ("(", ")", "'", "\\", "..", "€", "/* */", "//", "?:", "0x", "1e", "in", "__import__('os')", "{{", "\n", "\t#")


def condition(random: Random) -> str:
    text = expression(random, "bool", 0)
    match random.randrange(24):
        case 0:
            at = random.randrange(len(text) + 1)
            return text[:at] + random.choice(BROKEN) + text[at:]
        case 1:
            return text[: random.randrange(len(text) + 1)]
        case 2:
            return (
                random.choice(("(", "!", "-", "[", "{'a':", "a.", "true ? ")) * random.choice((20, 300, 3_900)) + text
            )
        case 3:
            return text + random.choice((" || true", " + 1", ".a", "[0]", ".map(x, x)")) * random.choice((10, 300))
        case 4:
            return "['a']" + ".map(x, x + x)" * random.choice((1, 2, 3, 30)) + " == []"
        case 5:
            return f"{expression(random, random.choice(list(SHAPES)), 2)} == {expression(random, 'dyn', 2)}"
    return text


def expression(random: Random, kind: str, depth: int) -> str:
    """Of the type, by the words alone: what it is given may still make it another."""
    if depth > 4 or random.random() < 0.2 + 0.15 * depth:
        facts = FACTS_OF.get(kind)
        return random.choice(facts) if facts and random.random() < 0.6 else random.choice(LITERALS[kind])
    shape = random.choice(SHAPES[kind])
    parts = shape.replace("{{", "\0").replace("}}", "\1")
    for inner in (*SHAPES, "type"):
        while f"{{{inner}}}" in parts:
            made = random.choice(TYPES) if inner == "type" else f"({expression(random, inner, depth + 1)})"
            parts = parts.replace(f"{{{inner}}}", made.replace("{", "\0").replace("}", "\1"), 1)
    return parts.replace("\0", "{").replace("\1", "}")
