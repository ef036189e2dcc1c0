"""The files for systemd, containers and Kubernetes agree with the program: ports, signals, deadlines, names."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from psycopg import conninfo

from eventwriter import __version__, cli, errors, registry
from eventwriter.config.loading import Config, HttpConfig, WriterConfig, load
from eventwriter.config.units import parse_duration

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "deploy"
PORT = HttpConfig().address[1]
DRAIN = WriterConfig().drain_timeout + 3.0
"""The supervisor's deadline."""


def unit() -> dict[str, dict[str, str]]:
    """The systemd unit by section."""
    parser = ConfigParser(interpolation=None, strict=False)  # of a name that comes twice, the last
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(FOLDER / "eventwriter.service", encoding="utf-8")
    return {name: dict(parser[name]) for name in parser.sections()}


def manifests() -> dict[tuple[str, str], dict[str, Any]]:
    """The Kubernetes objects by kind and name."""
    documents = yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text(encoding="utf-8"))
    return {(each["kind"], each["metadata"]["name"]): each for each in documents}


def pods() -> dict[str, dict[str, Any]]:
    """The pods that those make, by the name of their maker."""
    return {
        name: each["spec"]["template"]["spec"]
        for (_, name), each in manifests().items()
        if "template" in each.get("spec", {})
    }


