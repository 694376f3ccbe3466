"""drivedistill: distil a large driving vision-language model into a small one that answers in time."""

__version__ = "0.1.0"
