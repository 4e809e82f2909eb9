"""Rules in CEL, compiled by Google's own implementation: typed against what an order has, bounded in what they cost.
A rule that fails on an order (an attribute that is not there) does not fire, and is counted.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from cel_expr_python import cel

from schemas.errors import PolicyError
from streams.policy.document import Rule
from streams.policy.facts import FACTS, Order, facts_of
from streams.policy.growth import too_much

_T = cel.Type
_TYPES = {
    "bool": _T.BOOL,
    "int": _T.INT,
    "double": _T.DOUBLE,
    "string": _T.STRING,
    "map(string, dyn)": _T.Map(_T.STRING, _T.DYN),
    "list(map(string, dyn))": _T.List(_T.Map(_T.STRING, _T.DYN)),
}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*")
_NOISE = re.compile(r"\s*\[[A-Z_]+\]\s*$")
_MIXED = re.compile(r"\((?:double, int|int, double)\)")


class Rules:
    """Compiled rules. `fired` may be called from one thread at a time; `failures` counts by rule id."""

    def __init__(self, rules: Sequence[Rule], where: str) -> None:
        """Raises PolicyError that says of each bad rule what and where; a rule must be true or false."""
        env = cel.NewEnv(variables={name: _TYPES[fact.type] for name, fact in FACTS.items()})
        problems: list[str] = []
        self.rules = tuple(rules)
        self._compiled = [_compiled(env, rule, problems) for rule in rules]
        if problems:
            raise PolicyError(
                "; ".join(problems), where=where, expected="CEL over the facts of an order",
                todo="`headrace policy facts` lists what rules may read",
            )  # fmt: skip
        self._env = env
        self._names = frozenset(name for rule in rules for name in names_in(rule.when))
        self.failures: Counter[str] = Counter()

    def fired(self, order: Order) -> list[Rule]:
        """In their order."""
        if not self.rules:
            return []
        known = self._env.Activation(facts_of(order, self._names))
        return [
            rule
            for rule, expression in zip(self.rules, self._compiled, strict=True)
            if self._true(rule, expression, known)
        ]

    def _true(self, rule: Rule, expression: Any, known: Any) -> bool:
        try:
            answer = expression.eval(known)  # CEL, not Python: no side effects, no calls out, a bounded number of steps
        except RuntimeError:  # more steps than an evaluation may take
            self.failures[rule.id] += 1
            return False
        if answer.type() != _T.BOOL:  # no such key, an overflow
            self.failures[rule.id] += 1
            return False
        return bool(answer.value())


def names_in(text: str) -> set[str]:
    """Facts that an expression may read: each name, and what is left of it without its last parts."""
    found = set[str]()
    for name in _NAME.findall(text):
        parts = name.split(".")
        found |= {".".join(parts[:count]) for count in range(1, len(parts) + 1)} & FACTS.keys()
    return found


def _compiled(env: Any, rule: Rule, problems: list[str]) -> Any:
    if complaint := too_much(rule.when):
        problems.append(f"rule {rule.id}: {complaint}")
        return None
    try:
        expression = env.compile(rule.when)
    except RuntimeError as error:
        problems.append(f"rule {rule.id}: {_readable(str(error))}")
        return None
    if expression.return_type() != _T.BOOL:
        problems.append(f"rule {rule.id}: it is a {expression.return_type().name().lower()}, and must be true or false")
    return expression


def _readable(complaint: str) -> str:
    """The compiler's first words, without its decoration."""
    first = _NOISE.sub("", complaint.partition("\n")[0]).removeprefix("INVALID_ARGUMENT: ")
    first = re.sub(r"^ERROR: <input>:(\d+):(\d+): ", r"line \1, column \2: ", first)
    first = first.replace(" (in container '')", "")
    return first + (" (a double is written with a point: 500.0)" if _MIXED.search(first) else "")
