"""Help is quick and complete."""

from __future__ import annotations

import attrs
import pytest

import cvpo
from cvpo.cli import COMMANDS, main
from cvpo.cli.fields import help_of
from cvpo.run import RunConfig
from tests.processes import python


def test_help_is_quick_and_names_the_commands() -> None:
    code = "import sys; from cvpo.cli import main; main(['--help']); print('torch' in sys.modules)"
    with python("-c", code) as process:
        text, _ = process.communicate(timeout=60)
    assert text.splitlines()[-1] == "False"
    for name, summary in COMMANDS.items():
        assert name in text and summary.split()[-1] in text


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    assert f"usage: cvpo {command}" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"cvpo {cvpo.__version__}\n"


def test_run_config_documents_every_option() -> None:
    for field in attrs.fields(RunConfig):
        assert help_of(RunConfig, field.name), field.name
