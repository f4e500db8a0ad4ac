"""`doctor`: whether everything that is needed is there."""

from __future__ import annotations

import click

from lora_pipeline.cli.output import json_option


@click.command()
@json_option
def doctor(as_json: bool) -> int:
    """Look at everything that is needed, and say what is wrong."""
    from lora_pipeline.cli.environment import connect
    from lora_pipeline.cli.exits import Exit, most_serious
    from lora_pipeline.cli.output import show_json, show_table
    from lora_pipeline.stack.diagnosis import Health, diagnose

    findings = list(diagnose(connect()))
    rows = [{"what": f.subject, "how": f.health.value, "detail": f.detail} for f in findings]
    if as_json:
        show_json(rows)
    else:
        show_table(rows, ["what", "how", "detail"])
    codes = {Health.BROKEN: Exit.ERROR, Health.TRY_AGAIN: Exit.TRY_AGAIN}
    return most_serious(codes.get(finding.health, Exit.FINE) for finding in findings)
