"""The Helm chart and the compose file, as Helm's own library and a parser of the Compose Specification read them."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_deploy import FOLDER, PORT, assert_command, dockerfile, manifests, pods, readme, settings

from eventwriter import __version__

CHART = FOLDER / "chart"
Objects = dict[tuple[str, str], dict[str, Any]]


def tool(name: str) -> Any:
    """A package of requirements/deploy.txt, which is large: CI has it."""
    return importlib.import_module(name) if os.environ.get("CI") else pytest.importorskip(name)


def render(values: dict[str, Any] | None = None, name: str = "eventwriter") -> tuple[Objects, str]:
    """The objects that the chart makes, by kind and name, and its notes."""
    with tool("helm_python").Chart.load(CHART) as chart:
        files = chart.render(values, name=name, namespace="telemetry")
    notes = files.pop("eventwriter/templates/NOTES.txt")
    found = [each for text in files.values() for each in yaml.safe_load_all(text) if each]
    objects = {(each["kind"], each["metadata"]["name"]): each for each in found}
    assert len(objects) == len(found)
    return objects, notes


def plain(value: Any) -> Any:
    """The same without what only Helm needs: its labels, the hash in the Job's name, and what is the default anyway."""
    if isinstance(value, dict):
        extra = {"app.kubernetes.io/instance", "app.kubernetes.io/version", "app.kubernetes.io/managed-by"}
        known = {each: plain(inner) for each, inner in value.items() if each not in {*extra, "helm.sh/chart"}}
        if known.get("imagePullPolicy") == "IfNotPresent":
            del known["imagePullPolicy"]
        return {each: inner for each, inner in known.items() if (each, inner) != ("matchLabels", {})}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return re.sub("-schema-[0-9a-f]{8}$", "-schema", value.rstrip()) if isinstance(value, str) else value


def test_the_chart_makes_what_the_plain_manifest_has() -> None:
    """With its defaults, under the name of the project; Helm misses nothing in it but an icon."""
    report = tool("helm_python").lint(CHART, strict=True)
    assert report["errors"] == []
    assert [each["error"] for each in report["messages"]] == ["icon is recommended"]
    assert plain(list(render()[0].values())) == sorted_like(render()[0], plain(list(manifests().values())))
    version = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert version["version"] == version["appVersion"] == __version__


def sorted_like(objects: Objects, others: list[Any]) -> list[Any]:
    """The others, in the order of the first."""
    kinds = [kind for kind, _ in objects]
    return sorted(others, key=lambda each: kinds.index(each["kind"]))


