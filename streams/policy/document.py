"""A policy as it is written: a TOML document of rules, costs and thresholds, checked field by field.
The version names it by its digest, so that a decision says exactly which text it followed.
"""

import hashlib
import tomllib
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from schemas.errors import PolicyError

Decision = Literal["approve", "review", "block"]
LANGUAGES = ("en", "zh")

MAX_BYTES = 256 * 1024
MAX_RULES = 500
DIGEST_SHOWN = 12


def _in_english(value: object) -> object:
    """`because = "text"` is short for English alone."""
    return {"en": value} if isinstance(value, str) else value


Words = Annotated[dict[Literal["en", "zh"], str], BeforeValidator(_in_english)]
Share = Annotated[float, Field(ge=0, le=1)]
Cost = Annotated[float, Field(ge=0, le=1e9)]


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False)


class Rule(Part):
    """`then` note: it is recorded and decides nothing. The first rule that fires and is no note decides."""

    id: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$", description="lower-case letters, digits, dashes")
    when: str = Field(min_length=1, max_length=4_000)
    then: Literal["approve", "review", "block", "note"]
    because: Words = {}


class Money(Part):
    """Costs in `currency`, of one order. What is expected to cost least is done."""

    currency: str = Field(pattern=r"^[A-Z]{3}$")
    rates: dict[str, Annotated[float, Field(gt=0, le=1e9)]] = Field(
        default={}, description="what one unit of another currency is worth"
    )
    loss_share: Annotated[float, Field(ge=0, le=10)] = 1.0
    """Of the order's amount, lost by a fraud that was approved."""
    chargeback_fee: Cost = 15.0
    margin: Share = 0.25
    """Of the order's amount, lost by a good order that was blocked."""
    goodwill: Cost = 5.0
    """What a good customer who was blocked costs besides."""
    review_cost: Cost = 4.0
    review_price: Cost = 0.0
    """On top of its cost, so that a scarce reviewer is kept for what is worth more: the backtest finds it."""
    review_catches: Share = 0.9
    """Of frauds, found by a review."""
    review_rejects: Share = 0.02
    """Of good orders, turned away by one."""


class Thresholds(Part):
    """Of the probability. They decide where there is no [money], or no rate for an order's currency."""

    review: Share = 0.5
    block: Share = 0.9

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.review > self.block:
            raise ValueError("review may not be above block")
        return self


class Budget(Part):
    """What people can do. Nothing is dropped when it is exceeded: the backtest says so beforehand."""

    alerts_per_day: Annotated[int, Field(ge=1)]


class Document(Part):
    name: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")
    description: str = Field(default="", max_length=2_000)
    thresholds: Thresholds = Thresholds()
    money: Money | None = None
    budget: Budget | None = None
    rules: tuple[Rule, ...] = Field(default=(), max_length=MAX_RULES)

    @model_validator(mode="after")
    def _each_id_once(self) -> Self:
        ids = [rule.id for rule in self.rules]
        if twice := sorted({ident for ident in ids if ids.count(ident) > 1}):
            raise ValueError(f"two rules with the id {twice[0]!r}")
        return self


def parse(text: str, where: str) -> Document:
    """`where` names the file or topic. Raises PolicyError that names each wrong field."""
    if len(text.encode()) > MAX_BYTES:
        raise PolicyError(f"{len(text.encode()):,} bytes", where=where, expected=f"at most {MAX_BYTES:,}")
    try:
        return Document.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise PolicyError(f"no TOML: {error}", where=where, todo="docs/decisions.md shows a policy") from error
    except RecursionError as error:
        raise PolicyError("tables nested too deep", where=where, todo="docs/decisions.md shows a policy") from error
    except ValidationError as error:
        raise PolicyError(
            "; ".join(_said(each["loc"], each["msg"]) for each in error.errors()),
            where=where,
            todo="docs/decisions.md lists the fields",
        ) from error


def _said(place: tuple[int | str, ...], message: str) -> str:
    """`rules[2].then: ...`, rules counted from 1 as people count them."""
    path = ""
    for part in place:
        path += f"[{part + 1}]" if isinstance(part, int) else f"{'.' if path else ''}{part}"
    return f"{path or 'the document'}: {message.removeprefix('Value error, ')}"


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def version(document: Document, text: str) -> str:
    """`spring@1f6a09c1b2d4`: equal for equal texts alone."""
    return f"{document.name}@{digest(text)[:DIGEST_SHOWN]}"
