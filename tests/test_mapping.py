"""Mappings: what they make of a stranger's records, what they refuse, and that nothing of a stranger's breaks them."""

import json
import re
import time
import tracemalloc
from contextlib import suppress
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import BadRecord, SettingsError
from schemas.registry import MemoryRegistry
from schemas.wire import Decoder
from streams.config import Settings
from streams.mapping.attributes import KNOWN_PATHS, Rest
from streams.mapping.checking import check
from streams.mapping.compiling import Compiled
from streams.mapping.document import parse
from streams.mapping.mapper import Mapper
from streams.mapping.paths import Message, getter
from streams.mapping.protobuf import from_protobuf
from streams.mapping.reading import Item
from streams.mapping.suggest import suggest
from streams.mapping.writing import as_toml
from streams.raw import RawRecord
from tests import mapped_shop
from tests.mapped_shop import order
from tests.records import money

NOW_MS = 1_800_000_000_000
ORDERS = mapped_shop.ORDERS.format(name="orders", source="shop.orders", format="json")
CLICK = """
name = "clicks"
source = "shop.clicks"
format = "json"
target = "click"
[fields]
event_id = "id"
event_time = {{ path = "at", time = "epoch_ms" }}
user_id = "user"
action = {{ value = "view" }}
{more}
"""


VIEWS = mapped_shop.CLICKS.format(name="views", source="shop.views")


def mapper(text=ORDERS, folder=Path()):
    return Mapper(Settings(), MemoryRegistry(), Compiled(parse(text, "test.toml")), folder)


def raw(value, offset=7, **fields):
    encoded = value if isinstance(value, bytes | None) else json.dumps(value).encode()
    return RawRecord("shop.orders", 2, offset, NOW_MS, None, encoded)._replace(**fields)


def click(more="", **row):
    """What becomes of a row under the small click mapping with `more` lines."""
    given = {"id": "e1", "at": 1_700_000_000_000, "user": "u1"} | row
    return mapper(CLICK.format(more=more))(raw(given), NOW_MS).record


# -- what is mapped --------------------------------------------------------------------------------------------


def test_a_nested_order_becomes_the_contracts():
    mapped = mapper()(raw(order(1)), NOW_MS)
    record = mapped.record
    assert (record["order_id"], record["user_id"], mapped.key) == ("SO-1", "1001", b"1001")
    assert record["event_time"] == 1_772_362_801_000  # 12:00:01 at +01:00
    assert int.from_bytes(record["amount"], "big") == int.from_bytes(money(25.98), "big")
    assert record["payment"] == {"method": "card", "instrument": "tok-1", "bin": None, "issuer_country": None}
    assert [(line["item_id"], line["quantity"]) for line in record["items"]] == [("item-1", 2)]
    assert record["attributes"] == {"basket.age_s": 12.5}


def test_what_is_published_is_read_by_the_workers_decoder():
    registry = MemoryRegistry()
    mapped = Mapper(Settings(), registry, Compiled(parse(ORDERS, "x")), Path())(raw(order(1)), NOW_MS)
    assert mapped is not None
    assert Decoder(registry, "order")(mapped.value)["order_id"] == "SO-1"


def test_an_id_that_is_not_mapped_is_the_messages_place_and_the_same_again():
    first, again = (mapper()(raw(order(1), offset=41), NOW_MS).record for _ in range(2))
    assert first["event_id"] == again["event_id"] == "shop.orders/2/41"


@pytest.mark.parametrize("missing", [None, ""])
def test_a_guest_is_known_by_the_session(missing):
    mapped = mapper()(raw(order(1, customer={"id": missing})), NOW_MS)
    assert mapped.key == b"anon:s1"


def test_nobody_at_all_is_a_dead_letter():
    with pytest.raises(BadRecord, match=r"user_id, mapped from customer\.id, session"):
        mapper()(raw(order(1, customer={}, session=None)), NOW_MS)


def test_what_when_leaves_out_is_no_dead_letter_and_neither_is_a_deletion():
    assert mapper()(raw(order(1, kind="order.shipped")), NOW_MS) is None
    assert mapper()(raw({"other": 1}), NOW_MS) is None
    assert mapper()(raw(None), NOW_MS) is None


