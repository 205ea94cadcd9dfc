"""Records: whole groups of a step, token by token, as files that other tools read. No verl here."""

from .store import Record, Recorder, read_records

__all__ = ["Record", "Recorder", "read_records"]
