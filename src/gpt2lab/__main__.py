"""``python -m gpt2lab``: the same as the ``gpt2lab`` command."""

from gpt2lab.cli.main import main

if __name__ == "__main__":
    main()
