"""`python -m aslseg` is the command line, as `torchrun -m aslseg` needs it."""

from aslseg.cli.main import main

if __name__ == "__main__":
    main()
