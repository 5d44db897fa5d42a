"""What is held is looked up without a spool: a dry run writes nothing."""

from __future__ import annotations

from airflow_provider_varian.retrieval.outcome import Outcome


def files_below(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_dry_run_makes_no_spool_and_no_destination(clinic):
    result = clinic.run(dry_run=True)
    assert (result.outcome, result.counts["found"], result.counts["held"]) == (Outcome.PENDING, 5, 0)
    assert not clinic.spool.exists()
    assert not clinic.root.exists()


def test_a_dry_run_tells_what_is_held_and_leaves_all_as_it_was(clinic):
    clinic.run(clinic.images(1, 2))
    # A fragment of a writer that is dead by now: sweeping it is not a dry run's business.
    fragment = clinic.spool / "tmp" / "0123456789ab" / "fragment"
    fragment.parent.mkdir()
    fragment.write_bytes(b"half")
    before = files_below(clinic.spool), files_below(clinic.root)
    result = clinic.run(dry_run=True, retrieval_id="r-2")
    assert (result.counts["found"], result.counts["held"]) == (5, 2)
    assert (files_below(clinic.spool), files_below(clinic.root)) == before
