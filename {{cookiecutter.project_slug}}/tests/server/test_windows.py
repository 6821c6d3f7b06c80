"""The arithmetic of sliding windows, against a model that uses exact fractions."""

import math
import random
import re
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction

import pytest

from ..conftest import windows

SEEDS = range(20)
TOKENS = windows.Policy("tokens", 1000, 86_400)
REQUESTS = windows.Policy("requests", 60, 60)
SPAN = windows.Span("now", "before", 120)

# https://www.rfc-editor.org/rfc/rfc9651: a list of strings with parameters.
PARAMETER = r';[a-z*][a-z0-9_.*-]*=(?:-?\d{1,15}|"[ -~]*?")'
FIELD = re.compile(rf'"[ -~]*?"(?:{PARAMETER})+(?:, "[ -~]*?"(?:{PARAMETER})+)*')


def history(policy: windows.Policy, seed: int) -> Iterator[windows.Count]:
    """What a client that sends at random has used at each of its requests."""
    dice = random.Random(seed)  # noqa: S311 - no secrets
    used: Counter[int] = Counter()
    now = 0.0
    for _ in range(300):
        now += dice.choice([0, dice.expovariate(10 / policy.seconds), policy.seconds / 2])
        cost = dice.choice([1, dice.randint(1, policy.quota), policy.quota])
        index, elapsed = divmod(now, policy.seconds)
        used[int(index)] += cost
        count = windows.Count(policy, SPAN, cost, used[int(index)], used[int(index) - 1], elapsed)
        yield count
        if count.remaining() < 0:
            used[int(index)] -= cost


def later(count: windows.Count, seconds: float) -> windows.Count:
    """The count of the same request if it is made so much later, and no other one is made."""
    passed, elapsed = divmod(count.elapsed + seconds, count.policy.seconds)
    if passed == 0:
        return count._replace(elapsed=elapsed)
    previous = count.current - count.cost if passed == 1 else 0
    return count._replace(current=count.cost, previous=previous, elapsed=elapsed)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("policy", [REQUESTS, TOKENS, windows.Policy("requests", 1, 3600)])
def test_a_cost_fits_if_and_only_if_it_is_within_the_quota(
    policy: windows.Policy, seed: int
) -> None:
    for count in history(policy, seed):
        weight = 1 - Fraction(count.elapsed) / policy.seconds
        used = count.current + math.floor(count.previous * weight)
        assert (count.remaining() >= 0) == (used <= policy.quota)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_admitted_in_the_time_of_a_window_is_less_than_two_quotas(seed: int) -> None:
    """A bound of the method. A window that does not slide would admit two quotas at once."""
    admitted: list[tuple[float, int]] = []
    start, previous = 0.0, 0.0
    for count in history(REQUESTS, seed):
        start += REQUESTS.seconds * (count.elapsed < previous)
        previous = count.elapsed
        if count.remaining() >= 0:
            admitted.append((start + count.elapsed, count.cost))
    assert admitted
    for begin, _ in admitted:
        span = [cost for at, cost in admitted if begin <= at < begin + REQUESTS.seconds]
        assert sum(span) <= 2 * REQUESTS.quota


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("policy", [REQUESTS, TOKENS])
def test_a_wait_is_as_long_as_needed_and_no_longer(policy: windows.Policy, seed: int) -> None:
    moment = policy.seconds * 1e-6
    refused = [count for count in history(policy, seed) if count.remaining() < 0]
    assert refused
    for count in refused:
        assert 0 <= count.wait() <= 2 * policy.seconds
        if count.wait() > moment:
            assert later(count, count.wait() - moment).remaining() < 0
        assert later(count, count.wait() + moment).remaining() >= 0


def test_a_cost_over_the_quota_never_fits() -> None:
    assert windows.Count(REQUESTS, SPAN, 61, 61, 0, 0).wait() == math.inf
    assert windows.Count(REQUESTS, SPAN, 60, 61, 0, 0).wait() < math.inf


def test_what_remains_grows_while_the_window_slides() -> None:
    counts = [windows.Count(REQUESTS, SPAN, 1, 1, 40, elapsed) for elapsed in (0, 15, 30, 45)]
    assert [count.remaining() for count in counts] == [19, 29, 39, 49]
    assert [count.reset() for count in counts] == [60, 45, 30, 15]


def test_the_header_fields_are_those_of_the_draft() -> None:
    assert windows.policy_field([REQUESTS, TOKENS]) == (
        '"requests-60s";q=60;w=60, "tokens-86400s";q=1000;w=86400;qu="tokens"'
    )
    counts = [
        windows.Count(REQUESTS, SPAN, 1, 1, 0, 48),
        windows.Count(TOKENS, SPAN, 300, 1000, 0, 0.5),
    ]
    assert windows.limit_field(counts) == ('"requests-60s";r=59;t=12, "tokens-86400s";r=0;t=86400')


@pytest.mark.parametrize("seed", SEEDS)
def test_the_header_fields_are_valid_whatever_was_used(seed: int) -> None:
    for count in history(TOKENS, seed):
        text = windows.limit_field([count, count])
        assert FIELD.fullmatch(text)
        for remaining, reset in re.findall(r"r=(\d+);t=(\d+)", text):
            assert int(remaining) <= TOKENS.quota
            assert 0 <= int(reset) <= 2 * TOKENS.seconds


def test_the_header_field_of_a_cost_that_never_fits_is_valid() -> None:
    text = windows.limit_field([windows.Count(TOKENS, SPAN, 1001, 1001, 0, 0)])
    assert re.match(r'"tokens-86400s";r=\d+', text)
    assert "inf" not in text
