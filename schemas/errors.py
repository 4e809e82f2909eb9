"""The one error tree of Headrace: what went wrong, where, what was expected, and what to do.
Foreign errors are mapped to these once, at the edge; nothing above the edge catches a library's own.

    HeadraceError
    ├── SettingsError            a setting, file or argument that cannot be used
    │   └── PolicyError          a decision policy that cannot be used
    ├── DataUnavailable          a data set, file or artefact that could not be had
    ├── SchemaError              a contract that cannot be loaded, or breaks compatibility
    ├── BadRecord                bad input: goes to the dead-letter topic with its bytes
    │   └── UnknownSchema        the registry answered that it has no such id
    ├── RegistryUnavailable      retriable: says nothing about the record
    ├── BrokerUnavailable        retriable
    ├── ProduceFailed            an output was refused: the process ends, its input stays uncommitted
    ├── Fenced                   another worker owns the partition now: the process ends
    ├── StateError               saved state that cannot be used
    │   └── FrontierTooOld       the log no longer reaches back to the saved state
    ├── ReleaseError             a release that is missing, half-copied, tampered with or of another format
    │   └── StoreUnavailable     retriable: the store of releases is away, which says nothing about the release
    ├── EngineError              an engine that cannot be loaded, built or run
    └── TrainingError            examples that cannot teach a model, or a training that went astray
"""


class HeadraceError(Exception):
    """Base of all. `str(error)` is one line fit for a person: what; where; expected; what to do."""

    retriable = False

    def __init__(self, what: str, *, where: str = "", expected: str = "", todo: str = "") -> None:
        self.what, self.where, self.expected, self.todo = what, where, expected, todo
        super().__init__(what)

    def __str__(self) -> str:
        parts = [self.what]
        if self.where:
            parts.append(f"at {self.where}")
        if self.expected:
            parts.append(f"expected {self.expected}")
        if self.todo:
            parts.append(self.todo)
        return "; ".join(parts)


class SettingsError(HeadraceError):
    """A setting, file or argument that cannot be used."""


class PolicyError(SettingsError):
    """A decision policy that cannot be used: its document, or a rule of it."""


class DataUnavailable(HeadraceError):
    """A data set, file or artefact that could not be had."""


class SchemaError(HeadraceError):
    """A contract that cannot be loaded, or a change that breaks compatibility."""


class BadRecord(HeadraceError):
    """Bad input. `code` is one of CODES and becomes the dead letter's code and metric label."""

    CODES = (
        "undecodable",
        "unknown_schema",
        "truncated",
        "wrong_type",
        "out_of_range",
        "oversized",
        "misplaced",
    )

    def __init__(self, code: str, what: str, *, where: str = "", expected: str = "", todo: str = "") -> None:
        super().__init__(what, where=where, expected=expected, todo=todo)
        self.code = code


class UnknownSchema(BadRecord):
    """The registry answered that it has no schema of this id (404)."""

    def __init__(self, schema_id: int) -> None:
        super().__init__(
            "unknown_schema",
            f"schema id {schema_id} is not in the registry",
            expected="an id that the registry returned when the writer's schema was registered",
            todo="register the writer's schema, then `headrace deadletters replay`",
        )
        self.schema_id = schema_id


class RegistryUnavailable(HeadraceError):
    """The schema registry did not answer. Says nothing about the record: retry."""

    retriable = True


class BrokerUnavailable(HeadraceError):
    """No broker answered. Retry."""

    retriable = True


class ProduceFailed(HeadraceError):
    """The broker refused an output, or did not acknowledge it in time. The process ends uncommitted."""


class Fenced(HeadraceError):
    """Another worker owns this partition's state now. The process ends and writes nothing more."""


class StateError(HeadraceError):
    """Saved state that cannot be used."""


class FrontierTooOld(StateError):
    """The input log no longer reaches back to where the saved state stands."""


class ReleaseError(HeadraceError):
    """A release that is missing, half-copied, tampered with or of another format."""


class StoreUnavailable(ReleaseError):
    """The store of releases is not there, or does not answer. Says nothing about the release: retry."""

    retriable = True


class EngineError(HeadraceError):
    """An engine that cannot be loaded, built or run."""


class TrainingError(HeadraceError):
    """Examples that cannot teach a model, or a training that went astray."""
