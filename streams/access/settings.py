"""The section `access` of the settings: where accounts are, when sessions end, and who else may let people in.
A section as those of `streams.config_sections`."""

from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import NoDecode

from streams.config_sections import comma_list
from streams.security import Section

Groups = Annotated[tuple[str, ...], NoDecode, BeforeValidator(comma_list)]


class Oidc(Section):
    """Login through a provider of OpenID Connect; off without `issuer`. `headrace[sso]` brings its libraries."""

    issuer: str = Field(default="", description="address of the provider, as it names itself")
    client_id: str = ""
    client_secret: SecretStr | None = None
    public_url: str = Field(default="", description="of the console, as browsers reach it")
    name_claim: str = Field(default="preferred_username", min_length=1, description="what a user is called")
    group_claim: str = Field(default="groups", min_length=1, description="the groups that give a role")
    viewers: Groups = ()
    analysts: Groups = ()
    operators: Groups = ()
    admins: Groups = ()

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.issuer and not (self.client_id and self.public_url):
            raise ValueError("client_id and public_url together with issuer")
        for name in ("issuer", "public_url"):
            if (address := getattr(self, name)) and not _private(address):
                raise ValueError(f"{name} to be an https address")
        return self


class Access(Section):
    """Who may do what in the console: where accounts and keys are, and when sessions end."""

    folder: Path | None = Field(default=None, description="accounts and keys; else `access` in data_dir")
    idle_minutes: float = Field(default=60, gt=0, le=7 * 1_440, description="a session that is not used ends")
    session_hours: float = Field(default=12, gt=0, le=30 * 24, description="every session ends")
    behind_proxy: bool = Field(
        default=False,
        description="address and scheme are what the proxy says in X-Forwarded-*; only with one before it",
    )
    oidc: Oidc = Oidc()


def _private(address: str) -> bool:
    """https, or this machine."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return False
    here = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost")
    return bool(parts.hostname) and (parts.scheme == "https" or here)
