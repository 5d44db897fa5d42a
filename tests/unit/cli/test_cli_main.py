"""The program as a whole: verbs, exit status, messages, and what it does not need."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from support.ports import free_port

from airflow_provider_varian import __version__
from airflow_provider_varian.cli import main as program
from airflow_provider_varian.cli.interrupt import interruptible
from airflow_provider_varian.cli.main import main
from airflow_provider_varian.cli.verb import ExitStatus, Verb
from airflow_provider_varian.errors import (
    CancelledError,
    ConfigurationError,
    EmptyResultError,
    IncompleteRetrievalError,
    NotFoundError,
    PeerUnreachableError,
    QueryError,
)

BLOCKER = "import sys; sys.modules['airflow'] = None; from airflow_provider_varian.cli.main import main; "


def python(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def verb_that(monkeypatch):
    """Install one verb, `act`, that does what the test says."""

    def install(run, *, stands=False):
        verb = Verb(
            name="act",
            summary="act",
            examples="",
            add_arguments=lambda parser: None,
            run=lambda arguments, output: run(),
            stands=stands,
        )
        monkeypatch.setattr(program, "VERBS", (verb,))

    return install


def raising(error):
    def run():
        raise error

    return run


def test_the_verbs_of_this_version_are_listed_and_no_others():
    names = ["echo", "find", "plans", "treated", "rt-images", "retrieve", "move", "store", "receive", "report"]
    names += ["simulate"]
    assert [verb.name for verb in program.VERBS] == names


@pytest.mark.parametrize("verb", [None, *(verb.name for verb in program.VERBS)])
def test_each_verb_explains_itself(verb, capsys):
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"] if verb else ["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert f"varian-dicom {verb}" in text if verb else "exit status: 0 done" in text


def test_a_verb_that_stands_logs_with_the_time_and_says_the_same_once(verb_that, capsys, monkeypatch):
    ours = logging.getLogger("airflow_provider_varian.receiver.server")

    def run():
        for _ in range(3):
            ours.info("the same")
            ours.warning("another")
        ours.debug("a detail")
        return ExitStatus.DONE

    verb_that(run, stands=True)
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    assert main(["act"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [re.sub(r"^\d{4}-\d\d-\d\dT[\d:]{8}[+-]\d{4} ", "", line) for line in lines] == [
        "info: the same",
        "warning: another",
    ]
    # systemd's journal puts the time there by itself.
    monkeypatch.setenv("JOURNAL_STREAM", "8:1234")
    assert main(["act"]) == 0
    assert capsys.readouterr().err.splitlines()[0] == "info: the same"


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"varian-dicom {__version__}\n"


@pytest.mark.parametrize(
    "arguments", [[], ["dance"], ["echo"], ["echo", "--peer", "A@b:1", "--conn", "x"], ["find", "--nope"]]
)
def test_wrong_usage_is_status_2(arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConfigurationError("x"), 2),
        (QueryError("x"), 2),
        (PeerUnreachableError("x"), 1),
        (CancelledError("x"), 1),
        (IncompleteRetrievalError("x"), 3),
        (EmptyResultError("x"), 4),
        (NotFoundError("x"), 4),
        (KeyboardInterrupt(), 1),
    ],
)
def test_each_error_has_its_exit_status(verb_that, error, status):
    verb_that(raising(error))
    assert main(["act"]) == status


def test_an_error_is_one_readable_line_with_its_hint(verb_that, capsys):
    error = PeerUnreachableError("refused", peer="VMSDBD@h:1", step="association", hint="Check the\nport.\x1b[2J")
    verb_that(raising(error))
    assert main(["act"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "varian-dicom act: association with VMSDBD@h:1: refused. Check the\\nport.\\x1b[2J\n"


@pytest.mark.parametrize(
    ("hint", "told"),
    [
        (
            "Set called_ae_title, or calling_ae_title.",
            ". On the command line called_ae_title is the AET of --peer, calling_ae_title is --calling",
        ),
        (
            "Paste it into tls_ca_certificate, and lower max_associations of tls_ca_certificate",
            ". On the command line tls_ca_certificate is --tls-ca-certificate, "
            "max_associations is --set max_associations=...",
        ),
        ("The receiver has a profile, an address_family and no called_ae_titles", ""),
    ],
)
@pytest.mark.parametrize("whom", ["--peer", "--conn"])
def test_fields_that_an_error_names_are_told_as_the_options_that_a_person_typed(
    verb_that, capsys, monkeypatch, hint, told, whom
):
    verb_that(raising(PeerUnreachableError("refused", peer="VMSDBD@h:1", step="C-FIND", hint=hint)))
    (act,) = program.VERBS
    monkeypatch.setattr(program, "VERBS", (replace(act, add_arguments=lambda parser: parser.add_argument(whom)),))
    assert main(["act", whom, "VMSDBD@h:1"]) == 1
    told = hint.removesuffix(".") + told if told and whom == "--peer" else hint
    assert capsys.readouterr().err == f"varian-dicom act: C-FIND with VMSDBD@h:1: refused. {told}\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["find", "PatientID=Sommer"], "varian-dicom find: error: a key has to follow -k: write -k PatientID=..."),
        (["find", "Sommer"], "varian-dicom find: error: there is an argument too many"),
        (["echo", "PatientID=Sommer"], "varian-dicom echo: error: there is an argument too many"),
        (["echo", "--patient=Sommer"], "varian-dicom echo: error: --patient is no option of this verb"),
        (["echo", "--patient", "Sommer"], "varian-dicom echo: error: --patient is no option of this verb"),
    ],
)
def test_an_argument_too_many_is_refused_and_its_value_not_repeated(arguments, told, capsys):
    verb, *rest = arguments
    with pytest.raises(SystemExit) as ended:
        main([verb, "--peer", "VMSDBD@127.0.0.1:1", *rest])
    assert ended.value.code == ExitStatus.WRONG_USAGE
    err = capsys.readouterr().err
    assert told in err
    assert f"usage: varian-dicom {verb}" in err
    assert "Sommer" not in err


def test_nothing_of_airflow_or_dicom_is_loaded_before_a_verb_runs():
    loaded = python(BLOCKER + "print(sorted({'pydicom', 'pynetdicom', 'numpy', 'rich'} & set(sys.modules)))")
    assert loaded.stdout == "[]\n", loaded.stderr


def test_it_runs_where_airflow_cannot_be_imported():
    port = free_port()
    done = python(BLOCKER + "sys.exit(main(sys.argv[1:]))", "echo", "--peer", f"VMSDBD@127.0.0.1:{port}")
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(rf"varian-dicom echo: .*VMSDBD@127\.0\.0\.1:{port}.*refused.*\n", done.stderr)


def test_an_airflow_connection_without_airflow_says_what_is_missing():
    done = python(BLOCKER + "sys.exit(main(sys.argv[1:]))", "echo", "--conn", "dicom_default")
    assert done.returncode == 2
    assert "--conn needs Airflow" in done.stderr
    assert "Traceback" not in done.stderr


def test_it_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "airflow_provider_varian.cli", "--version"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.startswith("varian-dicom ")


def test_the_first_signal_cancels_and_gives_the_second_one_back():
    before = signal.getsignal(signal.SIGINT)
    with interruptible() as cancellation:
        os.kill(os.getpid(), signal.SIGINT)
        deadline = time.monotonic() + 10
        while not cancellation.cancelled and time.monotonic() < deadline:
            pass
        assert cancellation.cancelled
        assert signal.getsignal(signal.SIGINT) is before
    assert signal.getsignal(signal.SIGTERM) is not None


def test_exit_statuses_are_the_documented_ones():
    assert {status.name: int(status) for status in ExitStatus} == {
        "DONE": 0,
        "FAILED": 1,
        "WRONG_USAGE": 2,
        "INCOMPLETE": 3,
        "NOTHING_FOUND": 4,
    }


def test_warnings_are_one_safe_line_each_and_details_are_asked_for(verb_that, capsys):
    def run():
        logger = logging.getLogger("airflow_provider_varian.x")
        logger.warning("refused %s", "A\x1b[2J\nB")
        logger.info("in detail")
        logging.getLogger("pynetdicom.x").error("noise")
        return 0

    verb_that(run)
    assert main(["act"]) == 0
    assert main(["act", "--verbose"]) == 0
    line = "warning: refused A\\x1b[2J\\nB\n"
    assert capsys.readouterr().err == line + line + "info: in detail\n"
