"""``cvpo train``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from cvpo.cli.options import parse
from cvpo.cli.tables import finish
from cvpo.errors import ConfigError, CvpoError
from cvpo.progress import for_terminal
from cvpo.run import RunConfig, RunFolder, from_options, load_config, train, train_together
from cvpo.run.folder import check_new, default_path


def main(argv: list[str]) -> int:
    """Train in a new run folder, and print the table of its end."""
    options, folder, seeds = parse(argv)
    config = from_options(options)
    if seeds is not None:
        return _together(config, seeds, folder)
    path = default_path(config) if folder is None else Path(folder)
    check_new(path)
    with saying_what_was_saved(path):
        return finish(train(config, path, progress=for_terminal()))


def _together(config: RunConfig, seeds: Sequence[int], folder: str | None) -> int:
    paths = [
        default_path(attrs.evolve(config, seed=seed)) if folder is None else Path(f"{folder}-{seed}") for seed in seeds
    ]
    with contextlib.ExitStack() as stack:
        for path in paths:
            stack.enter_context(saying_what_was_saved(path))
        return max(finish(result) for result in train_together(config, seeds, paths, progress=for_terminal()))


@contextlib.contextmanager
def saying_what_was_saved(path: Path) -> Iterator[None]:
    """Errors from inside end with the step that is saved and how to go on from there."""
    try:
        yield
    except ConfigError:
        # What was asked for cannot be done, and the run is as it was.
        raise
    except Exception as error:  # noqa: BLE001 - an environment may raise anything
        step = _saved(RunFolder(path))
        if step is None:
            raise
        error.add_note(f"saved up to step {step}; continue with `cvpo resume {path}`")
        raise


def _saved(folder: RunFolder) -> int | None:
    """The step that the run can go on from."""
    try:
        load_config(folder)
        return folder.checkpoints().newest()[0]
    except CvpoError:
        return None
