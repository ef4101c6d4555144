"""`python -m tffl`."""

from tffl_cli.main import main

if __name__ == "__main__":
    main()