@pytest.mark.parametrize(
    ("currency", "minor", "units"),
    [("GBP", 1299, 12.99), ("JPY", 1299, 1299), ("KWD", 1299, 1.299), ("CLF", 1, 0.0001)],
)
def test_minor_units_go_by_the_currency(currency, minor, units):
    record = mapper()(raw(order(1, total={"minor": minor, "currency": currency})), NOW_MS).record
    assert int.from_bytes(record["amount"], "big") == round(units * 10_000)


@pytest.mark.parametrize(
    ("line", "given", "ms"),
    [
        ("{ path = 't', time = 'epoch_s' }", 1_700_000_000, 1_700_000_000_000),
        ("{ path = 't', time = 'epoch_s' }", 1_700_000_000.25, 1_700_000_000_250),
        ("{ path = 't', time = 'epoch_s' }", "1700000000", 1_700_000_000_000),
        ("{ path = 't', time = 'epoch_us' }", 1_700_000_000_123_456, 1_700_000_000_123),
        ("{ path = 't', time = 'epoch_ns' }", 1_700_000_000_123_456_789, 1_700_000_000_123),
        ("'t'", "2023-11-14T22:13:20Z", 1_700_000_000_000),
        ("'t'", "2023-11-14T23:13:20+01:00", 1_700_000_000_000),
        ("{ path = 't', zone = 'Europe/Berlin' }", "2023-11-14 23:13:20", 1_700_000_000_000),
        ("{ cel = 'timestamp(source.t)' }", "2023-11-14T22:13:20Z", 1_700_000_000_000),
        ("{ path = '$timestamp', time = 'epoch_ms' }", None, NOW_MS),
    ],
)
def test_times_of_all_kinds(line, given, ms):
    text = CLICK.format(more="").replace('{ path = "at", time = "epoch_ms" }', line)
    record = mapper(text)(raw({"id": "e", "user": "u", "t": given}), NOW_MS).record
    assert record["event_time"] == ms


@pytest.mark.parametrize("given", [1_700_000_000_000, "2023-11-14T22:13:20", "yesterday", True, [], 1e300])
def test_a_time_is_never_guessed(given):
    text = CLICK.format(more="").replace('{ path = "at", time = "epoch_ms" }', '"at"')
    with pytest.raises(BadRecord, match="event_time, mapped from at"):
        mapper(text)(raw({"id": "e", "user": "u", "at": given}), NOW_MS)


def test_constants_expressions_coalescing_translations_and_defaults():
    more = """
item_id = { path = ["sku", "product.id"] }
device = { path = "ua", values = { iPhone = "mobile" }, otherwise = "desktop" }
query = { cel = 'source.q + "!"' }
position = { path = "pos", default = 3 }
session_id = { path = "$headers.session" }
attributes.vip = { cel = 'source.tags.exists(t, t == "vip")' }
"""
    record = click(more, product={"id": 5}, ua="iPhone", q="shoes", tags=["new", "vip"])
    assert (record["item_id"], record["device"], record["query"], record["position"]) == ("5", "mobile", "shoes!", 3)
    assert (record["session_id"], record["attributes"]) == (None, {"vip": True})
    assert click(more, ua="Other", tags=[])["query"] is None  # what an expression looks for is not there


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("a.b", 1),
        ("l[1].x", 2),
        ('["a.b"].c', 3),
        ("a.none.deeper", None),
        ("l[9]", None),
        ("a[0]", None),
        ("$key", "1"),
    ],
)
def test_paths(path, value):
    source = {"a": {"b": 1}, "l": [{}, {"x": 2}], "a.b": {"c": 3}}
    assert getter(path, "f")(source, Message(source, key="1")) == value


def test_attributes_take_what_a_pattern_lets_through_and_nothing_that_is_mapped():
    text = CLICK.format(more='[attributes]\ninclude = ["*"]\nexclude = ["secret*"]\nmost = 3')
    record = mapper(text)(raw({"id": "e", "at": 1_700_000_000_000, "user": "u", "n": 1, "deep": {"b": True},
                               "secret": "x", "list": [1], "text": "y" * 1000, "more": 2}), NOW_MS).record  # fmt: skip
    assert record["attributes"] == {"n": 1.0, "deep.b": True, "text": "y" * 256}


