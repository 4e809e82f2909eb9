"""The section `recommendations` of the settings: what of a ranking is recommended, by `streams.tasks.selection`.
A section as those of `streams.config_sections`; as it stands, the best K items are."""

from typing import Annotated

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode

from streams.config_sections import comma_list
from streams.security import Section


class Recommending(Section):
    """What is left out of recommendations, and how alike the rest may be."""

    bought_days: float = Field(default=0, ge=0, le=36_500, description="bought within so many days: left out; 0: not")
    repeatable: Annotated[tuple[str, ...], NoDecode, BeforeValidator(comma_list)] = Field(
        default=(), description="categories that are bought again and again: never left out as bought"
    )
    diversity: float = Field(
        default=0, ge=0, le=100, description="how far an item's log-odds fall for a text like one already listed"
    )
    most_a_category: int = Field(default=0, ge=0, le=1_000, description="items of one category, if others are left")
