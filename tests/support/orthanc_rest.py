"""Orthanc as a client of the simulator, driven by its REST interface."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.dcmtk import running


@dataclass(frozen=True)
class Orthanc:
    """A running Orthanc; ``modality`` is its name for the simulator."""

    http_port: int
    modality: str = "simulator"

    def ask(self, path: str, body: Any = None) -> Any:
        """GET a resource, or POST to it when there is a body; bytes go out as they are."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        with urllib.request.urlopen(
            urllib.request.Request(f"http://127.0.0.1:{self.http_port}{path}", data=data), timeout=60
        ) as answer:
            return json.loads(answer.read() or b"null")

    def query(self, level: str, keys: dict[str, str]) -> tuple[str, list[dict[str, str]]]:
        """Put a C-FIND to the simulator; return the path of the query, and its answers by keyword."""
        path = self.ask(f"/modalities/{self.modality}/query", {"Level": level, "Query": keys})["Path"]
        return path, self.ask(f"{path}/answers?expand&simplify")

    def instances(self) -> dict[str, str]:
        """Return what it holds: its own IDs by SOP Instance UID."""
        return {
            each["MainDicomTags"]["SOPInstanceUID"]: each["ID"]
            for each in self.ask("/instances?expand&since=0&limit=9999")
        }

    def forget(self) -> None:
        """Delete all that it holds."""
        for patient in self.ask("/patients"):
            urllib.request.urlopen(
                urllib.request.Request(f"http://127.0.0.1:{self.http_port}/patients/{patient}", method="DELETE"),
                timeout=60,
            ).close()


@contextmanager
def orthanc_with_rest(
    root: Path, *, dicom_port: int, http_port: int, simulator: tuple[str, str, int]
) -> Iterator[Orthanc]:
    """Run Orthanc with its web server on loopback, open to this machine; it knows the simulator.

    :param simulator: AE title, host and port.
    """
    root.mkdir(parents=True, exist_ok=True)
    config = root / "orthanc.json"
    config.write_text(
        json.dumps(
            {
                "Name": "test",
                "StorageDirectory": str(root / "storage"),
                "IndexDirectory": str(root / "index"),
                "HttpServerEnabled": True,
                "HttpPort": http_port,
                "RemoteAccessAllowed": False,
                "AuthenticationEnabled": False,
                "DicomServerEnabled": True,
                "DicomAet": "ORTHANC",
                "DicomPort": dicom_port,
                "DicomModalities": {"simulator": list(simulator)},
                "Plugins": [],
            }
        )
    )
    with running(["Orthanc", str(config)], port=http_port, log=root / "orthanc.log", cwd=root):
        yield Orthanc(http_port)
