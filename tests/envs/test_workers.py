"""Worker processes: the results of the serial form, and no hang and no orphan whatever happens."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from cvpo.envs import Groups, make
from cvpo.errors import ConfigError, EnvError, WorkerError
from tests.envs.helpers import Dying, Faulty, walk
from tests.envs.test_vector import play, same
from tests.processes import python


def test_same_results_as_in_process():
    serial = make("cvpo/Sprint-v0", 5, seed=3, render_mode="rgb_array")
    with make("cvpo/Sprint-v0", 5, seed=3, workers=2, render_mode="rgb_array") as parallel:
        for name in ("task", "horizon", "obs_size", "action_size", "discrete", "cost_names", "observation_space"):
            assert getattr(serial, name) == getattr(parallel, name)
        assert np.array_equal(serial.reset(), parallel.reset())
        assert same(play(serial, 130), play(parallel, 130))
        assert np.array_equal(serial.render_frame(4), parallel.render_frame(4))
        # A state taken from one form continues in the other.
        states = serial.state_dict(), parallel.state_dict()
        assert same(list(states[0].values()), list(states[1].values()))
        play(serial, 50)
        assert np.array_equal(serial.load_state_dict(states[1]), parallel.load_state_dict(states[0]))
        assert same(play(serial, 40, seed=2), play(parallel, 40, seed=2))
        assert np.array_equal(serial.reset(seed=8), parallel.reset(seed=8))


def test_a_step_in_two_halves():
    def groups():
        return Groups([make("cvpo/Sprint-v0", 2, seed=3), make("cvpo/Sprint-v0", 3, seed=4)])

    actions = np.random.default_rng(0).uniform(-1, 1, (5, 2)).astype(np.float32)
    with make("cvpo/Sprint-v0", 5, seed=3, workers=2) as parallel:
        pairs = ((make("cvpo/Sprint-v0", 5, seed=3), parallel), (groups(), groups()))
        for whole, halved in pairs:
            assert np.array_equal(whole.reset(), halved.reset())
            halved.begin(actions)
            step, other = halved.finish(), whole.step(actions)
            assert np.array_equal(step.obs, other.obs) and np.array_equal(step.reward, other.reward)


def test_a_step_that_nobody_finished():
    serial = make("cvpo/Sprint-v0", 5, seed=3)
    actions = np.random.default_rng(0).uniform(-1, 1, (5, 2)).astype(np.float32)
    with make("cvpo/Sprint-v0", 5, seed=3, workers=2) as parallel:
        with pytest.raises(WorkerError, match="no step of task 'cvpo/Sprint-v0' to finish: none was begun"):
            parallel.finish()
        parallel.reset()
        # What came in between is over when the next call is made: that is not given the old answer.
        parallel.begin(actions)
        assert np.array_equal(parallel.reset(seed=8), serial.reset(seed=8))
        parallel.begin(actions)
        parallel.begin(actions)
        serial.step(actions)
        assert np.array_equal(parallel.finish().obs, serial.step(actions).obs)
        parallel.begin(actions)
    with pytest.raises(WorkerError, match="it was stopped"):
        parallel.finish()
    assert not multiprocessing.active_children()


def test_errors_of_the_environment_arrive_and_nothing_is_left():
    env = make(lambda: Faulty("reward", np.nan), 2, horizon=10, workers=2)
    env.reset()
    with pytest.raises(EnvError, match="environment 0, episode 0, step 2: reward is nan"):
        play(env, 2)
    env.close()
    env.close()
    with pytest.raises(WorkerError, match="stopped"):
        env.reset()
    with pytest.raises(ConfigError, match="did you mean 'cvpo/Sprint-v0'"):
        make("cvpo/Sprin-v0", workers=1)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("raise", r"worker 1 \(environments 2 to 3\): ZeroDivisionError: a bug in the environment"),
        ("exit", r"worker 1 \(environments 2 to 3\) ended with exit code 7"),
        ("kill", r"worker 1 \(environments 2 to 3\) was killed by signal 9"),
    ],
)
def test_worker_that_fails_is_named(how, message):
    made = iter([walk, walk, *[lambda: Dying("raise" if how == "kill" else how)] * 2])
    from cvpo.envs.source import Source
    from cvpo.envs.workers import Workers

    env = Workers([Source(task, horizon=10) for task in made], ("cost",), workers=2)
    env.reset()
    play(env, 2)
    if how == "kill":
        os.kill(env._processes[1].pid, signal.SIGKILL)
    began = time.monotonic()
    with pytest.raises(WorkerError, match=message) as caught:
        play(env, 1)
    assert time.monotonic() - began < 60
    if how == "raise":
        assert "in step" in caught.value.__notes__[0]
    assert not multiprocessing.active_children()


SCRIPT = """
import signal, sys, time
import numpy as np
from cvpo.envs import make
from tests.envs.helpers import Dying
if __name__ == "__main__":
    # What a shell starts in the background inherits that Ctrl-C is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    env = make(lambda: Dying("hang"), 2, horizon=10, workers=2)
    env.reset()
    print(*(process.pid for process in env._processes), flush=True)
    for _ in range(3):
        if sys.argv[1] == "idle":
            time.sleep(60)
        env.step(np.zeros((2, 2)))
"""


@pytest.mark.parametrize(("state", "number"), [("idle", signal.SIGKILL), ("stepping", signal.SIGINT)])
def test_no_orphans(tmp_path, state, number):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    with python(str(script), state) as main:
        workers = [int(pid) for pid in main.stdout.readline().split()]
        assert len(workers) == 2
        time.sleep(0.3)
        main.send_signal(number)
        main.wait(timeout=120)
    deadline = time.monotonic() + 60
    while any(alive(pid) for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A process that is dead but not yet collected by whoever inherited it is no orphan.
    status = Path(f"/proc/{pid}/stat")
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")