def pod_of(objects: Objects, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pod of the only object of this kind, and its container."""
    (found,) = (each for (which, _), each in objects.items() if which == kind)
    spec = found["spec"]["template"]["spec"]
    return spec, spec["containers"][0]


def test_what_may_be_chosen_is_there(tmp_path: Path) -> None:
    """Another name, digest, streams of one's own, monitor, budget; two releases in a namespace do not meet."""
    values: dict[str, Any] = {
        "image": {"digest": "sha256:" + "0" * 64},
        "plugins": {"files": {"alerts.py": "# first\n\nx = {{ 1 }}\n", "alerts.sql": "SELECT 1"}},
        "secretFiles": {"EVENTWRITER_HTTP__TOKEN_FILE": "http-token"},
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "podDisruptionBudget": {"enabled": True},
    }
    objects, notes = render(values, "west")
    names = {name for _, name in objects}
    assert {re.sub("[0-9a-f]{8}$", "", name) for name in names} == {
        "west-eventwriter",
        "west-eventwriter-plugins",
        "west-eventwriter-schema-",
    }
    assert objects["ConfigMap", "west-eventwriter-plugins"]["data"] == values["plugins"]["files"]
    for kind in ("Deployment", "Job"):
        pod, container = pod_of(objects, kind)
        assert_command(container["args"])
        assert container["image"].endswith("/eventwriter@sha256:" + "0" * 64)
        environment = {each["name"]: each["value"] for each in container["env"]}
        folder = environment.pop("EVENTWRITER_PLUGINS__FOLDERS")
        mounts = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
        assert {"name": mounts[folder], "configMap": {"name": "west-eventwriter-plugins"}} in pod["volumes"]
        assert environment["EVENTWRITER_HTTP__TOKEN_FILE"] == "/run/secrets/eventwriter/http-token"
        assert settings(tmp_path, environment).http.token is not None
    deployment = objects["Deployment", "west-eventwriter"]["spec"]
    chosen = deployment["selector"]["matchLabels"]
    assert "annotations" not in deployment["template"]["metadata"]
    assert chosen["app.kubernetes.io/instance"] == "west"
    monitor = objects["ServiceMonitor", "west-eventwriter"]
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert (
        monitor["spec"]["selector"]["matchLabels"].items()
        <= objects["Service", "west-eventwriter"]["metadata"]["labels"].items()
    )
    label = monitor["spec"]["jobLabel"]  # else the job would be the Service, and the rules ask for that of the project
    assert objects["Service", "west-eventwriter"]["metadata"]["labels"][label] == "eventwriter"
    budget = objects["PodDisruptionBudget", "west-eventwriter"]["spec"]
    assert (budget["selector"]["matchLabels"], budget["maxUnavailable"]) == (chosen, 1)
    assert "-n telemetry create secret generic eventwriter --from-file=http-token=… --from-file=" in notes


@pytest.mark.parametrize("name", ["123", "0x1f", "1e3", "true", "null"])
def test_a_release_that_is_called_like_a_number_has_labels_of_text(name: str) -> None:
    """Kubernetes takes no others."""
    objects, _ = render({"serviceMonitor": {"enabled": True}, "podDisruptionBudget": {"enabled": True}}, name)

    def labels(value: Any) -> Iterator[Any]:
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            if key in ("labels", "matchLabels"):
                yield from inner.values()
            elif isinstance(inner, dict | list):
                yield from labels(inner)

    found = [each for one in objects.values() for each in labels(one)]
    assert name in found
    assert all(isinstance(each, str) for each in found)


@pytest.mark.parametrize("name", ["eventwriter", "eventwriter-schema"])
def test_the_settings_of_the_file_count_whatever_the_image_says(name: str, tmp_path: Path) -> None:
    """Its variables would come before a file."""
    environment = dict(pair.split("=", 1) for each, value in dockerfile() if each == "ENV" for pair in value.split())
    objects, _ = render({"settings": '[http]\nlisten = "127.0.0.1:8080"\n'})
    for pod in (pods()[name], pod_of(objects, "Job" if "schema" in name else "Deployment")[0]):
        environment |= {each["name"]: each["value"] for each in pod["containers"][0]["env"]}
        found = settings(tmp_path, environment, '[http]\nlisten = "127.0.0.1:8080"\n')
        assert found.http.address == ("127.0.0.1", 8080)
        assert not found.http.public


def test_what_may_be_left_out_is_left_out() -> None:
    """Secret, Job, policy; a ConfigMap that is there already is used; without streams of one's own none is mounted."""
    nothing = {"existingSecret": "", "secretFiles": None, "schemaJob": {"enabled": False}}
    objects, notes = render({**nothing, "networkPolicy": {"enabled": False}, "plugins": {"existingConfigMap": "ours"}})
    assert sorted(kind for kind, _ in objects) == ["ConfigMap", "Deployment", "Service"]
    pod, container = pod_of(objects, "Deployment")
    assert [each["name"] for each in pod["volumes"]] == ["config", "plugins"]
    assert pod["volumes"][1]["configMap"] == {"name": "ours"}
    assert "EVENTWRITER_POSTGRES__PASSWORD_FILE" not in json.dumps(container)
    assert "secret" not in notes.partition("What is missing")[0]


def test_a_job_that_would_be_another_has_another_name() -> None:
    """Since Kubernetes lets nobody change one; what does not concern it leaves it alone."""

    def job(**values: Any) -> str:
        return next(name for kind, name in render(values)[0] if kind == "Job")

    names = [
        job(),
        job(image={"tag": "0.2.0"}),
        job(settings="[nats]\n"),
        job(plugins={"files": {"a.sql": ""}}),
        job(schemaJob={"wait": 5}),
    ]
    assert len({*names}) == len(names)
    assert job(replicaCount=3, serviceMonitor={"enabled": True}) == names[0]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"replicas": 3}, "replicas"),
        ({"image": {"digest": "0.1.0"}}, "digest"),
        ({"settings": {"nats": {}}}, "settings"),
        ({"secretFiles": {"PGPASSWORD": "hunter2"}}, "PGPASSWORD"),
        ({"plugins": {"files": {"alerts.txt": ""}}}, "alerts.txt"),
        ({"networkPolicy": {"from": []}}, "from"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_told(values: dict[str, Any], said: str) -> None:
    """By the name of its key, before anything is made."""
    with pytest.raises(tool("helm_python").HelmError, match=said):
        render(values)


# ---- compose


def compose() -> dict[str, Any]:
    """The file, its anchors resolved."""
    found: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))
    return found


