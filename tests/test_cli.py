"""The command line: every option of every component, errors on one line, tables and pictures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Literal

import attrs
import pytest
import torch

import cvpo.registry
import cvpo.testing
from cvpo.assembly import DEFAULTS, FAMILIES
from cvpo.cli import COMMANDS, main
from cvpo.cli.options import parse
from cvpo.config import AgentConfig
from cvpo.run import RunConfig, RunFolder, from_options
from cvpo.run.config import ALL_OPTIONS

SMALL = (
    "--steps 300 --warmup-steps 200 --updates-per-step 0.1 --batch-size 32 --particles 8 --policy.hidden 16 16 "
    "--critic.hidden 16 16 --buffer.capacity 2000 --log-every 100 --eval-every 0 --eval-episodes 2 --no-tensorboard"
).split()


@attrs.frozen
class Odd:
    """A component with every kind of field.

    Attributes:
        depth: how deep
    """

    must: float
    depth: int = 3
    kind: Literal["a", "b"] = "a"
    pair: tuple[int, str] = (1, "x")
    maybe: float | None = None
    rule: str | Callable[[Any], Any] = "min"
    anything: Any = 7
    table: dict[str, int] = attrs.field(factory=lambda: {"x": 1})
    hidden: Any = attrs.field(default=None, init=False)

    summary: ClassVar[str] = "an odd one"


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = FAMILIES["buffer"]
    registry.names()
    monkeypatch.setattr(registry, "_targets", {**registry._targets, "odd": Odd})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "run"
    assert main(["train", "--run", str(path), *SMALL]) == 0
    return path


# ------------------------------------------------------------------------------------------------ options


def test_without_flags_the_options_are_the_defaults() -> None:
    options, folder = parse([])
    assert folder is None
    config, expected = from_options(options), cvpo.run.configure()
    assert {**config.plain(), **expected.plain()} == config.plain()
    defaults = attrs.fields_dict(AgentConfig)
    assert options["limit_kind"] == defaults["limit_kind"].default


def test_every_option_there_is_has_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["train", "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    for name in ALL_OPTIONS:
        assert f"--{name.replace('_', '-')}" in text
    for family, registry in FAMILIES.items():
        for name in registry.names():
            assert name in text
        component = registry.get(DEFAULTS[family])
        for field in attrs.fields(component):
            if field.init:
                assert f"--{family}.{field.name.replace('_', '-')}" in text


def test_flags_reach_the_component_they_name() -> None:
    line = (
        "--task cvpo/SprintTwoCosts-v0 --cost-limits 3 4 --gamma 0.9 --estep slsqp --estep.max-iter 5 "
        "--critic.members 3 --critic.hidden 8 8 --mstep.average=state --no-warm-start --states=replay --horizon 50 "
        "--env.render-mode rgb_array --env.two_costs=true --limit q --workers 1 --cost-keys cost cost_east"
    )
    config = from_options(parse(line.split())[0])
    agent = config.agent
    assert (agent["cost_limits"], agent["gamma"], agent["warm_start"]) == ((3.0, 4.0), 0.9, False)
    assert type(agent["estep"]).__name__ == "Slsqp" and agent["estep"].max_iter == 5
    assert (agent["critic"].members, agent["critic"].hidden, agent["mstep"].average) == (3, (8, 8), "state")
    assert type(agent["states"]).__name__ == "ReplayStates" and type(agent["limit"]).__name__ == "QLimit"
    assert config.env == {"render_mode": "rgb_array", "two_costs": True}
    assert (config.horizon, config.workers, config.cost_keys) == (50, 1, ("cost", "cost_east"))


def test_no_limits_at_all_can_be_asked_for() -> None:
    assert from_options(parse(["--cost-limits"])[0]).agent["cost_limits"] == ()


def test_flags_come_before_the_file_and_the_file_before_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "options.json"
    file.write_text(
        json.dumps(
            {
                "task": "cvpo/SprintTwoCosts-v0",
                "steps": 11,
                "gamma": 0.8,
                "cost_limits": [7, 8],
                "estep": {"name": "slsqp", "max_iter": 4},
                "critic": {"name": "mlp", "members": 5, "hidden": [3]},
                "env": {"two_costs": True},
            }
        )
    )
    options, _ = parse(["--config", str(file), "--gamma", "0.7", "--critic.members", "6", "--env.render_mode", "human"])
    config = from_options(options)
    assert (config.steps, config.agent["gamma"], config.agent["cost_limits"]) == (11, 0.7, (7.0, 8.0))
    assert config.agent["estep"].max_iter == 4
    assert (config.agent["critic"].members, config.agent["critic"].hidden) == (6, (3,))
    assert config.env == {"two_costs": True, "render_mode": "human"}
    # Another component than the file's does not inherit its options.
    options, _ = parse(["--config", str(file), "--estep", "newton"])
    assert type(from_options(options).agent["estep"]).__name__ == "Newton"


def test_parts_that_depend_on_the_action_space_stay_open() -> None:
    task = ["--task", "Pendulum-v1"]
    open_options, _ = parse(task)
    assert "policy" not in open_options and "mstep" not in open_options
    named, _ = parse([*task, "--policy", "diagonal"])
    assert parse([*task, "--policy.hidden", "8"])[0]["policy"] == {**named["policy"], "hidden": (8,)}


def test_fields_of_any_type_have_flags(odd: None, capsys: pytest.CaptureFixture[str]) -> None:
    line = "--buffer odd --buffer.must 2 --buffer.kind b --buffer.pair 5 y --buffer.maybe 0.5 --buffer.rule max"
    buffer = parse([*line.split(), "--buffer.anything", "[1, 2]", "--buffer.table", "{'y': 2}"])[0]["buffer"]
    name = buffer.pop("name")
    assert name == "odd"
    assert buffer == dict(
        must=2.0, depth=3, kind="b", pair=(5, "y"), maybe=0.5, rule="max", anything=[1, 2], table={"y": 2}
    )
    with pytest.raises(SystemExit):
        parse(["--buffer", "odd", "--help"])
    assert "how deep" in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        parse(["--buffer", "odd"])
    assert end.value.code == 2
    assert "--buffer.must" in capsys.readouterr().err


def test_an_unknown_option_of_a_file_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "options.json").write_text('{"gama": 0.9}')
    assert main(["train", "--config", str(tmp_path / "options.json")]) == 2
    assert "there is no option 'gama'; did you mean 'gamma'" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("line", "status", "words"),
    [
        ("trian", 2, ["'trian'", "did you mean 'train'"]),
        ("train --estep nweton", 2, ["unknown E-step solver 'nweton'", "did you mean 'newton'"]),
        ("train --task cvpo/Sprnt-v0", 2, ["did you mean 'cvpo/Sprint-v0'"]),
        ("train --cost-limits 1 2", 2, ["2 costs"]),
        ("train --cost-limits -1", 2, ["cost_limits has -1"]),
        ("train --config missing.json", 2, ["missing.json", "No such file"]),
        ("train --env.colour", 2, ["--env.colour needs a value"]),
        ("train --estep.tolerance -1", 2, ["Newton.tolerance is -1"]),
        ("resume nowhere", 1, ["nowhere is not a run folder"]),
        ("eval nowhere", 1, ["nowhere is not a run folder"]),
        ("plot nowhere", 1, ["nowhere is not a run folder"]),
        ("list estp", 2, ["did you mean 'estep'"]),
        ("check estp newton", 2, ["did you mean 'estep'"]),
        ("check estep newton max_iter", 2, ["KEY=VALUE"]),
        ("train --estep nowhere:Solver", 2, ["nowhere"]),
    ],
)
def test_errors_are_one_clear_line(
    line: str, status: int, words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    os.chdir(tmp_path)
    assert main(line.split()) == status
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1 and errors[0].startswith("cvpo: error: ")
    for word in words:
        assert word in errors[0]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("train --gama 0.9", "--gamma"),
        ("train --estep.max-itr 3", "--estep.max-iter"),
        ("eval x --epsodes 3", "--episodes"),
    ],
)
def test_a_misspelt_flag_suggests_the_right_one(line: str, word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(line.split())
    assert end.value.code == 2
    assert word in capsys.readouterr().err


def test_a_failure_says_what_was_saved(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: Any, **__: Any) -> None:
        raise cvpo.EnvError("the environment fell over")

    monkeypatch.setattr("cvpo.cli.resume_command.resume", breaks)
    assert main(["resume", str(run)]) == 1
    errors = capsys.readouterr().err
    assert "cvpo: error: the environment fell over\nsaved up to step 300; continue with `cvpo resume" in errors


def test_without_the_packages_of_the_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tyro", None)
    assert main(["list"]) == 2
    assert "pip install 'cvpo[train]'" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ commands


def test_help_is_quick_and_names_the_commands() -> None:
    code = "import sys; from cvpo.cli import main; main(['--help']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment())
    assert done.stdout.splitlines()[-1] == "False"
    for name, summary in COMMANDS.items():
        assert name in done.stdout and summary.split()[-1] in done.stdout


def environment() -> dict[str, str]:
    root = Path(__file__).parents[1]
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    assert f"usage: cvpo {command}" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"cvpo {cvpo.__version__}\n"


def test_train_ends_with_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--run", str(tmp_path / "run"), *SMALL]) == 0
    captured = capsys.readouterr()
    for word in ("deterministic", "stochastic", "random", "limit 25", "within", "300"):
        assert word in captured.out
    assert f"run folder {tmp_path / 'run'}" in captured.err and "evaluation return" in captured.err
    assert main(["train", "--run", str(tmp_path / "run"), *SMALL]) == 1
    assert "cvpo resume" in capsys.readouterr().err


def test_a_discrete_task_finds_its_parts(tmp_path: Path) -> None:
    line = [word for word in SMALL if not word.startswith("--policy")]
    line = [word for word in line if word != "16"] + ["--critic.hidden", "16"]
    assert main(["train", "--task", "cvpo/SprintDiscrete-v0", "--run", str(tmp_path / "run"), *line]) == 0
    assert RunFolder(tmp_path / "run").options()["policy"]["name"] == "categorical"


def test_resume_goes_on(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--run", str(tmp_path / "run"), *SMALL]) == 0
    assert main(["resume", str(tmp_path / "run"), "--steps", "350"]) == 0
    assert "350 steps" in capsys.readouterr().out
    assert main(["resume", str(tmp_path / "run"), "--steps", "100"]) == 1


def test_a_stopped_run_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "cvpo.cli.train_command.train",
        lambda config, path, progress: cvpo.run.Result(folder=path, steps=7, updates=0, stopped=15),
    )
    assert main(["train", "--run", str(tmp_path / "run")]) == 143
    assert f"continue with `cvpo resume {tmp_path / 'run'}`" in capsys.readouterr().err


def test_eval_repeats_the_table_of_the_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = json.loads(RunFolder(run).result.read_text())["scores"]
    assert main(["eval", str(run)]) == 0
    table = capsys.readouterr().out
    for score in saved:
        assert f"{score['returned']:.4g} ± {score['return_std']:.3g}" in table
    assert main(["eval", str(run), "--episodes", "3", "--seed", "5"]) == 0
    assert " 3 " in capsys.readouterr().out


def test_a_video_of_an_episode(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    imageio = pytest.importorskip("imageio.v3")
    assert main(["eval", str(run), "--episodes", "1", "--video", str(tmp_path / "film.gif")]) == 0
    assert "100 frames" in capsys.readouterr().out
    assert imageio.improps(tmp_path / "film.gif", index=None).shape[0] > 1
    assert main(["eval", str(run), "--video", str(tmp_path / "film.avi")]) == 2
    assert "allowed: .gif, .mp4" in capsys.readouterr().err


def test_list_shows_every_component_and_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    for registry in FAMILIES.values():
        for name in registry:
            assert name in text and registry.summary(name) in text
    assert main(["list", "policy"]) == 0
    text = capsys.readouterr().out
    assert "cholesky" in text and "slsqp" not in text


def test_list_goes_on_after_a_broken_plug_in(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = FAMILIES["estep"]
    group = "cvpo.estep"
    found = [EntryPoint("broken", "no_such_module:Solver", group), EntryPoint("good", f"{__name__}:Odd", group)]
    monkeypatch.setitem(sys.modules, __name__, SimpleNamespace(Odd=Odd))
    monkeypatch.setattr(cvpo.registry, "entry_points", lambda group: [e for e in found if e.group == group])
    monkeypatch.setattr(registry, "_targets", dict(registry._targets))
    monkeypatch.setattr(registry, "_scanned", False)
    assert main(["list"]) == 0
    captured = capsys.readouterr()
    assert "an odd one" in captured.out and "newton" in captured.out
    assert captured.err.count("no_such_module:Solver") == 1 and captured.err.startswith("cvpo: warning: ")


def test_check_prints_what_holds_and_the_first_that_does_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = []

    def run_checks(family: str, component: Any) -> Any:
        seen.append((family, component))
        yield SimpleNamespace(name="signs", error=None)
        if component.max_iter == 1:
            yield SimpleNamespace(name="limits", error="q_cost = [1, 2]")

    monkeypatch.setattr(cvpo.testing, "run_checks", run_checks, raising=False)
    assert main(["check", "estep", "newton"]) == 0
    assert capsys.readouterr().out == "passed  signs\n"
    assert main(["check", "estep", "newton", "max_iter=1"]) == 1
    assert capsys.readouterr().out == "passed  signs\nFAILED  limits\n\nq_cost = [1, 2]\n"
    assert seen[0] == ("estep", FAMILIES["estep"].create("newton"))


def test_plot_writes_a_picture_for_each_task(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot", str(run), "--output", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'cvpo-Sprint-v0.png'}\n"
    assert (tmp_path / "cvpo-Sprint-v0.png").read_bytes().startswith(b"\x89PNG")


def test_run_config_documents_every_option() -> None:
    from cvpo.cli.fields import help_of

    for field in attrs.fields(RunConfig):
        assert help_of(RunConfig, field.name), field.name


@pytest.fixture(autouse=True)
def stay(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Tests change folder and thread count; both are given back."""
    torch.set_num_threads(1)
    before = os.getcwd()
    yield
    os.chdir(before)
