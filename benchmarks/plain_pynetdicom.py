"""A receiver as pynetdicom's own documentation shows it: each object decoded, and saved; nothing of this project.

python -m benchmarks.plain_pynetdicom PORT FOLDER
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pynetdicom import AE, AllStoragePresentationContexts, evt

from benchmarks.sender import CALLED


def main() -> None:
    """Receive until the process is ended."""
    parser = argparse.ArgumentParser(description="receive with pynetdicom alone")
    parser.add_argument("port", type=int)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()

    def save(event: evt.Event) -> int:
        ds = event.dataset
        ds.file_meta = event.file_meta
        ds.save_as(options.folder / f"{ds.SOPInstanceUID}.dcm", enforce_file_format=True)
        return 0x0000

    ae = AE(CALLED)
    ae.supported_contexts = AllStoragePresentationContexts
    ae.start_server(("127.0.0.1", options.port), evt_handlers=[(evt.EVT_C_STORE, save)])


if __name__ == "__main__":
    main()
