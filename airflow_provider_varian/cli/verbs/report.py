"""``varian-dicom report``: tell what a manifest says, and hold it against what is there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from airflow_provider_varian.cli.verb import ExitStatus, Verb
from airflow_provider_varian.cli.verbs.retrieve import EXIT_STATUS_OF_OUTCOME
from airflow_provider_varian.cli.verbs.store import EXIT_STATUS_OF_SENT

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterable, Sequence

    from airflow_provider_varian.cli.output import Output
    from airflow_provider_varian.reports.account import Account
    from airflow_provider_varian.reports.check import Check

_EXAMPLES: Final = """\
  varian-dicom report /srv/qa/.dicom/0f3c1a.json
  varian-dicom report /srv/qa --verify
  varian-dicom report s3://bucket/qa --json

exit status: of the worst of them. 0 all complete, reported or empty; 1 one is pending, cannot be read, or contradicts
itself; 3 one is partial, short or limited, or --verify found a difference; 4 nothing but empty ones, or a folder
without any.
"""
#: From good to bad. Empty is better than complete only where nothing else is told.
_FROM_GOOD_TO_BAD: Final = (
    ExitStatus.NOTHING_FOUND,
    ExitStatus.DONE,
    ExitStatus.INCOMPLETE,
    ExitStatus.FAILED,
)


def _add_arguments(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "manifests",
        nargs="+",
        metavar="MANIFEST",
        help="path or URI of a manifest; or of a destination, for all of its manifests, the newest first",
    )
    add("--all", action="store_true", help="tell everything: name all that is missing, not the first few")
    add("--verify", action="store_true", help="compare size and SHA-256 of what is there with what it says")
    add("--json", action="store_true", help="print a list of mappings as JSON")


def _run(arguments: Namespace, output: Output) -> ExitStatus:
    from airflow_provider_varian.reports.account import find_accounts
    from airflow_provider_varian.reports.check import check_account
    from airflow_provider_varian.reports.mapping import account_mapping

    told: list[tuple[Account, Check | None]] = []
    nothing_in: list[str] = []
    for place in arguments.manifests:
        accounts = find_accounts(place)
        if not accounts:
            nothing_in.append(place)
        for account in accounts:
            told.append((account, check_account(account) if arguments.verify else None))
    for place in nothing_in:
        output.note(f"no manifest in {place}")
    output.result(
        [account_mapping(account, check) for account, check in told],
        lambda: _show(told, output, everything=arguments.all, verify=arguments.verify),
    )
    return _worst((_status(account, check) for account, check in told), nothing_in=bool(nothing_in))


def _show(told: Sequence[tuple[Account, Check | None]], output: Output, *, everything: bool, verify: bool) -> None:
    from airflow_provider_varian.reports.text import NAMED_AT_MOST, account_lines, summary_line

    for number, (account, check) in enumerate(told):
        if number:
            output.line("")
        lines = account_lines(
            account,
            check=check,
            at_most=None if everything else NAMED_AT_MOST,
            brief=len(told) > 1 and not everything,
        )
        for line in lines:
            output.line(line)
        if verify and check is None and account.document is not None:
            output.line("verify     nothing to compare: what it tells of does not lie where we can look")
    if len(told) > 1:
        output.line("")
        output.line(summary_line([account for account, _ in told]))


def _status(account: Account, check: Check | None) -> ExitStatus:
    if account.document is None or account.problem:
        return ExitStatus.FAILED
    if account.manifest is not None:
        status = EXIT_STATUS_OF_OUTCOME[account.manifest.outcome]
    else:
        status = EXIT_STATUS_OF_SENT[account.outcome]
    if check is None or check.is_well:
        return status
    return max(status, ExitStatus.INCOMPLETE, key=_FROM_GOOD_TO_BAD.index)


def _worst(statuses: Iterable[ExitStatus], *, nothing_in: bool) -> ExitStatus:
    worst = max(statuses, key=_FROM_GOOD_TO_BAD.index, default=ExitStatus.NOTHING_FOUND)
    # Who asked about a folder and got no answer is not told that all is well.
    return ExitStatus.NOTHING_FOUND if nothing_in and worst is ExitStatus.DONE else worst


VERB: Final = Verb(
    name="report",
    summary="tell what manifests say: what is here, what is missing and why",
    examples=_EXAMPLES,
    add_arguments=_add_arguments,
    run=_run,
)
