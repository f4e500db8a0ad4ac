"""The command line's fixtures, for the commands of this area."""

from lora_pipeline_tests.cli.conftest import home, run

__all__ = ["home", "run"]
