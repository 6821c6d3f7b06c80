"""The dashboard and the alerts use only metrics and labels that the service exports."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from ..conftest import Service
from dev.offline_openai import OfflineOpenAI, Scripted

FOLDER = Path(__file__).parents[2] / "deploy" / "observability"
PANELS: list[dict[str, Any]] = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
ALERTS = (FOLDER / "alerts.yaml").read_text()
ALERT_EXPRESSIONS = re.findall(r" expr: (?:>-\n)?(.+?)\n +for:", ALERTS, re.DOTALL)
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel["targets"]]

# By Prometheus, to every target.
ADDED_METRICS = {"up": {"job", "instance"}}
ADDED_LABELS = {"job", "instance"}

STRING_OR_RANGE = re.compile(r'"[^"]*"|\[[^\]]*\]')
# The labels of `by (...)` or `on (...)`, or a metric with its matchers: a name that is neither an
# operator nor followed by what follows a function or an aggregation.
TOKEN = re.compile(
    r"\b(?:by|on) \(([^)]*)\)|\b(?!(?:and|or|unless)\b)([a-z]\w*)\b(?:\{([^}]*)\})?(?! *\(| by )"
)


def used(expression: str) -> Iterator[tuple[str, set[str]]]:
    """The metrics in a PromQL expression, each with the labels that it is asked for."""
    grouping: set[str] = set()
    for labels, metric, matchers in TOKEN.findall(STRING_OR_RANGE.sub("", expression)):
        if metric:
            yield metric, grouping | set(re.findall(r"\w+", matchers))
            grouping = set()
        else:
            grouping |= set(re.findall(r"\w+", labels))


def exported(families: list[Metric]) -> dict[str, set[str]]:
    """The labels of each time series."""
    found: dict[str, set[str]] = {}
    for family in families:
        suffixes = {"histogram": ("_bucket", "_count", "_sum"), "counter": ("_total",)}
        for suffix in suffixes.get(family.type, ("",)):
            name = family.name + suffix
            labels = [set(sample.labels) for sample in family.samples if sample.name == name]
            found[name] = ADDED_LABELS.union(*labels)
    return found


@pytest.fixture
def families(service: Service, offline: OfflineOpenAI, no_backoff: None) -> list[Metric]:
    """The metrics of a service that has answered a chat, after a retry, and a stream."""
    offline.script(Scripted(status=500))
    assert service.chat().is_success
    assert service.stream().is_success
    service.settle()
    return list(text_string_to_metric_families(service.client.get("/metrics").text))


def test_expressions_are_read_as_prometheus_reads_them() -> None:
    assert len(ALERT_EXPRESSIONS) == ALERTS.count("- alert:")
    assert list(
        used(
            'histogram_quantile(0.9, sum by (le, x) (rate(a_bucket{b=~"c{d}", e!="f"}[5m]))) > 1\n'
            "and on (job) (g / h) or sum(1 - i)"
        )
    ) == [("a_bucket", {"le", "x", "b", "e"}), ("g", {"job"}), ("h", set()), ("i", set())]


def test_metrics_and_labels_are_exported(families: list[Metric]) -> None:
    known = exported(families) | ADDED_METRICS
    unknown = [
        (metric, labels - known.get(metric, set()))
        for expression in EXPRESSIONS + ALERT_EXPRESSIONS
        for metric, labels in used(expression)
        if metric not in known or not labels <= known[metric]
    ]
    assert unknown == []


def test_thresholds_lie_within_the_buckets(families: list[Metric]) -> None:
    """A quantile never exceeds the last finite bucket, so an alert above it would never fire."""
    compared = [
        (metric, float(threshold))
        for expression in ALERT_EXPRESSIONS
        for metric, threshold in re.findall(r"\b(\w+_bucket)\b.*> (\d+)", expression, re.DOTALL)
    ]
    finite = {
        (sample.name, float(sample.labels["le"]))
        for family in families
        for sample in family.samples
        if sample.labels.get("le", "+Inf") != "+Inf"
    }
    assert compared
    for metric, threshold in compared:
        assert max(bound for name, bound in finite if name == metric) > threshold


def test_alerts_name_panels_by_their_titles() -> None:
    descriptions = re.findall(r"description: >-\n((?: {12}.+\n)+)", ALERTS)
    named = re.findall(r'"([^"]+)"', " ".join(" ".join(descriptions).split()))
    assert named
    assert set(named) <= {panel["title"] for panel in PANELS}
