"""``cvpo train``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from cvpo.cli.options import parse
from cvpo.cli.tables import finish
from cvpo.errors import CvpoError
from cvpo.progress import for_terminal
from cvpo.run import RunFolder, from_options, load_config, train
from cvpo.run.folder import check_new, default_path


def main(argv: list[str]) -> int:
    """Train in a new run folder, and print the table of its end."""
    options, folder = parse(argv)
    config = from_options(options)
    path = default_path(config) if folder is None else Path(folder)
    check_new(path)
    with saying_what_was_saved(path):
        return finish(train(config, path, progress=for_terminal()))


@contextlib.contextmanager
def saying_what_was_saved(path: Path) -> Iterator[None]:
    """Errors from inside end with the step that is saved and how to go on from there."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - an environment may raise anything
        step = _saved(RunFolder(path))
        if step is None:
            raise
        hint = f"saved up to step {step}; continue with `cvpo resume {path}`"
        if isinstance(error, CvpoError):
            raise type(error)(f"{error}\n{hint}") from error
        # An error of the user's own code keeps its traceback.
        error.add_note(hint)
        raise


def _saved(folder: RunFolder) -> int | None:
    """The step that the run can go on from."""
    try:
        load_config(folder)
        return folder.checkpoints().newest()[0]
    except CvpoError:
        return None
