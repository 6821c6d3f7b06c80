"""Which combinations of answers the tests bake."""

import itertools
import json
from collections.abc import Mapping, Sequence

from .projects import ROOT

Answers = dict[str, str]

QUESTIONS = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))
CHOICES: Mapping[str, Sequence[str]] = {
    name: value
    for name, value in QUESTIONS.items()
    if isinstance(value, list) and not name.startswith("_")
}
DEFAULTS = {name: answers[0] for name, answers in CHOICES.items()}
# Beside the pairs: what most people get, and projects with as many and as few files as can be.
NAMED = (
    DEFAULTS,
    DEFAULTS | {"deployment": "kubernetes", "ci": "github"},
    DEFAULTS | {"deployment": "none", "ci": "none", "handler_style": "async"},
)


def pairs(answers: Answers) -> set[tuple[tuple[str, str], ...]]:
    return set(itertools.combinations(answers.items(), 2))


def pairwise(choices: Mapping[str, Sequence[str]]) -> list[Answers]:
    """Few combinations that together have each pair of answers to two questions."""
    product = itertools.product(*choices.values())
    every = [dict(zip(choices, answers, strict=True)) for answers in product]
    missing = set().union(*map(pairs, every))
    chosen = []
    while missing:
        best = max(every, key=lambda answers: len(missing & pairs(answers)))
        chosen.append(best)
        missing -= pairs(best)
    return chosen


def distinct(combinations: Sequence[Answers]) -> dict[str, Answers]:
    """By names for tests, such as `sync-3.13-MIT-none-gitlab`."""
    return {"-".join(answers.values()): answers for answers in combinations}


COMBINATIONS = distinct([*NAMED, *pairwise(CHOICES)])
