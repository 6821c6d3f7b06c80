"""Pods reach what the settings name, and nothing private."""

import ipaddress

import pytest

from .manifests import SLUG, Document, labels_of_pods, selects, settings_of, the


def test_the_policy_lets_through_what_the_settings_need(
    renderings: dict[str, list[Document]],
) -> None:
    documents = renderings["staging+redis"]
    settings = settings_of(documents)
    policy = the(documents, "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    allowed = {
        (port["protocol"], port["port"]): rule["to"]
        for rule in policy["egress"]
        for port in rule["ports"]
    }
    assert allowed.keys() == {("UDP", 53), ("TCP", 53), ("TCP", 443), ("TCP", 6379)}

    (redis,) = allowed["TCP", 6379]
    redis_name = f"{SLUG}-redis"
    assert selects(redis["podSelector"], labels_of_pods(documents, redis_name))
    service = the(documents, "Service", name=redis_name)["spec"]
    assert selects({"matchLabels": service["selector"]}, labels_of_pods(documents, redis_name))
    assert not selects({"matchLabels": service["selector"]}, labels_of_pods(documents))
    assert [port["port"] for port in service["ports"]] == [6379]
    assert settings["RATE_LIMIT_STORAGE_URI"] == f"redis://{redis_name}:6379/0"
    (rule,) = the(documents, "NetworkPolicy", name=redis_name)["spec"]["ingress"]
    (client,) = rule["from"]
    assert selects(client["podSelector"], labels_of_pods(documents))

    (rule,) = policy["ingress"]
    assert [port["port"] for port in rule["ports"]] == ["http"]


@pytest.mark.parametrize(
    ("address", "is_allowed"),
    [
        ("162.159.140.245", True),  # of api.openai.com
        ("2606:4700::6812:1234", True),
        ("169.254.169.254", False),  # where clouds hand out credentials
        ("10.0.0.1", False),
        ("172.20.0.1", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("fd00::1", False),
        ("fe80::1", False),
    ],
)
def test_https_is_for_the_internet(
    renderings: dict[str, list[Document]], address: str, is_allowed: bool
) -> None:
    policy = the(renderings["production"], "NetworkPolicy")["spec"]
    (peers,) = (rule["to"] for rule in policy["egress"] if rule["ports"][0]["port"] == 443)
    ip = ipaddress.ip_address(address)
    found = any(
        ip in ipaddress.ip_network(peer["ipBlock"]["cidr"])
        and not any(ip in ipaddress.ip_network(block) for block in peer["ipBlock"]["except"])
        for peer in peers
    )
    assert found is is_allowed
