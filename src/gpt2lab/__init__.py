"""GPT-2 on your own machine: run it, look inside it, fine-tune it, serve it."""

__version__ = "0.1.0"
