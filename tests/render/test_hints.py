import shlex
from pathlib import Path

import pytest

from orchestrator.render.hints import as_typed, ui_command


def test_a_path_below_is_short_and_another_is_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert as_typed(tmp_path / "runs" / "one") == "runs/one"
    assert as_typed(Path("/elsewhere/one")) == "/elsewhere/one"


@pytest.mark.parametrize("home", ["state", "two words", "it's", 'a "b" $c'])
def test_the_folder_survives_the_persons_shell_and_makes(home):
    _, _, argument = shlex.split(ui_command(Path(home)))
    assert shlex.split(argument.removeprefix("ARGS=")) == ["--home", home]


def test_a_folder_that_is_not_given_is_not_told():
    assert ui_command(None) == "make ui"