# -- what is refused when it is loaded -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("order_id =", "ordr_id ="), r"no field ordr_id; at fields.ordr_id; expected order_id"),
        (('order_id = "number"', ""), "order_id is required, and nothing fills it"),
        (('items.each = "lines"', ""), "items is a list"),
        (("items.fields.quantity", "items.fields.qty"), r"items\[\].quantity is required"),
        (('currency = "total.currency"', "currency = { value = 3.5 }"), "3.5 is no string; at fields.currency.value"),
        (('session_id = "session"', 'session_id = { cel = "1.5" }'), "the expression is a double"),
        (('session_id = "session"', 'session_id = { cel = "1 +" }'), "CEL that cannot be used"),
        (('session_id = "session"', 'session_id = { path = "a..b" }'), "is no path"),
        (
            ('session_id = "session"', 'session_id = { path = "a", unit = "minor" }'),
            "are for amounts",
        ),
        (('session_id = "session"', 'session_id = { path = "a", cel = "b" }'), "one of path, value and cel"),
        (('session_id = "session"', 'session_id = { pth = "a" }'), "fields.session_id.pth"),
        (('event_time = "placed_at"', 'event_time = { path = "t", zone = "Nowhere" }'), "no time zone 'Nowhere'"),
        (("'source.kind == \"order.placed\"'", "'1 + 1'"), "true or false"),
        (('format = "json"', 'format = "xml"'), "format"),
        (('target = "order"', 'target = "fraud_score"'), "target"),
        (('name = "orders"', ""), "name"),
        (("[fields]", "[fields"), "no TOML"),
    ],
)
def test_a_wrong_mapping_says_what_and_where(change, complaint):
    assert change[0] in ORDERS
    with pytest.raises(SettingsError, match=complaint):
        Compiled(parse(ORDERS.replace(*change), "test.toml"), "test.toml")


def test_all_that_is_wrong_is_said_at_once():
    text = ORDERS.replace("order_id =", "ordr_id =").replace('"total.currency"', "3")
    with pytest.raises(SettingsError) as caught:
        Compiled(parse(text, "test.toml"), "test.toml")
    assert all(word in str(caught.value) for word in ("ordr_id", "order_id is required", "currency", "test.toml"))


def test_the_mappings_of_the_documents_are_mappings():
    page = (Path(__file__).parent.parent / "docs" / "adopt.md").read_text("utf-8")
    whole = [each for each in re.findall(r"```toml\n(.*?)```", page, re.DOTALL) if each.startswith("name =")]
    assert [Compiled(parse(each, "adopt.md")).document.target for each in whole] == ["order", "label"]


# -- what is refused of a record -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "code", "where"),
    [
        ({"lines": []}, "out_of_range", "items"),
        ({"lines": "no"}, "wrong_type", "items, mapped from lines"),
        ({"lines": [{"sku": "a", "qty": 0, "minor": 1}]}, "out_of_range", "items[0]"),
        ({"lines": [{"sku": "a", "qty": 1.5, "minor": 1}]}, "wrong_type", "items[].quantity, mapped from qty"),
        ({"total": {"minor": 1e300, "currency": "GBP"}}, "out_of_range", "amount, mapped from total.minor"),
        ({"total": {"minor": "1e999999999", "currency": "GBP"}}, "out_of_range", "amount, mapped from total.minor"),
        ({"total": {"minor": "0.001", "currency": "GBP"}}, "out_of_range", "amount, mapped from total.minor"),
        ({"total": {"minor": True, "currency": "GBP"}}, "wrong_type", "amount, mapped from total.minor"),
        ({"number": {"no": 1}}, "wrong_type", "order_id, mapped from number"),
        ({"number": "\ud800"}, "wrong_type", "when"),  # CEL has no half characters either
        ({"placed_at": "1999-01-01T00:00Z"}, "out_of_range", "event_time"),
    ],
)
def test_a_misfit_is_a_bad_record_that_names_both_fields(change, code, where):
    with pytest.raises(BadRecord) as caught:
        mapper()(raw(order(1, **change)), NOW_MS)
    assert (caught.value.code, caught.value.where) == (code, where)


