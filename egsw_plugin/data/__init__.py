"""Public data sets as verl's parquet files: one table of sources, one loader, one writer."""

from .sources import SOURCES, Example, Source
from .writer import SCHEMA, write

__all__ = ["SCHEMA", "SOURCES", "Example", "Source", "write"]