def ours() -> Iterator[tuple[str, dict[str, Any]]]:
    """The services that run our image."""
    yield from ((name, each) for name, each in compose()["services"].items() if each["image"] == "eventwriter")


def test_the_compose_file_is_one() -> None:
    """By the Compose Specification; what its services refer to is there."""
    tool("compose_spec").PyCompose.from_json(json.dumps(compose())).validate()
    build = compose()["x-eventwriter"]["build"]
    assert (FOLDER / build["context"] / build["dockerfile"]).samefile(FOLDER / "Dockerfile")


def test_the_stack_runs_commands_that_exist_with_settings_that_are_accepted(tmp_path: Path) -> None:
    """Streams and tables first, then the service, which waits for both and has the time to drain."""
    services = compose()["services"]
    for name, each in ours():
        assert_command(each["command"])
        found = settings(tmp_path, each["environment"])
        assert found.nats.url == ("nats://nats:4222",)
        assert each["environment"]["PGHOST"] in services
        files = {path for key, path in each["environment"].items() if key.endswith("_FILE")}
        assert files == {f"/run/secrets/{secret}" for secret in each["secrets"]}, name
        assert (each["read_only"], each["cap_drop"]) == (True, ["ALL"])
    assert [shlex.join(each["command"]) for _, each in ours()] == [
        "streams create --wait 60",
        "schema apply --wait 60",
        "supervise",
    ]
    service = services["eventwriter"]
    assert service["depends_on"] == {
        name: {"condition": "service_completed_successfully"} for name in ("streams", "schema")
    }
    assert service["stop_grace_period"] == "40s"
    compile(service["healthcheck"]["test"][3], "healthcheck", "exec")
    assert f":{PORT}/readyz" in service["healthcheck"]["test"][3]


def test_the_stack_tells_no_secret_and_is_open_to_this_machine_alone() -> None:
    """Secrets come from files that the guide makes, the only ones that Compose can bring into containers that are
    read-only, and that git leaves out; what listens does so for the machine itself."""
    found = compose()
    files = {each["file"] for each in found["secrets"].values()}
    assert {f"secrets/{name}" for name in found["secrets"]} == files
    assert all(f" {name}" in readme() for name in found["secrets"])
    assert "docs/deploy/secrets/" in (FOLDER.parents[1] / ".gitignore").read_text().splitlines()
    assert not re.search(
        r"(?i)(password|token): (?!/run/secrets/)\S", (FOLDER / "compose.yaml").read_text().partition("secrets:\n  ")[0]
    )
    ports = [port for each in found["services"].values() for port in each.get("ports", ())]
    assert len(ports) == 3
    assert all(port.startswith("127.0.0.1:") for port in ports)
