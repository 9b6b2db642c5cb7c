"""`python -m pyrolatent` is the command line."""

from pyrolatent.cli import main

if __name__ == "__main__":
    main(prog_name="pyrolatent")
