"""Our side of what clients do, in a process of its own that has its imports behind it.

It reads one request in a line, as JSON, does it, and answers in a line: the seconds it took, and what came of it.

    python -m benchmarks.worker
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from airflow_provider_varian.dimse import contexts
from airflow_provider_varian.dimse.association import associate
from airflow_provider_varian.dimse.get import get
from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.query.find import find
from airflow_provider_varian.query.level import Level
from airflow_provider_varian.query.profile import Profile
from airflow_provider_varian.query.query import Query
from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.receiver.spool_sink import SpoolSink
from airflow_provider_varian.retrieval.request import RetrievalRequest
from airflow_provider_varian.retrieval.retrieve import retrieve
from airflow_provider_varian.retrieval.store import store_files
from airflow_provider_varian.uids import STUDY_ROOT_GET
from benchmarks import find_answers

_PROFILE: Final = Profile(name="generic")
#: Seconds, and what came of it.
_Done = tuple[float, dict[str, Any]]


def _peer(request: Mapping[str, Any], **more: Any) -> Peer:
    called, calling = request["called"], request["calling"]
    return Peer(host="127.0.0.1", port=request["port"], called_ae_title=called, calling_ae_title=calling, **more)


def _get(request: Mapping[str, Any]) -> _Done:
    """Bring a study by C-GET into a spool, with or without fsync."""
    from pydicom.dataset import Dataset

    identifier = Dataset()
    identifier.QueryRetrieveLevel, identifier.StudyInstanceUID = "STUDY", request["study"]
    with SpoolSink(Spool(request["spool"]), durable=request["durable"]) as sink:
        start = time.perf_counter()
        proposed = contexts.get(STUDY_ROOT_GET, request["sop_classes"])
        with associate(_peer(request), proposed, step="C-GET") as association:
            report = get(association, STUDY_ROOT_GET, identifier, sink=sink)
        return time.perf_counter() - start, {"status": report.status}


def _find(request: Mapping[str, Any]) -> _Done:
    """Ask at STUDY level, and return what was answered as mappings."""
    start = time.perf_counter()
    query = Query.build(Level.STUDY, dict.fromkeys(find_answers.KEYWORDS, ""))
    found = find(_peer(request), query, profile=_PROFILE)
    seconds = time.perf_counter() - start
    read = find_answers.fingerprint((row["StudyInstanceUID"], row["PatientName"]) for row in found.answers)
    return seconds, {"count": len(found.answers), "fingerprint": read}


def _retrieve(request: Mapping[str, Any]) -> _Done:
    """Retrieve a study into a folder, with an account of it."""
    peer = _peer(request, receiver_host="127.0.0.1", receiver_port=request["receiver_port"])
    start = time.perf_counter()
    result = retrieve(
        peer,
        RetrievalRequest(level=Level.STUDY, keys={"StudyInstanceUID": request["study"]}),
        profile=_PROFILE,
        destination=Path(request["destination"]),
        spool_root=request["spool"],
        retrieval_id=request["id"],
        method=request["method"],
        stable_counts=request["lists"],
    )
    seconds = time.perf_counter() - start
    timings = {
        name.removesuffix("_seconds"): value
        for name, value in result.manifest.timings.items()
        if name.endswith("_seconds")
    }
    return seconds, {"outcome": str(result.outcome), "verified": result.counts["verified"], "timings": timings}


def _store(request: Mapping[str, Any]) -> _Done:
    """Send files, with an account of each."""
    files = [Path(each) for each in request["files"]]
    start = time.perf_counter()
    result = store_files(_peer(request, allow_store=True), files, store_id=request["id"], destination=None)
    return time.perf_counter() - start, {"outcome": str(result.outcome)}


_VERBS: Final[Mapping[str, Callable[[Mapping[str, Any]], _Done]]] = {
    "get": _get,
    "find": _find,
    "retrieve": _retrieve,
    "store": _store,
}


def main() -> None:
    """Do what is asked, until there is no more."""
    # What others print does not come between the answers.
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as replies:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        for line in sys.stdin:
            request = json.loads(line)
            try:
                seconds, answer = _VERBS[request["verb"]](request)
                answer["seconds"] = seconds
            except Exception as error:  # noqa: BLE001 - told to whoever asked, who goes on with others
                answer = {"error": f"{type(error).__name__}: {error}"}
            replies.write(json.dumps(answer) + "\n")
            replies.flush()


if __name__ == "__main__":
    main()