def test_a_record_too_large_for_our_topic_is_refused_here_and_not_by_the_broker():
    lines = [{"sku": f"{n}" * 3000, "qty": 1, "minor": 1} for n in range(400)]
    with pytest.raises(BadRecord, match="max_message_bytes"):
        mapper()(raw(order(1, lines=lines)), NOW_MS)


@pytest.mark.parametrize("value", [b"", b"{", b"NaN", b'{"a": Infinity}', b"\xff", b"[" * 200_000, b"1" * 5000])
def test_what_is_no_json_is_undecodable(value):
    with pytest.raises(BadRecord) as caught:
        mapper()(raw(value), NOW_MS)
    assert caught.value.code == "undecodable"


def test_json_with_the_registrys_header_is_read_too():
    framed = b"\0\0\0\0\7" + json.dumps(order(1)).encode()
    assert mapper()(raw(framed), NOW_MS).record["order_id"] == "SO-1"


# -- Protobuf --------------------------------------------------------------------------------------------------


@pytest.fixture
def protobuf(tmp_path):
    """(class of shop.Visit, folder with its descriptors)."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="shop.proto", package="shop", syntax="proto3")
    file.dependency.append("google/protobuf/timestamp.proto")
    page = file.message_type.add(name="Page")
    page.field.add(name="product_id", number=1, type=kinds.TYPE_INT64, label=kinds.LABEL_OPTIONAL)
    visit = file.message_type.add(name="Visit")
    visit.field.add(name="user", number=1, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL)
    visit.field.add(name="page", number=2, type=kinds.TYPE_MESSAGE, type_name=".shop.Page", label=kinds.LABEL_OPTIONAL)
    visit.field.add(
        name="at", number=3, type=kinds.TYPE_MESSAGE, type_name=".google.protobuf.Timestamp", label=kinds.LABEL_OPTIONAL
    )
    enum = file.enum_type.add(name="What")
    enum.value.add(name="UNSEEN", number=0)
    enum.value.add(name="BASKET", number=1)
    visit.field.add(name="what", number=4, type=kinds.TYPE_ENUM, type_name=".shop.What", label=kinds.LABEL_OPTIONAL)
    visit.field.add(name="tags", number=5, type=kinds.TYPE_STRING, label=kinds.LABEL_REPEATED)
    from google.protobuf import timestamp_pb2

    stamp = descriptor_pb2.FileDescriptorProto()
    timestamp_pb2.DESCRIPTOR.CopyToProto(stamp)
    path = tmp_path / "shop.binpb"
    path.write_bytes(descriptor_pb2.FileDescriptorSet(file=[stamp, file]).SerializeToString())
    pool = descriptor_pool.DescriptorPool()
    for each in (stamp, file):
        pool.Add(each)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("shop.Visit")), tmp_path


VISITS = """
name = "visits"
source = "shop.visits"
format = "protobuf"
target = "click"
[protobuf]
descriptors = "shop.binpb"
message = "shop.Visit"
[fields]
event_time = "at"
user_id = { path = "user", guest = "$key" }
action = { path = "what", values = { BASKET = "cart" }, otherwise = "unknown" }
item_id = "page.product_id"
"""


@pytest.mark.parametrize("header", [b"", b"\0\0\0\0\7\0", b"\0\0\0\0\7\2\2"])
def test_a_protobuf_message_with_and_without_the_registrys_header(protobuf, header):
    visit, folder = protobuf
    message = visit(user="", what=1)
    message.page.product_id = 2**60
    message.at.FromMilliseconds(1_700_000_000_123)
    value = header + message.SerializeToString()
    record = mapper(VISITS, folder)(raw(value, key=b"k1"), NOW_MS).record
    assert (record["user_id"], record["action"], record["item_id"]) == ("anon:k1", "cart", str(2**60))
    assert record["event_time"] == 1_700_000_000_123


@pytest.mark.parametrize(
    ("change", "complaint"),
    [(("shop.Visit", "shop.Vist"), "expected one of .*shop.Visit"), (("shop.binpb", "no.binpb"), "cannot be read")],
)
def test_descriptors_that_cannot_be_used_say_so(protobuf, change, complaint):
    with pytest.raises(SettingsError, match=complaint):
        mapper(VISITS.replace(*change), protobuf[1])


# -- check and suggest -----------------------------------------------------------------------------------------


def test_check_counts_reasons_with_an_example_each():
    strange = order(9, total={"minor": "x", "currency": "GBP"})
    rows = [*(order(n) for n in range(8)), strange, order(10, lines=None), order(11, kind="?")]
    items = [Item(raw(each, offset=n)) for n, each in enumerate(rows)] + [Item(raw(b"{", offset=99))]
    report = check(mapper(), items)
    assert (report.samples, report.good, report.left_out, report.dead) == (12, 8, 1, 3)
    found = {(reason.where, reason.count, reason.place) for reason in report.reasons.values()}
    assert ("amount, mapped from total.minor", 1, "shop.orders[2] at 8") in found
    assert (report.example or {})["order_id"] == "SO-0"


def test_a_suggestion_is_toml_whose_sure_lines_are_right():
    when, found = suggest("order", [order(n) for n in range(50)])
    guesses = {guess.field: guess for guess in found}
    assert when == ""
    sure = {field: guess.toml for field, guess in guesses.items() if guess.toml and not guess.doubt}
    assert sure["event_time"] == '"placed_at"'
    assert sure["currency"] == '"total.currency"'
    assert sure["items.each"] == '"lines"'
    assert sure["items.fields.item_id"] == '"sku"'
    assert sure["amount"] == '{ path = "total.minor", unit = "minor" }'
    assert 'guest = "session"' in guesses["user_id"].toml
    assert "zone" in next(g.doubt for g in suggest("order", [{"created_at": "2026-01-01 12:00:00"}])[1] if g.toml)


def test_of_several_kinds_of_records_the_one_that_fits_is_picked():
    shipped = [{"kind": "order.shipped", "number": f"SO-{n}"} for n in range(30)]
    when, found = suggest("order", [*shipped, *(order(n) for n in range(30))])
    assert when == 'source.kind == "order.placed"'
    assert not [guess for guess in found if guess.doubt and "missing" in guess.doubt]


def test_an_id_that_repeats_is_no_event_id():
    rows = [order(n, id=n % 3) for n in range(30)]
    assert "event_id" not in {guess.field for guess in suggest("order", rows)[1]}
    unique = [order(n, id=n) for n in range(30)]
    assert "event_id" in {guess.field for guess in suggest("order", unique)[1]}


def test_a_suggestion_becomes_a_mapping_once_its_doubts_are_answered():
    text = as_toml("shop.orders", "json", "order", *suggest("order", [order(n) for n in range(50)]), 50)
    assert all(line.startswith("#") or "??" not in line or "#" in line for line in text.splitlines())
    answered = text + 'attributes.x = "note"\n' if "[attributes]\n" not in text else text
    document = parse(answered.replace("# [attributes]", ""), "suggested")
    assert document.fields["order_id"] == "number"


# -- fuzz ------------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=12,
)
PATHS = ["kind", "number", "placed_at", "customer", "session", "total", "ship_to", "pay", "lines", "basket"]
INNER = ["id", "minor", "currency"]
FUZZED = mapper(ORDERS.replace("when = 'source.kind == \"order.placed\"'", ""))


def outcome(attempt):
    """What it gives, or the BadRecord that it raises; nothing else may be raised."""
    try:
        return attempt()
    except BadRecord as error:
        return error


@settings(max_examples=400, deadline=None)
@given(
    st.dictionaries(st.sampled_from(PATHS), JSON), st.dictionaries(st.sampled_from(["id", "minor", "currency"]), JSON)
)
def test_no_record_breaks_a_mapping(changes, inner):
    changed = order(1) | changes
    for name in ("customer", "total"):
        if isinstance(changed[name], dict):
            changed[name] = changed[name] | inner
    found = outcome(lambda: FUZZED.of_value(changed, raw(None), NOW_MS))
    assert found is not None
    assert len(str(found)) < 3_000 if isinstance(found, BadRecord) else found.key


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_break_the_json_decoder(value):
    found = outcome(lambda: FUZZED(raw(value), NOW_MS))
    assert isinstance(found, BadRecord)
    assert found.code in ("undecodable", "wrong_type")


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    """descriptor.proto describes itself: deep, recursive, with every kind of field."""
    file = descriptor_pb2.FileDescriptorProto()
    descriptor_pb2.DESCRIPTOR.CopyToProto(file)
    path = tmp_path_factory.mktemp("descriptors") / "self.binpb"
    path.write_bytes(descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString())
    return from_protobuf(path, "google.protobuf.FileDescriptorProto")


@settings(max_examples=300, deadline=None)
@given(value=st.binary(max_size=200), framed=st.booleans())
def test_no_bytes_break_the_protobuf_decoder(described, value, framed):
    found = outcome(lambda: described((b"\0" if framed else b"") + value))
    assert isinstance(found, dict) or found.code == "undecodable"


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=300) | st.dictionaries(st.text(max_size=10), JSON, max_size=4).map(lambda v: str(v)))
def test_no_text_breaks_the_loading_of_a_mapping(text):
    for candidate in (text, ORDERS + "\n" + text, ORDERS.replace('"session"', repr(text), 1)):
        with suppress(SettingsError):
            Compiled(parse(candidate, "fuzz"))


@settings(max_examples=200, deadline=None)
@given(st.lists(JSON, max_size=8), st.sampled_from(["click", "order", "ad_impression", "label", "catalog_item"]))
def test_no_samples_break_a_suggestion(samples, target):
    parse(as_toml("a.topic", "json", target, *suggest(target, samples), len(samples)), "suggested")


def test_a_flood_of_strange_names_and_bad_records_does_not_grow():
    rest = Rest(["*"], [], [], 64)
    for number in range(3 * KNOWN_PATHS):
        rest.add({}, {f"name-{number}": 1})
    assert len(rest._decided) == KNOWN_PATHS
    bad = json.dumps(order(1, total={"minor": "x" * 100_000})).encode()
    tracemalloc.start()
    for _ in range(200):
        with pytest.raises(BadRecord) as caught:
            FUZZED(raw(bad), NOW_MS)
        assert len(str(caught.value)) < 1_000
    del caught
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 1 << 20


def test_what_is_deep_or_long_takes_no_long_time():
    nested: object = 1
    for _ in range(900):
        nested = {"a": nested}
    heavy = order(1, basket=nested, note=["x"] * 100_000, session="9" * 200_000)
    began = time.process_time()
    for _ in range(3):
        outcome(lambda: FUZZED.of_value(heavy, raw(None), NOW_MS))
    assert time.process_time() - began < 3


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('framing = "none"', "avro.schemas"),
        ('framing = "none"\nschemas = ["a.avsc", "b.avsc"]', "one of them"),
        ('framing = "confluent"\nschemas = "a.avsc"', "none"),
        ('framing = "none"\nschemas = "missing.avsc"', "missing.avsc"),
        ('framing = "none"\nschemas = "broken.avsc"', "broken.avsc"),
        ('framing = "none"\nschemas = "enum.avsc"', "not a record"),
        ('framing = "single_object"\nschemas = ["good.avsc", "same.avsc"]', "look the same"),
    ],
)
def test_schemas_that_cannot_be_used_are_said_when_the_mapping_is_loaded(table, said, tmp_path):
    good = json.dumps(mapped_shop.AVRO_SCHEMA)
    files = {"good": good, "same": good.replace("{", '{"doc": "other words", ', 1), "broken": "{", "enum": '"int"'}
    for name, text in files.items():
        (tmp_path / f"{name}.avsc").write_text(text)
    with pytest.raises(SettingsError) as refused:
        mapper(f"{VIEWS}\n[avro]\n{table}\n", tmp_path)
    assert said in str(refused.value)


def test_schemas_are_for_avro_alone():
    with pytest.raises(SettingsError, match="for format = avro"):
        parse(ORDERS + '\n[avro]\nframing = "none"\nschemas = "a.avsc"\n', "test.toml")
