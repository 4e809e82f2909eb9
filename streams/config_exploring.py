"""The section `exploration` of the settings: which decisions are drawn so that something is learned from them.
A section as those of `streams.config_sections`; what is drawn and why is in `streams.tasks.exploration`."""

from pydantic import Field, SecretStr

from streams.security import Section


class Exploring(Section):
    """How many decisions on orders are drawn, and under which secret."""

    share: float = Field(default=0.02, ge=0, le=0.5, description="of what the score would block: reviewed instead")
    uncertain: float = Field(
        default=0.1, ge=0, le=1, description="of the review budget: for the orders nearest to its boundary"
    )
    key: SecretStr | None = Field(
        default=None, min_length=16, description="of the draws, the same for all workers; else derived from privacy.key"
    )
