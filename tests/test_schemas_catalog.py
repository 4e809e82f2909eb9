"""The contracts that ship: each loads, and a wrong one says what is wrong."""

import json
from pathlib import Path

import pytest
from fastavro.schema import fingerprint, to_parsing_canonical_form

from schemas import catalog
from schemas.errors import SchemaError

contracts = pytest.mark.parametrize("name", catalog.names())


@contracts
def test_a_contract_is_found_by_its_file_and_by_its_record(name: str) -> None:
    assert catalog.load(catalog.load(name)["name"]) == catalog.load(name)


@contracts
def test_a_physical_contract_has_no_logical_types(name: str) -> None:
    assert "logicalType" not in json.dumps(catalog.physical(name))


@contracts
def test_the_fingerprint_is_the_one_that_other_clients_compute(name: str) -> None:
    canonical = to_parsing_canonical_form(catalog.load(name))
    assert catalog.fingerprint(name) == fingerprint(canonical, "SHA-256")


@contracts
def test_every_amount_has_four_decimals_and_every_time_is_in_milliseconds(name: str) -> None:
    text = json.dumps(catalog.load(name))
    assert text.count('"logicalType": "decimal"') == text.count('"precision": 18, "scale": 4')
    assert text.count("timestamp-") == text.count("timestamp-millis")


def test_fingerprints_tell_contracts_apart() -> None:
    assert len({catalog.fingerprint(name) for name in catalog.names()}) == len(catalog.names())


@pytest.mark.parametrize("name", ["clik", "", "../errors", "click.avsc"])
def test_a_name_that_is_none_gets_the_list_of_those_that_are(name: str) -> None:
    with pytest.raises(SchemaError, match="there is no contract") as caught:
        catalog.load(name)
    assert "click" in caught.value.expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "unreadable"),
        ("5", "malformed"),
        ('"string"', "not a record"),
        ('{"type": "record", "name": "R"}', "malformed"),
        ('{"type": "record", "name": "R", "fields": [{"name": "a", "type": "strin"}]}', "malformed"),
        (
            '{"type": "record", "name": "R", "fields": [{"name": "a", "type": "int", "default": "x"}]}',
            "malformed",
        ),
    ],
)
def test_a_malformed_file_is_refused_with_its_path(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "bad.avsc"
    path.write_text(text)
    with pytest.raises(SchemaError, match=says) as caught:
        catalog.read(path)
    assert caught.value.where == str(path)


def test_a_file_that_is_not_there_is_refused_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="unreadable"):
        catalog.read(tmp_path / "none.avsc")
