"""Standing questions about what is served now: is it one version a model, is it spelled right, has it weights?

Answered from the database alone, in one pass each; whether the archived objects are still there is the inventory's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from lora_pipeline.connections import Connections
from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import Activation, ModelVersion, UserModel
from lora_pipeline.versions.formats import UNKNOWN, read_stored, weights_problem
from lora_pipeline.versions.normalisation import normalise_versions

SHOWN = 200
"""Findings kept for people to read; the rest is counted."""


@dataclass(frozen=True)
class Finding:
    """One model that a check is about."""

    model_key: str
    problem: str
    next_command: str


@dataclass
class CheckReport:
    """What one check found."""

    checked: int = 0
    found: int = 0
    findings: list[Finding] = field(default_factory=list)
    """The first of them."""

    @property
    def passed(self) -> bool:
        return self.found == 0

    def add(self, model_key: str, problem: str, next_command: str) -> None:
        self.found += 1
        if len(self.findings) < SHOWN:
            self.findings.append(Finding(model_key, problem, next_command))


def version_format(connections: Connections) -> CheckReport:
    """Whether every stored version and model id is spelled canonically. What is malformed comes first."""
    plan = normalise_versions(connections)
    report = CheckReport(plan.checked)
    for bad in plan.malformed:
        report.add(bad.model_key, f"{bad.column}: {bad.problem}", f"lora-pipeline why {bad.model_key}")
    for one in plan.respellings:
        problem = f"{one.column} is spelled {one.before!r}: understood, and to be written as {one.after}"
        report.add(one.model_key, problem, "lora-pipeline sync --all --apply")
    return report


def one_active_version(database: Database) -> CheckReport:
    """Whether what each model's row serves is its one open activation.

    Two open activations of a model are impossible (the database refuses them); a row that older software
    changed past the history is what this finds.
    """
    report = CheckReport()
    with database.read() as session:
        for row in _served(session):
            report.checked += 1
            stored = read_stored(row.replicate_model_id, row.replicate_version_id).canonical_version
            served, active = stored or row.replicate_version_id, row.provider_version
            if row.activation_id is None:
                problem = f"serves {served}, which no activation says: its history has not begun"
                report.add(row.model_key, problem, f"lora-pipeline sync {row.model_key}")
            elif served != active or row.lora_weights_url != row.weights_url:
                what = "version" if served != active else "weights"
                problem = f"the row's {what} and those of the open activation (V{row.number}) differ"
                report.add(row.model_key, problem, f"lora-pipeline why {row.model_key}")
    return report


def weights_present(database: Database) -> CheckReport:
    """Whether the weights of every version that is served are known."""
    report = CheckReport()
    with database.read() as session:
        for row in _served(session):
            report.checked += 1
            version = read_stored(row.replicate_model_id, row.replicate_version_id).version
            problem = weights_problem(row.lora_weights_url, version)
            if problem is None and row.weights_state == "missing":
                problem = "its weights are registered as missing"
            if problem is not None:
                problem = problem if row.lora_weights_url else f"{problem} ({UNKNOWN})"
                report.add(row.model_key, problem, f"lora-pipeline sync {row.model_key}")
    return report


def _served(session: Session) -> Iterable[Any]:
    """Every model that serves something, with its open activation."""
    question = (
        select(
            UserModel.model_key,
            UserModel.replicate_model_id,
            UserModel.replicate_version_id,
            UserModel.lora_weights_url,
            Activation.id.label("activation_id"),
            ModelVersion.number,
            ModelVersion.provider_version,
            ModelVersion.weights_url,
            ModelVersion.weights_state,
        )
        .select_from(UserModel)
        .outerjoin(Activation, (Activation.model_id == UserModel.id) & Activation.active_to.is_(None))
        .outerjoin(ModelVersion, ModelVersion.id == Activation.version_id)
        .where(
            or_(UserModel.replicate_version_id.is_not(None), Activation.id.is_not(None)),
            or_(ModelVersion.id.is_(None), ModelVersion.provider == "replicate"),
        )
        .order_by(UserModel.id)
    )
    return session.execute(question).yield_per(1_000)
