"""``python -m gpujobs`` and the installed command."""

from gpujobs.cli.main import main

if __name__ == "__main__":
    main()
