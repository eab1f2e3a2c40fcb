"""``python -m hypervlad``: the command line, where the ``hypervlad`` script is not on the path."""

from hypervlad.cli import main

if __name__ == "__main__":
    main()
