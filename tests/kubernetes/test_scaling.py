"""Either autoscaler sets the number of pods."""

import json
import shutil
from pathlib import Path

import pytest

from ..projects import run
from .manifests import OVERLAYS, SLUG, Document, of_kind, query_of, the


def test_exactly_one_autoscaler_sets_the_number_of_pods(
    request: pytest.FixtureRequest, rendering: list[Document]
) -> None:
    kind = (
        "ScaledObject"
        if "scale-on-calls" in request.node.callspec.id
        else "HorizontalPodAutoscaler"
    )
    (autoscaler,) = of_kind(rendering, "ScaledObject", "HorizontalPodAutoscaler")
    deployment = the(rendering, "Deployment")
    assert autoscaler["kind"] == kind
    assert autoscaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert "replicas" not in deployment["spec"]
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_both_autoscalers_have_the_same_bounds(
    renderings: dict[str, list[Document]], overlay: str
) -> None:
    on_cpu = the(renderings[overlay], "HorizontalPodAutoscaler")["spec"]
    on_calls = the(renderings[f"{overlay}+scale-on-calls"], "ScaledObject")["spec"]
    bounds = (on_cpu["minReplicas"], on_cpu["maxReplicas"])
    assert bounds == (on_calls["minReplicaCount"], on_calls["maxReplicaCount"])
    assert 0 < bounds[0] < bounds[1]
    takeover = on_calls["advanced"]["horizontalPodAutoscalerConfig"]
    assert takeover == {"name": SLUG, "behavior": on_cpu["behavior"]}
    (cpu,) = (trigger for trigger in on_calls["triggers"] if trigger["type"] == "cpu")
    (metric,) = on_cpu["metrics"]
    assert metric["resource"]["target"]["averageValue"] == cpu["metadata"]["value"]


def test_the_query_counts_how_many_pods_the_calls_fill(
    renderings: dict[str, list[Document]], tmp_path: Path
) -> None:
    """Not those of another namespace, nor of a service with a longer name."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian has it in the package prometheus)")
    documents = renderings["production+scale-on-calls"]
    calls = {  # in flight and queued, by namespace and pod
        (f"{SLUG}-production", f"{SLUG}-6d5f-abcde"): (200, 100),
        (f"{SLUG}-production", f"{SLUG}-6d5f-fghij"): (100, 0),
        (f"{SLUG}-staging", f"{SLUG}-6d5f-abcde"): (70, 0),
        (f"{SLUG}-production", f"{SLUG}-eu-6d5f-abcde"): (70, 0),
    }
    series = [
        {
            "series": f'{metric}{{namespace="{namespace}", pod="{pod}", job="any"}}',
            "values": str(value),
        }
        for (namespace, pod), (in_flight, queued) in calls.items()
        for metric, value in (
            ("openai_calls_in_flight", in_flight),
            ("openai_calls_queued", queued),
            ("openai_calls_max", 200),
        )
    ]
    expected = {
        "expr": query_of(the(documents, "ScaledObject")),
        "eval_time": "0s",
        "exp_samples": [{"labels": "{}", "value": 2}],
    }
    test = {"interval": "15s", "input_series": series, "promql_expr_test": [expected]}
    (tmp_path / "test.yaml").write_text(json.dumps({"tests": [test]}))
    assert run(promtool, "test", "rules", "test.yaml", cwd=tmp_path).returncode == 0
