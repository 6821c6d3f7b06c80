import re
from pathlib import Path

from ..projects import bake, run, stand_in
from .repositories import committed, git


def test_hooks_pass_in_a_new_project_and_stop_what_is_wrong(
    template: Path, tools: Path, venv: Path, tmp_path: Path
) -> None:
    project = bake(template, tmp_path)
    stand_in(venv / "python", project)
    (project / ".venv" / "installed").touch()
    committed(project)
    home = {"PRE_COMMIT_HOME": str(tmp_path / "pre-commit")}
    run(tools / "pre-commit", "install", cwd=project, **home).check_returncode()
    module = project / "src" / "chat_service" / "errors.py"

    with module.open("a") as file:
        file.write("\n\nANSWER = 42\n")
    assert git(project, "commit", "-qam", "Right", **home).returncode == 0

    with module.open("a") as file:
        file.write('COUNT: int = "two"\nimport os\n')
    done = git(project, "commit", "-qam", "Wrong", **home)
    assert done.returncode != 0
    assert re.findall("hook id: (.+)", done.stderr) == ["lint", "types"]
