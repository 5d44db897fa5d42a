"""Image and compose file, as far as they can be proved without a container engine.

Each RUN step of the Dockerfile is executed in a virtual environment that holds what the base image holds:
the packages of the Airflow that runs this test.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import yaml

from airflow_provider_varian.cli.main import parser
from airflow_provider_varian.dimse.peer import peer_from_connection
from airflow_provider_varian.get_provider_info import get_provider_info
from airflow_provider_varian.simulator.daemon.behaviour import Behaviour

HERE = Path(__file__).parent.parent.parent
DOCKER = HERE / "docker"
TOOLS = Path(sys.executable).parent
OURS = "airflow_provider_varian"
AIRFLOW_SERVICES = ("init", "api-server", "scheduler", "dag-processor", "triggerer", "simulator-connection")

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))


def run(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=240, **options)


# ----------------------------------------------------------------------------------------------------- compose file


def test_the_compose_file_follows_the_specification():
    done = run(TOOLS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", DOCKER / "compose.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_all_airflow_services_share_image_secrets_and_storage(compose):
    services = [compose["services"][name] for name in AIRFLOW_SERVICES]
    shared = {"fernet_key", "api_secret_key", "jwt_secret", "database_url"}
    assert all(shared <= set(service["secrets"]) for service in services)
    assert len({service["image"] for service in services}) == 1
    assert len({tuple(service["volumes"]) for service in services}) == 1
    settings = [
        {name: value for name, value in service["environment"].items() if name.startswith("AIRFLOW__")}
        for service in services
    ]
    assert all(each == settings[0] for each in settings)


def test_every_secret_and_volume_that_is_used_is_defined(compose):
    for name, service in compose["services"].items():
        assert set(service.get("secrets", ())) <= set(compose["secrets"]), name
        for volume in service.get("volumes", ()):
            source = substituted(volume).split(":")[0]
            assert source.startswith((".", "/")) or source in compose["volumes"], volume


def test_no_secret_stands_in_the_environment(compose):
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|SECRET|FERNET|SQL_ALCHEMY", name):
                assert re.fullmatch(r"(cat )?/run/secrets/\w+", str(value)), name


def test_what_runs_for_long_is_watched_and_comes_back(compose):
    for name, service in compose["services"].items():
        one_shot = service.get("restart") == "no"
        assert one_shot or ("healthcheck" in service and service["restart"] == "unless-stopped"), name


def test_the_simulator_and_its_connection_fit_each_other(compose):
    simulator, connection = (compose["services"][name] for name in ("simulator", "simulator-connection"))
    program, verb = simulator["entrypoint"]
    served = parser().parse_args([verb, *map(substituted, simulator["command"])])
    assert program == "varian-dicom"

    script = substituted(connection["command"][-1]).replace("\\\n", " ")
    options = dict(re.findall(r"--conn-([a-z]+) ('[^']*'|\S+)", script))
    peer = peer_from_connection(
        host=options["host"], port=int(options["port"]), extra=json.loads(options["extra"].strip("'"))
    )
    assert (peer.host, peer.port, peer.called_ae_title) == ("simulator", served.port, served.ae_title)
    assert peer.timezone == str(served.timezone)
    assert served.trust == [f"{peer.calling_ae_title}@scheduler:{peer.receiver_port}"]
    assert f"{peer.receiver_port}:{peer.receiver_port}" in map(substituted, compose["services"]["scheduler"]["ports"])
    Behaviour().with_settings(served.quirk)
    probe = simulator["healthcheck"]["test"]
    assert parser().parse_args(probe[2:]).peer == f"{served.ae_title}@127.0.0.1:{served.port}"


def substituted(text):
    """Fill in the defaults of ``${NAME:-default}``, as Compose does."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def test_every_setting_is_one_that_airflow_knows(compose):
    known = known_options()
    for name in compose["services"]["scheduler"]["environment"]:
        match = re.fullmatch(r"AIRFLOW__([A-Z_]+?)__([A-Z_]+?)(_CMD)?", name)
        assert match, name
        section, option, command = match[1].lower(), match[2].lower(), match[3]
        assert option in known[section], name
        # Airflow reads NAME_CMD for sensitive options only.
        assert not command or known[section][option].get("sensitive"), name


def known_options():
    import airflow

    text = (Path(airflow.__file__).parent / "config_templates" / "config.yml").read_text(encoding="utf-8")
    sections = yaml.safe_load(text) | get_provider_info()["config"]
    return {name: section["options"] for name, section in sections.items()}


# ------------------------------------------------------------------------------------------------------- secrets


def make_secrets(folder):
    shutil.copy(DOCKER / "make-secrets", folder)
    done = run("sh", str(folder / "make-secrets"))
    assert done.returncode == 0, done.stderr
    return {path.name: path.read_text(encoding="ascii") for path in (folder / "secrets").iterdir()}


