"""`python -m synicix_core.cli` is `synicix-run`."""

from synicix_core.cli.main import main

if __name__ == "__main__":
    main()
