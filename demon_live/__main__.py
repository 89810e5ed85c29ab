"""`python -m demon_live` is `demon`."""

from demon_live.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