def dockerfile() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile."""
    text = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [(words[0], words[2]) for words in (line.partition(" ") for line in lines if line)]


def last_of(name: str) -> str:
    """The value of an instruction that counts."""
    return [value for each, value in dockerfile() if each == name][-1]


def assert_command(arguments: list[str]) -> None:
    """The command line is one that the program has: commands and options exist."""
    command: click.Command = cli.cli
    while arguments and isinstance(command, click.Group):
        assert arguments[0] in command.commands, arguments
        command, arguments = command.commands[arguments[0]], arguments[1:]
    with command.make_context("eventwriter", list(arguments), resilient_parsing=False):
        pass


def settings(tmp_path: Path, environment: dict[str, str], toml: str = "") -> Config:
    """The settings a process with this environment has; secrets come from a file that exists."""
    secret = tmp_path / "secret"
    secret.write_text("secret")
    file = tmp_path / "eventwriter.toml"
    file.write_text(toml)
    environ = {name: str(secret) if name.endswith("_FILE") else value for name, value in environment.items()}
    return load(registry.load(), file=file, environ=environ, flags={})


# ---- systemd


def test_the_unit_waits_longer_than_a_drain_takes() -> None:
    """SIGTERM to the supervisor only, and SIGKILL not before its own deadline has passed."""
    service = unit()["Service"]
    assert service["KillMode"] == "mixed"
    assert service["KillSignal"] == "SIGTERM"
    assert parse_duration(service["TimeoutStopSec"]) > DRAIN


def test_the_unit_restarts_what_another_try_may_mend() -> None:
    """Refused credentials and wrong settings stay down, everything else comes back."""
    service = unit()["Service"]
    assert service["Restart"] == "on-failure"
    assert service["RestartPreventExitStatus"].split() == [str(errors.AUTHENTICATION), str(errors.CONFIGURATION)]
    assert unit()["Unit"]["StartLimitIntervalSec"] == "0"


def test_the_unit_runs_and_reloads_the_service() -> None:
    """The command exists, and the signal is the one that reloads."""
    service = unit()["Service"]
    program, *arguments = shlex.split(service["ExecStart"])
    assert Path(program).name == "eventwriter"
    assert_command(arguments)
    assert service["ExecReload"].split()[1:] == ["-HUP", "$MAINPID"]
    assert service["NotifyAccess"] == "main"
    assert service["DynamicUser"] == "yes"
    assert {"AF_INET", "AF_INET6", "AF_UNIX"} == set(service["RestrictAddressFamilies"].split())


def test_the_unit_shuts_out_what_the_service_does_not_need() -> None:
    """What ``systemd-analyze security`` asks for, but for what a service on a network cannot do without."""
    service = unit()["Service"]
    for name in ("NoNewPrivileges", "PrivateMounts", "PrivateUsers", "MemoryDenyWriteExecute", "RestrictNamespaces"):
        assert service[name] == "yes", name
    assert (service["ProtectSystem"], service["ProtectProc"], service["ProcSubset"]) == ("strict", "invisible", "pid")
    assert service["CapabilityBoundingSet"] == ""
    lines = (FOLDER / "eventwriter.service").read_text(encoding="utf-8").splitlines()
    filters = [line for line in lines if line.startswith("SystemCallFilter=")]
    assert filters == ["SystemCallFilter=@system-service", "SystemCallFilter=~@privileged @resources"]
    assert int(service["LimitNOFILE"]) >= 1024
    assert int(service["MemoryMax"].removesuffix("M")) >= 1536


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd-analyze")
def test_systemd_finds_no_fault_with_the_unit(tmp_path: Path) -> None:
    """It understands each line; what it still names is what a service on a network cannot do without."""
    text = (FOLDER / "eventwriter.service").read_text(encoding="utf-8")
    file = tmp_path / "eventwriter.service"
    file.write_text(text.replace(shlex.split(unit()["Service"]["ExecStart"])[0], sys.executable))
    for command in (["verify"], ["security", "--offline=true", "--threshold=15"]):  # 1.5 of 10
        done = subprocess.run(["systemd-analyze", *command, file], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_the_unit_is_told_what_it_waits_for() -> None:
    """Type=notify and a watchdog need a service that speaks to the service manager."""
    assert unit()["Service"]["Type"] == "notify"
    assert parse_duration(unit()["Service"]["WatchdogSec"]) >= 10
    for variable in ("NOTIFY_SOCKET", "WATCHDOG_USEC"):
        assert any(variable in path.read_text(encoding="utf-8") for path in (ROOT / "eventwriter").rglob("*.py"))


def test_variables_of_the_environment_file_are_settings(tmp_path: Path) -> None:
    """Every line is accepted by the program that reads it."""
    lines = (FOLDER / "eventwriter.env").read_text(encoding="utf-8").splitlines()
    pairs = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert unit()["Service"]["EnvironmentFile"].lstrip("-").endswith("/eventwriter.env")
    found = settings(tmp_path, pairs)
    assert found.http.address[1] == PORT
    assert len(found.nats.url) == 2


# ---- container


def test_the_image_holds_the_wheel_of_this_project_and_runs_without_root() -> None:
    """What is copied exists, and what the packages need is copied."""
    copied = [
        name for each, value in dockerfile() if each == "COPY" and "--from" not in value for name in value.split()[:-1]
    ]
    assert all((ROOT / name).exists() for name in copied)
    assert {"eventwriter", "workers", "schemas", "setup.cfg", "pyproject.toml"} <= set(copied)
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last_of("USER"))
    (base,) = (value for each, value in dockerfile() if each == "ARG")
    assert [value for each, value in dockerfile() if each == "FROM"] == ["${BASE} AS build", "${BASE}"]
    # The command that pins it is about the same image.
    name, image = base.split("=")
    told = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
    inspect = "docker image inspect --format '{{index .RepoDigests 0}}'"
    assert f"#   docker pull {image} && {inspect} {image}\n" in told
    assert f"--build-arg {name}={image.partition(':')[0]}@sha256:" in told


def test_the_image_is_made_of_what_has_hashes() -> None:
    """Each package by its hash, also what builds; our own from what was copied, and nothing else."""
    commands = [part.split() for each, value in dockerfile() if each == "RUN" for part in value.split("&&")]
    ours = [words for words in commands if words[0] == "pip" and words[1] in ("install", "wheel")]
    assert len(ours) == 4
    for words in ours:
        assert "--no-deps" in words
        if words[-1] not in (".", "/wheels/*.whl"):
            assert "--require-hashes" in words
            assert (ROOT / words[words.index("-r") + 1]).is_file()
        elif words[-1] == ".":
            assert "--no-build-isolation" in words
        else:
            assert "--no-index" in words
    assert ["pip", "check"] in commands


def test_the_image_runs_the_service() -> None:
    """Entry point, command, signal and port are those of the program."""
    assert json.loads(last_of("ENTRYPOINT")) == ["eventwriter"]
    assert_command(json.loads(last_of("CMD")))
    assert last_of("STOPSIGNAL") == "SIGTERM"
    assert last_of("EXPOSE") == str(PORT)
    probe = json.loads(last_of("HEALTHCHECK").partition("CMD ")[2])
    compile(probe[2], "HEALTHCHECK", "exec")
    assert f"http://127.0.0.1:{PORT}/livez" in probe[2]


def test_variables_of_the_image_are_settings(tmp_path: Path) -> None:
    """It can be reached from outside the container."""
    pairs = dict(pair.split("=", 1) for each, value in dockerfile() if each == "ENV" for pair in value.split())
    found = settings(tmp_path, pairs)
    assert found.http.address == ("0.0.0.0", PORT)
    assert found.http.public


# ---- Kubernetes


@pytest.mark.parametrize("name", ["eventwriter", "eventwriter-schema"])
def test_a_pod_runs_a_command_that_exists_with_settings_that_are_accepted(name: str, tmp_path: Path) -> None:
    """Arguments, variables and the mounted file; what the settings name is mounted."""
    pod = pods()[name]
    (container,) = pod["containers"]
    assert_command(container["args"])
    environment = {each["name"]: each["value"] for each in container["env"]}
    ((file, toml),) = manifests()["ConfigMap", "eventwriter"]["data"].items()
    mounts = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
    assert environment["EVENTWRITER_CONFIG"] == f"/etc/eventwriter/{file}"
    found = settings(tmp_path, environment, toml)
    assert found.http.address == ("0.0.0.0", PORT)
    assert found.http.public
    assert found.nats.credentials is not None
    assert found.nats.tls.ca is not None
    postgres = conninfo.conninfo_to_dict(found.postgres.dsn)
    assert all(url.startswith("tls://") for url in found.nats.url)
    assert postgres["sslmode"] == "verify-full"
    for path in (
        found.nats.tls.ca,
        str(postgres["sslrootcert"]),
        environment["EVENTWRITER_CONFIG"],
        environment["EVENTWRITER_POSTGRES__PASSWORD_FILE"],
        found.nats.credentials,
    ):
        assert str(Path(path).parent) in mounts
    assert set(mounts.values()) == {each["name"] for each in pod["volumes"]}


@pytest.mark.parametrize("name", ["eventwriter", "eventwriter-schema"])
def test_a_pod_has_no_more_rights_than_it_needs(name: str) -> None:
    """No root, nothing writable, no token, bounded memory."""
    pod = pods()[name]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert str(pod["securityContext"]["runAsUser"]) == last_of("USER").split(":")[0]
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["limits"]["memory"]
    assert container["image"].endswith(f":{__version__}")


def test_the_deployment_waits_longer_than_a_drain_takes(tmp_path: Path) -> None:
    """The kubelet kills only after the supervisor's own deadline has passed."""
    toml = manifests()["ConfigMap", "eventwriter"]["data"]["eventwriter.toml"]
    found = settings(tmp_path, {}, toml)
    drain = max(stream.writer.drain_timeout for stream in found.streams.values()) + 3.0
    assert pods()["eventwriter"]["terminationGracePeriodSeconds"] > drain


