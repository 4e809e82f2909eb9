"""How a scripted order's card, device, addresses and ip differ from that user's usual ones.
No single field gives a script away: each of these looks has innocent users too.
"""

from collections.abc import Callable
from dataclasses import replace

from streams.sources.casting import Scripted
from streams.sources.draws import Draws
from streams.sources.people import Checkout, Population


def checkout(order: Scripted, people: Population, draws: Draws) -> Checkout:
    """What a scripted order publishes beside its basket."""
    usual = people.checkout(order.user, order.country)
    return DRESSES.get(order.kind, _as_usual)(order, usual, people, draws)


def _as_usual(order: Scripted, usual: Checkout, people: Population, draws: Draws) -> Checkout:
    return usual


def _tester(order: Scripted, usual: Checkout, people: Population, draws: Draws) -> Checkout:
    ip = order.ring.ip if draws.chance(0.6) else people.hosting_ip()
    place = draws.token("addr-")
    card = people.foreign_card() if draws.chance(0.5) else people.new_card(order.country)
    return replace(
        usual,
        method="card",
        card=card,
        ip=ip,
        device=order.ring.device,
        billing=place,
        shipping=place,
        refunds=0,
    )


def _intruder(order: Scripted, usual: Checkout, people: Population, draws: Draws) -> Checkout:
    card = usual.card if draws.chance(0.6) else people.new_card(order.country)
    ip = order.ring.ip if draws.chance(0.5) else people.mobile_ip()
    shipping = order.ring.address if draws.chance(0.85) else usual.shipping
    express = draws.chance(0.5)
    return replace(usual, card=card, ip=ip, shipping=shipping, device=order.ring.device, express=express)


def _builder(order: Scripted, usual: Checkout, people: Population, draws: Draws) -> Checkout:
    return replace(usual, express=usual.express or draws.chance(0.2))


def _refunded(order: Scripted, usual: Checkout, people: Population, draws: Draws) -> Checkout:
    shipping = draws.token("addr-") if draws.chance(0.5) else usual.shipping
    return replace(usual, shipping=shipping, refunds=min(order.turn + draws.below(3), 6))


def _reshipper(order: Scripted, usual: Checkout, people: Population, draws: Draws) -> Checkout:
    card = people.foreign_card() if draws.chance(0.8) else people.new_card(order.country)
    return replace(usual, method="card", card=card, shipping=order.ring.address, refunds=0)


def _mover(order: Scripted, usual: Checkout, people: Population, draws: Draws) -> Checkout:
    card = people.new_card(order.country) if draws.chance(0.6) else usual.card
    place = order.ring.address
    ip = draws.token("ip-")
    return replace(usual, card=card, billing=place, shipping=place, device=order.ring.device, ip=ip)


def _visitor(order: Scripted, usual: Checkout, people: Population, draws: Draws) -> Checkout:
    return replace(usual, device=order.ring.device, ip=order.ring.ip)


DRESSES: dict[str, Callable[[Scripted, Checkout, Population, Draws], Checkout]] = {
    "card_testing": _tester,
    "account_takeover": _intruder,
    "bust_out": _builder,
    "refund_abuse": _refunded,
    "reshipping": _reshipper,
    "new_start": _mover,
    "shared_computer": _visitor,
}
"""How each kind's order differs from that user's usual one; the others do not."""
