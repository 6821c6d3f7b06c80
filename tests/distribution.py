"""Which tests pytest-xdist runs in one process, because they share something expensive.

Its `--dist loadgroup` does not group: it writes into `_nodeid`, which pytest 9.2 does not read.
"""

from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]  # ships no types

# By files of tests, or their folders; tests of other files share what is made for the file.
TOGETHER = {
    "tests/ci": "ci",
    "tests/kubernetes": "kubernetes",
    "tests/test_benchmarks.py": "benchmarks",
    "tests/test_compose.py": "containers",
    "tests/test_image.py": "containers",
    "tests/test_image_at_work.py": "containers",
    "tests/test_offline_openai.py": "types",
    "tests/test_readme.py": "types",
    "tests/test_replicas.py": "benchmarks",
}
# Their tests share nothing.
APART = {
    "tests/test_awkward_answers.py",
    "tests/test_bake.py",
    "tests/test_launchers.py",
    "tests/test_questions.py",
    "tests/test_refusals.py",
}


def scope_of(nodeid: str) -> str:
    file, _, _ = nodeid.partition("::")
    folder, _, _ = file.rpartition("/")
    if file in APART:
        return nodeid
    return TOGETHER.get(file) or TOGETHER.get(folder) or file


def longest_first(nodeid: str) -> int:
    """The rank of a test: what takes minutes comes first."""
    scope = scope_of(nodeid)
    return [scope == "containers", "from_nothing" in scope, True].index(True)


class Distribution(LoadScopeScheduling):  # type: ignore[misc]  # the same
    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)
