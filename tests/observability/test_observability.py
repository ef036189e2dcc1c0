"""Alerts, dashboard and runbook name only what the service exposes, and every alert says what to do."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from boards import running, settings, trouble
from eventwriter.cli import cli
from eventwriter.observability import status
from eventwriter.observability.board import Board
from eventwriter.observability.exposition import expose
from fix_monitor import samples

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "observability"


def exposed() -> dict[str, set[str]]:
    """What a service that has seen everything exposes: names, after ``eventwriter_``, with their labels."""
    board = Board()
    _, reports = running(board, settings())
    for report in reports.values():
        trouble(report)
    found: dict[str, set[str]] = {}
    for name, labels in samples(expose(status.read(board, settings())).decode()):
        found.setdefault(name, set()).update(label for label, _ in labels)
    return found


EXPOSED = exposed()
OF_THE_SERVICE = {"build_info", "config_last_reload_successful"}
"""Metrics without a stream."""
ADDED_BY_PROMETHEUS = {"instance", "job"}


def alerts() -> list[dict[str, Any]]:
    """The alert rules."""
    groups = yaml.safe_load((FOLDER / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    """The dashboard."""
    found: dict[str, Any] = json.loads((FOLDER / "dashboard.json").read_text(encoding="utf-8"))
    return found


def panels() -> list[dict[str, Any]]:
    """What the dashboard shows, without the headings."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def expressions() -> list[tuple[str, str]]:
    """Every PromQL expression, with where it stands."""
    found = [(rule["alert"], rule["expr"]) for rule in alerts()]
    return found + [(panel["title"], target["expr"]) for panel in panels() for target in panel["targets"]]


def paragraphs() -> dict[str, str]:
    """The runbook by alert."""
    parts = re.split(r"^## (\w+)\n", (FOLDER / "runbook.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize(("where", "expression"), expressions(), ids=lambda text: text[:40])
def test_an_expression_uses_metrics_and_labels_that_exist(where: str, expression: str) -> None:
    """A metric or label that was renamed would silently never alert."""
    names = re.findall(r"\beventwriter_(\w+)", expression)
    assert names or "up{" in expression, where
    assert set(names) <= set(EXPOSED)
    for name, selector in re.findall(r"\beventwriter_(\w+)\{([^}]*)\}", expression):
        used = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", re.sub(r'"[^"]*"', '""', selector)))
        assert used <= EXPOSED[name] | ADDED_BY_PROMETHEUS
    known = set().union(*(EXPOSED[name] for name in names), ADDED_BY_PROMETHEUS)
    for labels in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", expression):
        assert {label.strip() for label in labels.split(",")} <= known


@pytest.mark.parametrize(("where", "expression"), expressions(), ids=lambda text: text[:40])
def test_an_expression_is_promql(where: str, expression: str) -> None:
    """It parses, with operands of the right types; a window of Grafana's own stands for one in minutes."""
    assert promql_parser.parse(re.sub(r"\$__\w+", "5m", expression)), where


@pytest.mark.parametrize(("where", "expression"), expressions(), ids=lambda text: text[:40])
def test_counters_are_read_as_rates_and_gauges_are_not(where: str, expression: str) -> None:
    """The value of a counter says nothing; the rate of a gauge is nonsense."""
    for name in re.findall(r"\beventwriter_(\w+)", expression):
        counter = name.endswith(("_total", "_sum", "_count", "_bucket"))
        rated = re.search(rf"\b(?:rate|increase)\(eventwriter_{name}\b[^)]*\[", expression) is not None
        assert rated == counter, (where, name)


def test_every_metric_is_looked_at() -> None:
    """What the service measures is on the dashboard."""
    texts = [target["expr"] for panel in panels() for target in panel["targets"]]
    shown = {name for text in texts for name in re.findall(r"\beventwriter_(\w+)", text)}
    families = {re.sub(r"_(sum|count|bucket)$", "", name) for name in shown}
    assert families == {re.sub(r"_(sum|count|bucket)$", "", name) for name in EXPOSED}


def test_every_alert_has_its_paragraph_and_no_paragraph_is_left_over() -> None:
    """Whoever is woken finds what it means and what to do."""
    names = [rule["alert"] for rule in alerts()]
    assert len(set(names)) == len(names)
    assert list(paragraphs()) == sorted(paragraphs(), key=names.index)
    assert set(paragraphs()) == set(names)
    assert all(len(text.split()) >= 30 for text in paragraphs().values())


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_an_alert_says_how_urgent_it_is_and_where_to_read_on(rule: dict[str, Any]) -> None:
    """Severity, summary, description, and a link that leads to its paragraph."""
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["description"].endswith(".")
    assert rule["annotations"]["runbook"] == f"docs/observability/runbook.md#{rule['alert'].lower()}"
    by_stream = not any(name in rule["expr"] for name in ("up{job", *OF_THE_SERVICE))
    assert ("{{ $labels.stream }}" in rule["annotations"]["summary"]) == by_stream


def test_the_dashboard_can_be_laid_out() -> None:
    """Unique ids, no overlap, a description for every panel, and the stream as a variable."""
    everything = dashboard()["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    taken: set[tuple[int, int]] = set()
    for panel in everything:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert all(panel["description"] for panel in panels())
    assert [variable["name"] for variable in dashboard()["templating"]["list"]] == ["datasource", "stream"]


def test_the_runbook_names_commands_that_exist() -> None:
    """Nobody is sent to a command that there is not."""
    text = (FOLDER / "runbook.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`eventwriter (\w+)", text)) <= set(cli.commands)


def test_every_metric_and_path_is_documented() -> None:
    """The tables list what there is, with its labels, and nothing else."""
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    table = text.partition("## Metrics")[2].partition("\n## ")[0]
    listed = {
        name: {*re.findall(r"`(\w+)`", labels)} | ({"stream"} if name not in OF_THE_SERVICE else set())
        for name, labels in re.findall(r"^\| `(\w+)` \|([^|]*)\|", table, re.MULTILINE)
    }
    families: dict[str, set[str]] = {}
    for name, labels in EXPOSED.items():
        families.setdefault(re.sub(r"_(sum|count|bucket)$", "", name), set()).update(labels - {"le"})
    assert listed == families
    paths = re.findall(r"^\| `(/\w*)` \|", text, re.MULTILINE)
    assert sorted(paths) == ["/", "/livez", "/metrics", "/readyz", "/status"]
    states = re.findall(r"^\| `(\w+)` \|", text.partition("## States")[2].partition("##")[0], re.MULTILINE)
    assert sorted(states) == sorted(status.STATES)
