"""One manifest as it was read, or why it could not be; and where manifests are.

A retrieval, a move to a third party and a store each leave one JSON document below ``{root}/.dicom``
(:mod:`airflow_provider_varian.retrieval.manifest`, :mod:`airflow_provider_varian.retrieval.sent`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from airflow_provider_varian.errors import ConfigurationError, DicomError
from airflow_provider_varian.retrieval.destination import OWN_FOLDER, Destination
from airflow_provider_varian.retrieval.ledger import Entry
from airflow_provider_varian.retrieval.manifest import Manifest
from airflow_provider_varian.retrieval.outcome import Outcome, State
from airflow_provider_varian.retrieval.sent import KIND as SENT
from airflow_provider_varian.retrieval.sent import SentDocument

if TYPE_CHECKING:
    from airflow_provider_varian.retrieval.destination import DestinationPath

    Place: TypeAlias = str | Path | DestinationPath

#: Outcomes that leave room for instances that are not here.
_OWES: Final = (Outcome.PENDING, Outcome.PARTIAL)
_SENT_STATES: Final = (State.REPORTED, State.LISTED, State.VERIFIED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One document that was found.

    :param path: its path or URI.
    :param document: what it says; ``None`` when it cannot be read.
    :param root: what its paths are below; ``None`` when it does not lie in the ``.dicom`` folder of a destination.
    :param problem: why it cannot be read, or why it cannot be believed, in one sentence; empty when all is well.
    """

    path: str
    document: Manifest | SentDocument | None = None
    root: Destination | None = field(default=None, repr=False)
    problem: str = ""

    @property
    def manifest(self) -> Manifest | None:
        """The manifest of a retrieval or of a move; ``None`` for anything else."""
        return self.document if isinstance(self.document, Manifest) else None

    @property
    def kind(self) -> str:
        """``retrieval``, ``move`` (to a third party) or ``store``; empty when it cannot be read."""
        if self.document is None:
            return ""
        if isinstance(self.document, SentDocument):
            return "store"
        return "move" if "move_destination" in self.document.request else "retrieval"

    @property
    def outcome(self) -> str:
        """Its outcome; empty when it cannot be read."""
        return "" if self.document is None else str(self.document.outcome)

    @property
    def when(self) -> datetime | None:
        """When it was finished, or else begun."""
        timings = self.document.timings if self.document is not None else {}
        return moment(timings.get("finished")) or moment(timings.get("started"))


def moment(text: Any) -> datetime | None:
    """Read an instant as manifests write it (ISO 8601, UTC); ``None`` for anything else."""
    try:
        found = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return found if found.tzinfo is not None else None


def is_done(manifest: Manifest, entry: Entry) -> bool:
    """Say whether an expected instance is where it should be, as far as that was to be proven (semantics 6, 10).

    :param manifest: of which it is; a move's proof decides what counts.
    :param entry: the instance.
    """
    if "move_destination" not in manifest.request:
        return entry.state is State.VERIFIED
    if "verify_path" in manifest.request:
        return entry.state is State.VERIFIED
    if "verify_peer" in manifest.request:
        return entry.state is State.LISTED
    return entry.state in _SENT_STATES


def missing_of(manifest: Manifest) -> list[Entry]:
    """Return the expected instances that are not where they should be; those in conflict are told apart from them."""
    return [
        entry
        for entry in manifest.ledger.entries.values()
        if entry.state is not State.CONFLICT and not is_done(manifest, entry)
    ]


def find_accounts(place: Place) -> list[Account]:
    """Read one manifest, or all of a destination.

    :param place: path or URI of a manifest, or a destination's root, or its ``.dicom`` folder. Of a folder, what is no
        manifest is passed over.
    :return: what is there; of a folder unreadable ones first, then the newest ones. Empty when it holds none.
    """
    try:
        return _find(_path(place))
    except DicomError as error:
        return [Account(path=str(place), problem=f"it cannot be read: {error.explanation}")]


def _path(place: Place) -> Any:
    """Return a ``Path`` or a ``UPath``."""
    if isinstance(place, str) and "://" in place:
        from upath import UPath

        try:
            return UPath(place)
        except (ValueError, ImportError) as error:
            raise ConfigurationError(
                f"{place} cannot be opened: {error}", hint="Install the fsspec package of that protocol"
            ) from error
    return place if _is_of_a_store(place) else Path(os.path.abspath(str(place)))


def _is_of_a_store(place: Any) -> bool:
    """Say whether it is a ``UPath``; in older versions that is a ``Path`` as well."""
    return hasattr(place, "protocol")


def _find(path: Any) -> list[Account]:
    if path.name and (size := Destination(path.parent).size(_only(path.name))) is not None:
        in_own_folder = path.parent.name == OWN_FOLDER.name
        root = Destination(path.parent.parent) if in_own_folder else None
        account = _read(str(path), Destination(path.parent), _only(path.name), root)
        return [account or Account(path=str(path), problem=_no_manifest(size))]
    if not _is_of_a_store(path) and not path.exists():
        return [Account(path=str(path), problem="it is not there")]
    root = Destination(path.parent if path.name == OWN_FOLDER.name else path)
    found = [
        account
        for name in root.names_beside(OWN_FOLDER / "any", "")
        if name.suffix == ".json" and (account := _read(root.uri_of(name), root, name, root)) is not None
    ]
    return _newest_first(found)


def _only(name: str) -> Any:
    return OWN_FOLDER.with_name(name)


def _newest_first(accounts: Iterable[Account]) -> list[Account]:
    def order(account: Account) -> tuple[bool, float]:
        return account.when is not None, -account.when.timestamp() if account.when is not None else 0.0

    return sorted(accounts, key=order)


def _no_manifest(size: int) -> str:
    return "it is no manifest" if size else "it is empty"


def _read(path: str, place: Destination, name: Any, root: Destination | None) -> Account | None:
    """Read one document; ``None`` when it is something else than a manifest."""
    try:
        text = place.read_text(name)
        document = None if text is None else _document(json.loads(text))
    except json.JSONDecodeError as error:
        problem = f"it is no whole JSON document: {error.msg} in line {error.lineno}"
        return Account(path=path, root=root, problem=problem)
    except DicomError as error:  # also: written by a later version
        return Account(path=path, root=root, problem=str(error))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        # What is in it is not repeated: nobody knows what it holds.
        problem = f"it is no manifest that can be read ({type(error).__name__})"
        return Account(path=path, root=root, problem=problem)
    if document is None:
        return None
    return Account(path=path, document=document, root=root, problem=_contradiction(document))


def _document(values: Any) -> Manifest | SentDocument | None:
    if not isinstance(values, Mapping) or "schema_version" not in values or "outcome" not in values:
        return None
    if values.get("kind") == SENT:
        return SentDocument.from_json(values)
    return None if "kind" in values else Manifest.from_json(values)


def _contradiction(document: Manifest | SentDocument) -> str:
    """Say where a document claims more than its own account of the instances: somebody has edited it."""
    if isinstance(document, SentDocument) or document.outcome in _OWES:
        return ""
    owed = sum(not is_done(document, entry) for entry in document.ledger.entries.values())
    if not owed:
        return ""
    return f"it says {document.outcome}, and {owed} of the instances in it are not {_proof(document)}"


def _proof(manifest: Manifest) -> str:
    if "verify_peer" in manifest.request:
        return "listed"
    return "reported" if manifest.outcome is Outcome.REPORTED else "verified"
