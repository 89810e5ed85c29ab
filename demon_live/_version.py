"""The version of demon_live."""

__version__ = "0.1.0"
