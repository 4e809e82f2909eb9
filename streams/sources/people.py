"""Who orders: each user's cards, devices, addresses, email and ips, as tokens that change and are shared as
in life. Families share a home, mobile networks share ips, presents go elsewhere and phones are replaced; so
no token alone tells.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from streams.sources.draws import Draws

DEVICE_CLASSES = ("desktop", "desktop", "mobile", "mobile", "mobile", "tablet")
METHODS = ("card",) * 14 + ("paypal",) * 3 + ("wallet",) * 2 + ("invoice",)
BINS_PER_COUNTRY = 5
IPS_PER_MOBILE_NETWORK = 150
IPS_OF_HOSTING = 250


@dataclass(frozen=True, slots=True)
class Card:
    """A card, or an account of a payment service, which has no bin and no issuer."""

    token: str
    bin: str | None
    issuer: str | None


@dataclass(frozen=True, slots=True)
class Device:
    token: str
    kind: str


@dataclass(frozen=True, slots=True)
class Checkout:
    """What an order publishes beside its basket."""

    method: str
    card: Card | None
    email: str
    billing: str
    shipping: str
    ip: str
    device: Device
    express: bool = False
    refunds: int = 0


@dataclass(slots=True)
class Person:
    """One user as they stand now."""

    country: str | None
    method: str
    email: str
    address: str
    ip: str
    devices: list[Device] = field(default_factory=list)
    cards: list[Card] = field(default_factory=list)


class Population:
    """Users by number, made when they are first needed. `household[user]` is the user whose home they
    share.
    """

    def __init__(self, countries: Sequence[str | None], household: NDArray[np.int32], draws: Draws) -> None:
        self._countries = [country for country in countries if country] or ["GB"]
        self._household = household
        self._draws = draws
        self._people: dict[int, Person] = {}
        self._homes: list[str] = []

    def person(self, user: int, country: str | None) -> Person:
        """`country` counts for someone new only."""
        known = self._people.get(user)
        if known is None:
            known = self._people[user] = self._someone(user, country)
            self._homes.append(known.address)
        return known

    def _someone(self, user: int, country: str | None) -> Person:
        draws, host = self._draws, int(self._household[user])
        method = draws.one_of(METHODS)
        address, ip = draws.token("addr-"), draws.token("ip-")
        devices, cards = [self.new_device()], [self.new_card(country, method)]
        if host != user:
            family = self.person(host, country)
            address, ip = family.address, family.ip
            if draws.chance(0.25):
                devices, cards, method = family.devices[:1], family.cards[:1], family.method
        return Person(country, method, draws.token("mail-"), address, ip, devices, cards)

    def new_device(self) -> Device:
        return Device(self._draws.token("dev-"), self._draws.one_of(DEVICE_CLASSES))

    def new_card(self, country: str | None, method: str = "card") -> Card:
        """A card issued in `country`, now and then abroad."""
        draws = self._draws
        if method != "card":
            return Card(draws.token("acct-"), None, None)
        home = country or "GB"
        issuer = draws.one_of(self._countries) if draws.chance(0.03) else home
        return Card(draws.token("card-"), self._bin(issuer), issuer)

    def foreign_card(self) -> Card:
        """A card issued anywhere, as stolen ones are."""
        issuer = self._draws.one_of(self._countries)
        return Card(self._draws.token("card-"), self._bin(issuer), issuer)

    def _bin(self, issuer: str) -> str:
        """One of the few bins of a country; the country's letters make its number."""
        base = (ord(issuer[0]) - 65) * 26 + ord(issuer[1]) - 65
        return str(400_000 + base * BINS_PER_COUNTRY + self._draws.below(BINS_PER_COUNTRY))

    def mobile_ip(self) -> str:
        return f"ip-mobile-{self._draws.below(IPS_PER_MOBILE_NETWORK):03d}"

    def hosting_ip(self) -> str:
        """An address of a data centre: campaigns use them, and people with a VPN."""
        return f"ip-hosting-{self._draws.below(IPS_OF_HOSTING):03d}"

    def checkout(self, user: int, country: str | None) -> Checkout:
        """How this user checks out now; changes the user as life does."""
        person, draws = self.person(user, country), self._draws
        self._live(person)
        card = person.cards[0] if draws.chance(0.85) else draws.one_of(person.cards)
        device = person.devices[0] if draws.chance(0.8) else draws.one_of(person.devices)
        return Checkout(
            method=person.method,
            card=None if person.method == "invoice" else card,
            email=person.email,
            billing=person.address,
            shipping=self._destination(person),
            ip=self._ip(person, device),
            device=device,
            express=draws.chance(0.08),
            refunds=_refunds(draws),
        )

    def _live(self, person: Person) -> None:
        """A new phone, a card that ran out, a move; once in a while all at once."""
        draws = self._draws
        all_new = draws.chance(0.003)
        if all_new or draws.chance(0.04):
            person.devices = [self.new_device(), *person.devices[:2]]
        if all_new or draws.chance(0.03):
            person.cards = [self.new_card(person.country, person.method), *person.cards[:1]]
        if all_new or draws.chance(0.01):
            person.address, person.ip = draws.token("addr-"), draws.token("ip-")
        if draws.chance(0.005):
            person.email = draws.token("mail-")

    def _destination(self, person: Person) -> str:
        """Home, a friend who is a customer too, or somewhere else."""
        draws = self._draws
        if draws.chance(0.94):
            return person.address
        return draws.one_of(self._homes) if draws.chance(0.5) else draws.token("addr-")

    def _ip(self, person: Person, device: Device) -> str:
        at = self._draws.uniform()
        if at < (0.35 if device.kind == "mobile" else 0.05):
            return self.mobile_ip()
        if at > 0.97:
            return self.hosting_ip()
        return self._draws.token("ip-") if at > 0.92 else person.ip


def households(users: int, share: float, draws: Draws) -> NDArray[np.int32]:
    """(users,) whose home each user shares: their own, or for about `share` of them a lower-numbered
    user's.
    """
    host = np.arange(users, dtype=np.int32)
    for user in range(1, users):
        if draws.chance(share):
            host[user] = host[draws.below(user)]
    return host


def _refunds(draws: Draws) -> int:
    """Honest users send something back now and then."""
    at = draws.uniform()
    return 0 if at < 0.86 else 1 if at < 0.97 else 2