def test_probes_and_service_ask_where_the_program_answers() -> None:
    """Liveness never asks for the database; one port everywhere."""
    deployment = manifests()["Deployment", "eventwriter"]
    (container,) = pods()["eventwriter"]["containers"]
    assert container["ports"] == [{"name": "http", "containerPort": PORT}]
    probes = {name: container[name]["httpGet"] for name in ("livenessProbe", "startupProbe", "readinessProbe")}
    assert {name: probe["path"] for name, probe in probes.items()} == {
        "livenessProbe": "/livez",
        "startupProbe": "/livez",
        "readinessProbe": "/readyz",
    }
    assert {probe["port"] for probe in probes.values()} == {"http"}
    assert deployment["spec"]["replicas"] == 1
    template = deployment["spec"]["template"]["metadata"]
    assert template["annotations"]["prometheus.io/port"] == str(PORT)
    service = manifests()["Service", "eventwriter"]["spec"]
    assert service["ports"] == [{"name": "http", "port": PORT, "targetPort": "http"}]
    assert service["selector"] == deployment["spec"]["selector"]["matchLabels"] == template["labels"]


def test_only_those_may_speak_with_the_pods_who_need_to() -> None:
    """Prometheus on our port; NATS, PostgreSQL and DNS on those of the settings."""
    policy = manifests()["NetworkPolicy", "eventwriter"]["spec"]
    (chosen,) = policy["podSelector"]["matchExpressions"]
    labels = {each["spec"]["template"]["metadata"]["labels"][chosen["key"]] for each in manifests().values()
              if "template" in each.get("spec", {})}  # fmt: skip
    assert set(chosen["values"]) == labels
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert [port["port"] for rule in policy["ingress"] for port in rule["ports"]] == ["http"]
    assert [port["port"] for rule in policy["egress"] for port in rule["ports"]] == [4222, 5432, 53, 53]
    assert all(rule["to"] for rule in policy["egress"])


# ---- README


def readme() -> str:
    """The text of the deployment guide."""
    return (FOLDER / "README.md").read_text(encoding="utf-8")


def codes() -> Iterator[int]:
    """The exit codes it explains."""
    yield from (int(code) for code in re.findall(r"^\| (\d+) \|", readme(), flags=re.MULTILINE))


def test_the_guide_explains_every_exit_code_of_the_service() -> None:
    """No code of errors.py that `supervise` may end with is left out, and none is invented."""
    known = {value for name, value in vars(errors).items() if name.isupper() and isinstance(value, int)}
    assert set(codes()) == known - {errors.MISSING, errors.USAGE, errors.BAD_DATA}


def test_the_guide_leads_to_files_that_exist() -> None:
    """Every relative link has a target, and every file here is mentioned."""
    links = re.findall(r"\]\(([^)#:]+)\)", readme())
    assert all((FOLDER / link).exists() for link in links)
    named = {link.partition("/")[0] for link in links}
    assert {path.name for path in FOLDER.iterdir()} - {"README.md", ".env"} <= named


def test_the_guide_names_deadlines_that_are_true() -> None:
    """40 s everywhere, above 25 s and 3 s."""
    text = readme()
    assert f"({WriterConfig().drain_timeout:.0f} s by default)" in text
    grace = pods()["eventwriter"]["terminationGracePeriodSeconds"]
    assert f"--stop-timeout {grace} " in text
    assert parse_duration(unit()["Service"]["TimeoutStopSec"]) == grace
