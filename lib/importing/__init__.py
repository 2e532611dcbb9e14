"""Configurations of other trainers into stage files: every key is carried over, or said why not."""

from lib.importing.convert import ImportedStage, import_config

__all__ = ["ImportedStage", "import_config"]
