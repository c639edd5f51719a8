"""A guard against slower updates that does not depend on the machine: what one update does, counted by stage.

A budget is what the stage took when it was last lowered, and 5 % more. Where a count falls, lower its budget; where one
rises for a reason, raise it in the same commit, and say there what the update is given for it.
"""

from __future__ import annotations

import pytest

from benchmarks import updates_ours, updates_settings
from benchmarks.counting import Counter, live_tensors
from benchmarks.updates_stages import stages
from cvpo.compiled import loops, switched_off

UPDATES = 20
#: Of the E-step's passes, the particles and the M-step in torch, as without Numba; compiled loops are no operations of
#: tensors.
IN_TORCH = {"dual": (163, 366_000), "particles": (122, 14_100_000), "fit": (247, 1_605_000), "guard": (215, 912_000)}
#: Operations and bytes of one update at the peer's defaults (B = 256, K = 16, 2×128). The iterations of ``dual`` and
#: the probes of ``guard`` depend on the data, and so, by rounding, on the machine: they have a third more.
BUDGETS = {
    "sampling": (24, 61_000),
    "target": (63, 1_160_000),
    "critic": (84, 2_390_000),
    "particles": (102, 5_230_000) if loops("cvpo.particle_loops") else IN_TORCH["particles"],
    "dual": (27, 100) if loops("cvpo.estep.kernels") else IN_TORCH["dual"],
    "metrics": (23, 75_000),
    "fit": (157, 918_000) if loops("cvpo.mstep.diagonal_loops") else IN_TORCH["fit"],
    "guard": (175, 780_000) if loops("cvpo.mstep.diagonal_loops") else IN_TORCH["guard"],
    "averages": (2, 0),
    "rest": (0, 0),
}
#: On a CPU looking costs nothing: Newton looks whether it is done, and the guard whether there is anything to do. No
#: other stage may make the host wait; with a fixed number of iterations Newton may not either. Compiled loops are given
#: their arrays by what would be a wait on a device, where there are none.
LOOKS = {"dual", "guard"}


TINY = updates_settings.Setting(batch=16, particles=4, hidden=(8, 8), members=2, iterations=2)


def counted(setting: updates_settings.Setting, updates: int, **options: object) -> Counter:
    """Counts over ``updates`` updates, after some that warm up."""
    agent = updates_ours.make(setting, count=3_000, **options)
    for _ in range(5):
        agent.update()
    with stages(agent) as stage, Counter(stage.name) as counter:
        for _ in range(updates):
            agent.update()
    return counter


@pytest.fixture(scope="module")
def counter() -> Counter:
    return counted(updates_settings.SETTINGS["defaults"], UPDATES)


@pytest.mark.parametrize("stage", BUDGETS)
def test_operations_and_bytes_of_a_stage_stay_within_their_budgets(counter: Counter, stage: str) -> None:
    operations, size = BUDGETS[stage]
    most = {name: count / UPDATES for (where, name), count in counter.names.most_common() if where == stage}
    found = counter.operations[stage] / UPDATES
    assert found <= operations, f"{stage}: {found} operations an update, budget {operations}: {most}"
    found = counter.bytes[stage] / UPDATES
    assert found <= size, f"{stage}: {found:.0f} bytes allocated an update, budget {size}"


@pytest.fixture(scope="module")
def eager() -> Counter:
    """Without compiled loops."""
    with switched_off():
        return counted(updates_settings.SETTINGS["defaults"], UPDATES)


@pytest.mark.parametrize("stage", IN_TORCH)
def test_so_do_stages_whose_loops_are_not_compiled(eager: Counter, stage: str) -> None:
    operations, size = eager.operations[stage] / UPDATES, eager.bytes[stage] / UPDATES
    most = IN_TORCH[stage]
    assert 31 < operations <= most[0] and size <= most[1], f"{operations} operations, {size:.0f} bytes"


def test_only_the_solver_and_the_guard_look_at_results(eager: Counter) -> None:
    found = {stage: count / UPDATES for stage, count in eager.syncs.items() if stage not in LOOKS and count}
    assert not found, f"synchronisations an update where none is promised: {found}"


def test_a_solver_with_a_fixed_number_of_steps_never_looks() -> None:
    found = counted(TINY, 1, estep={"name": "newton", "check_every": None, "budget": 3}).syncs["dual"]
    assert not found, f"{found} synchronisations in an E-step that promises none"


def test_updates_leave_no_tensors_behind() -> None:
    agent = updates_ours.make(TINY, count=600)
    found = []
    for updates in (20, 200):
        for _ in range(updates):
            agent.update()
        found.append(live_tensors())
    assert found[0] == found[1], f"(live tensors, their bytes) before and after 200 updates: {found}"
