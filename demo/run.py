"""``make demo``: real Airflow pulls yesterday's machine-QA images of two simulated linacs."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from demo.contact_sheet import contact_sheet
from demo.stage import DAG_ID, PROJECT, TIMEZONE, Stage, stage

if TYPE_CHECKING:
    from rich.table import Table

ROOT = PROJECT / ".demo"


def _table(machines: list[dict[str, Any]], day: str) -> Table:
    """Return a row for each machine and day; the days of the look-back are dimmed."""
    from rich.table import Table

    table = Table(title=f"Machine QA of {day}, and the days looked back on")
    for column in ("machine", "plan", "acquired", "images", "bytes", "outcome"):
        table.add_column(column, justify="right" if column in {"images", "bytes"} else "left")
    for machine in machines:
        for each in machine["days"]:
            if each["images"] or each["expected"]:
                cells = (each["day"], str(each["images"]), f"{each['bytes']:,}", each["outcome"])
                style = "bold" if each["day"] == day else "dim"
                table.add_row(machine["machine"], machine["plan"], *cells, style=style)
    return table


def _show(run: Stage, sheet: Path, day: str) -> bool:
    """Print what came and where it is, and say whether all machines are complete."""
    from rich.console import Console

    (report_file,) = (run.storage / ".dicom" / "reports").rglob("*.json")
    machines = json.loads(report_file.read_text())["machines"]
    console = Console()
    console.print(_table(machines, day))
    places = [("images", run.storage), ("report", report_file), ("contact sheet", sheet)]
    places += [("manifest", Path(machine["manifest"].removeprefix("file://"))) for machine in machines]
    for label, place in places:
        console.print(f"{label:>14}  {place.relative_to(PROJECT)}", soft_wrap=True, highlight=False)
    return all(machine["outcome"] == "complete" for machine in machines)


def _acquired(file: Path) -> tuple[str, str]:
    from pydicom import dcmread

    dataset = dcmread(file, stop_before_pixels=True)
    return str(dataset.RadiationMachineName), str(dataset.AcquisitionTime)


def main() -> int:
    """Run the demo; exit status 0 when every machine is complete."""
    shutil.rmtree(ROOT, ignore_errors=True)
    ROOT.mkdir()
    log = ROOT / "airflow.log"
    yesterday = datetime.now(ZoneInfo(TIMEZONE)) - timedelta(days=1)
    with stage(ROOT) as run:
        print("1/3  database of a fresh Airflow")
        if run.airflow("db", "migrate", log=log):
            sys.exit(f"Airflow could not set up its database; see {log}")
        print(f"2/3  DAG {DAG_ID} for {yesterday:%A, %d %B %Y}")
        # A manual run's data interval is the last one that ended before its logical date.
        logical_date = yesterday.replace(hour=12, minute=0, second=0, microsecond=0).isoformat()
        if run.airflow("dags", "test", DAG_ID, logical_date, log=log):
            sys.exit(f"The DAG failed; see {log}")
        print("3/3  contact sheet")
        sheet = ROOT / "contact-sheet.png"
        contact_sheet(sorted((run.storage / f"{yesterday:%Y%m%d}").rglob("*.dcm"), key=_acquired), sheet)
        return 0 if _show(run, sheet, f"{yesterday:%Y-%m-%d}") else 1


if __name__ == "__main__":
    # Both end it in good order, also where a shell has started it with Ctrl-C switched off.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("stopped")
