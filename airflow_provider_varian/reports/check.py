"""A manifest held against what is there, as far as that can be looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from airflow_provider_varian.errors import DicomError
from airflow_provider_varian.reports.account import Account
from airflow_provider_varian.retrieval.audit import Audit, audit, audit_move
from airflow_provider_varian.retrieval.manifest import Manifest
from airflow_provider_varian.retrieval.third_party_folder import WatchedFolder


@dataclass(slots=True, kw_only=True)
class Check(Audit):
    """What came of it.

    :param impossible: why nothing could be compared; empty when it could.
    """

    impossible: str = ""

    @property
    def is_well(self) -> bool:
        """Whether all that the manifest says is there is there, as it was."""
        return not self.differences and not self.impossible

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-ready mapping."""
        return {
            "checked": self.checked,
            "hashed": self.hashed,
            "differences": [{"sop_instance_uid": uid, "difference": words} for uid, words in self.differences.items()],
            "replaced": [{"sop_instance_uid": uid, "path": path} for uid, path in self.replaced.items()],
            "impossible": self.impossible or None,
        }


def check_account(account: Account) -> Check | None:
    """Hold a manifest against what is at its destination, or in the folder that proved a move.

    :param account: a manifest that was read.
    :return: ``None`` when it says of nothing that it lies where we can look: an unreadable one, a store, and a move
        whose destination we cannot read.
    """
    manifest = account.manifest
    if manifest is None or (account.kind == "move" and "verify_path" not in manifest.request):
        return None
    if account.kind == "retrieval" and account.root is None:
        return Check(impossible="it does not lie in the .dicom folder of its destination")
    try:
        found = _audited(account, manifest)
    except DicomError as error:
        return Check(impossible=str(error))
    except OSError as error:  # its path is not told: a layout may have put a PatientID into it
        return Check(impossible=f"an object cannot be read: {error.strerror}")
    return Check(checked=found.checked, hashed=found.hashed, differences=found.differences, replaced=found.replaced)


def _audited(account: Account, manifest: Manifest) -> Audit:
    if account.kind == "retrieval" and account.root is not None:
        return audit(manifest, account.root)
    return audit_move(manifest, WatchedFolder(str(manifest.request["verify_path"]), quiet_seconds=0.0))
