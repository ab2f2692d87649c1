"""`python -m golibx`: the same as the `golibx` command."""

from golibx.cli import main

if __name__ == "__main__":
    main()
