"""`python -m resynth_fast` is the command line `resynth`."""

from .cli.__main__ import main

if __name__ == "__main__":
    main()
