"""A plan in a folder that a simulated daemon serves, and that changes under its UID."""

from __future__ import annotations

from pathlib import Path

from pydicom.uid import ImplicitVRLittleEndian
from support.archive import rt_image, sendable

from airflow_provider_varian import uids
from airflow_provider_varian.simulator.daemon.server import SimulatedDaemon
from airflow_provider_varian.simulator.holdings.data_directory import DataDirectory

KEYS = {"PatientID": "QA_TB_WL", "Modality": "RTPLAN"}


class ChangingPlan:
    """A plan behind a daemon.

    :param daemon: serves the folder from now on.
    :param folder: where the plan's file is.
    """

    def __init__(self, daemon: SimulatedDaemon, folder: Path) -> None:
        self._daemon = daemon
        self._folder = folder
        folder.mkdir()
        self.write(ApprovalStatus="UNAPPROVED", RTPlanLabel="A")

    def write(self, **attributes: str) -> None:
        """Put a plan of the same UID in the place of what is served."""
        plan = rt_image(
            1, SOPClassUID=uids.RT_PLAN, Modality="RTPLAN", RTPlanDate="20260101", RTPlanTime="101500", **attributes
        )
        for keyword in ("ImageType", "PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit"):
            delattr(plan, keyword)
        plan = sendable(plan)
        plan.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        plan.save_as(self._folder / "plan.dcm", enforce_file_format=True)
        self._daemon.holdings = DataDirectory(self._folder)