def test_every_secret_of_the_compose_file_is_made(compose, tmp_path):
    made = make_secrets(tmp_path)
    assert {f"./secrets/{name}" for name in made} == {secret["file"] for secret in compose["secrets"].values()}
    assert made["database_password"] in made["database_url"]
    assert len(set(made.values())) == len(made)
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in (tmp_path / "secrets").iterdir())
    assert re.search(r"^AIRFLOW_UID=[1-9]\d*$", (tmp_path / ".env").read_text(encoding="ascii"), re.M)


def test_a_fernet_key_is_one(tmp_path):
    from cryptography.fernet import Fernet

    Fernet(make_secrets(tmp_path)["fernet_key"].encode("ascii"))


def test_secrets_that_are_there_are_kept(tmp_path):
    before = make_secrets(tmp_path)
    assert make_secrets(tmp_path) == before
    assert (tmp_path / ".env").read_text(encoding="ascii").count("AIRFLOW_UID=") == 1


# ---------------------------------------------------------------------------------------------------- Dockerfile


def test_the_dockerfile_passes_hadolint():
    done = run(TOOLS / "hadolint", DOCKER / "Dockerfile")
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_step_of_the_dockerfile_runs(tmp_path):
    environment = base_image(tmp_path)
    build, final = stages((DOCKER / "Dockerfile").read_text(encoding="utf-8"))
    # The final stage finds all it needs here: were it to upgrade a package, it would do so behind the links.
    for stage, settings in ((build, {}), (final, {"PIP_NO_INDEX": "1"})):
        for instruction, rest in stage:
            if instruction == "COPY":
                copy(rest, tmp_path)
            elif instruction == "RUN":
                command = re.sub(r"(?<![\w.])/tmp/", f"{tmp_path}/tmp/", rest)
                done = run("/bin/bash", "-o", "pipefail", "-ec", command, env=environment | settings, cwd=tmp_path)
                assert done.returncode == 0, f"{rest}\n{done.stdout}{done.stderr}"
            else:
                assert instruction in ("ARG", "FROM"), instruction

    program = tmp_path / "venv" / "bin" / "varian-dicom"
    assert run(str(program), "--version", env=environment).returncode == 0
    for name in ("dicom", "dicom-spool"):
        mode = (tmp_path / "opt" / "airflow" / name).stat().st_mode
        assert mode & 0o070 == 0o070, f"group 0 cannot write {name}"


def stages(dockerfile):
    """Return the instructions of each stage, with those before the first FROM in the first."""
    text = re.sub(r"^#.*\n", "", dockerfile, flags=re.M).replace("\\\n", " ")
    instructions = [line.split(None, 1) for line in text.splitlines() if line.strip()]
    starts = [number for number, (name, _) in enumerate(instructions) if name == "FROM"]
    assert len(starts) == 2
    return [instructions[: starts[1]], instructions[starts[1] :]]


def copy(rest, root):
    """Do a COPY: from the build context, or from the other stage, whose files lie in the same place here."""
    words = shlex.split(rest)
    flags = [word for word in words if word.startswith("--")]
    *sources, target = [word for word in words if not word.startswith("--")]
    if any(flag.startswith("--from=") for flag in flags):
        assert sources == [target]
        return
    destination = root / target.lstrip("/")
    for source in sources:
        assert allowed_into_context(source), f"{source} is kept out by Dockerfile.dockerignore"
        origin = HERE / source
        if origin.is_dir():
            shutil.copytree(origin, destination, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            destination.mkdir(parents=True, exist_ok=True)
            shutil.copy(origin, destination)


def allowed_into_context(source):
    return f"!{source}" in (DOCKER / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()


def base_image(root):
    """Make what the steps find in the base image: pip, Airflow, and its home."""
    from importlib.metadata import version

    venv.create(root / "venv", with_pip=True)
    ours = site_packages(root / "venv" / "bin" / "python")
    for entry in site_packages(sys.executable).iterdir():
        if not (ours / entry.name).exists() and OURS not in entry.name and not entry.name.startswith(("pip", "~")):
            (ours / entry.name).symlink_to(entry)
    home = root / "opt" / "airflow"
    home.mkdir(parents=True)
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AIRFLOW", "PYTHON", "VIRTUAL_ENV")) and name != "PATH"
    }
    return inherited | {
        "PATH": f"{root / 'venv' / 'bin'}:{os.defpath}",
        "AIRFLOW_HOME": str(home),
        "AIRFLOW_VERSION": version("apache-airflow"),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }


def site_packages(python):
    done = run(str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))")
    return Path(done.stdout.strip())


def test_the_image_is_the_newest_airflow_that_is_tested():
    dockerfile = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    (wanted,) = re.findall(r"^ARG AIRFLOW_VERSION=(\S+)$", dockerfile, re.M)
    newest = (HERE / "constraints" / "newest.txt").read_text(encoding="utf-8")
    assert f"apache-airflow=={wanted}" in newest.splitlines()
