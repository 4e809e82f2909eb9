"""What the parent must know of each shop before its worker starts, and whether they can live beside each other.
Read from the shop's settings anew at each start: a file that was mended counts without a restart of the others.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from schemas.errors import SettingsError
from streams.config import Settings
from streams.config_sections import Web
from streams.ports import free_port

END_S = 15.0
"""A worker that cannot end in order ends itself `session_timeout_s` and 5 s after it was asked. Later it is hung."""
ANY = ("0.0.0.0", "::")


@dataclass(frozen=True, slots=True)
class Shop:
    """share: of the processor, beside those of the others. patience_s: from being asked to end to being killed."""

    name: str
    share: float
    host: str
    port: int
    patience_s: float

    @property
    def address(self) -> str:
        """Where its pages are asked for, from this machine."""
        host = "127.0.0.1" if self.host in ANY else self.host
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


def names_in(text: str, tenant: str = "") -> tuple[str, ...]:
    """The shops of `--shops`. SettingsError where it names none, one twice, or the command names another one."""
    names = tuple(part.strip() for part in text.split(","))
    if tenant:
        raise SettingsError(f"--tenant {tenant} is one shop", where="--shops", expected="one of --tenant and --shops")
    if not all(names) or len(set(names)) != len(names):
        raise SettingsError(
            f"shops cannot be {text!r}", where="--shops", expected="names with commas between, each name once"
        )
    return names


def shop_of(settings: Settings) -> Shop:
    """A port of 0 is drawn here, so that the parent knows where to ask."""
    web = settings.web
    return Shop(settings.tenant, settings.share, web.host, web.port or free_port(), settings.session_timeout_s + END_S)


def apart(shops: Iterable[Shop], page: Web) -> None:
    """SettingsError that names both, where two would listen on the same port."""
    taken = [("the page of all shops, shops_web", page.host, page.port)] if page.port else []
    for shop in shops:
        for name, host, port in taken:
            if port == shop.port and (host == shop.host or host in ANY or shop.host in ANY):
                raise SettingsError(
                    f"{name} and {shop.name} would both listen on port {port}",
                    where=f"web.port of {shop.name}",
                    expected="a port for each shop",
                    todo=f"set web = {{ port = ... }} in [tenants.{shop.name}]; 0 takes any free one",
                )
        taken.append((shop.name, shop.host, shop.port))
