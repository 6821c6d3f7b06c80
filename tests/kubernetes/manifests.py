"""Rendered manifests, and how tests look into them."""

from collections.abc import Callable
from itertools import chain, combinations
from pathlib import Path
from typing import Any

Document = dict[str, Any]
Render = Callable[[Path], list[Document]]

SLUG = "chat-service"
OVERLAYS = ("production", "staging")
COMPONENTS = ("pod-monitor", "redis", "scale-on-calls")
COMBINATIONS = [
    (overlay, components)
    for overlay in OVERLAYS
    for components in chain.from_iterable(
        combinations(COMPONENTS, n) for n in range(len(COMPONENTS) + 1)
    )
]

TO_JSON = """
import json, pathlib, sys, yaml
print(json.dumps([[*yaml.safe_load_all(pathlib.Path(p).read_text())] for p in sys.argv[1:]]))
"""


def of_kind(documents: list[Document], *kinds: str) -> list[Document]:
    return [document for document in documents if document["kind"] in kinds]


def the(documents: list[Document], *kinds: str, name: str = SLUG) -> Document:
    (found,) = [
        document for document in of_kind(documents, *kinds) if document["metadata"]["name"] == name
    ]
    return found


def pod_of(deployment: Document) -> Document:
    pod: Document = deployment["spec"]["template"]["spec"]
    return pod


def settings_of(documents: list[Document]) -> dict[str, str]:
    (config,) = of_kind(documents, "ConfigMap")
    data: dict[str, str] = config["data"]
    return data


def selects(selector: Document, labels: dict[str, str]) -> bool:
    """Whether a selector of Kubernetes selects what has these labels."""
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        expression["operator"] == "In" and labels.get(expression["key"]) in expression["values"]
        for expression in selector.get("matchExpressions", [])
    )


def labels_of_pods(documents: list[Document], name: str = SLUG) -> dict[str, str]:
    deployment = the(documents, "Deployment", name=name)
    labels: dict[str, str] = deployment["spec"]["template"]["metadata"]["labels"]
    return labels


def query_of(scaled_object: Document) -> str:
    (query,) = (
        trigger["metadata"]["query"]
        for trigger in scaled_object["spec"]["triggers"]
        if trigger["type"] == "prometheus"
    )
    return str(query)
