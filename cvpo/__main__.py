"""``python -m cvpo``."""

from cvpo.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
