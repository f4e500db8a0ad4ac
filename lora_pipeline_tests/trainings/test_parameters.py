"""Parameters of a training: the documented defaults, versioned policies, and a check that says everything at once."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_pipeline.providers.replicate_answers import training_input_schema
from lora_pipeline.providers.secrets import REDACTED
from lora_pipeline.simulator.trainers import FAST_TRAINER, FLUX_TRAINER, invalid_fields, openapi_schema
from lora_pipeline.trainings.parameters import (
    DEFAULT_POLICY,
    POLICIES,
    ParametersRefused,
    TrainingParameters,
    training_parameters,
    validate_parameters,
)


def schema_of(trainer: str) -> dict[str, Any]:
    schema = training_input_schema({"openapi_schema": openapi_schema(trainer)})
    assert schema is not None
    return schema


FLUX = schema_of(FLUX_TRAINER)
FAST = schema_of(FAST_TRAINER)
WITH_REPEATS = {
    **FLUX,
    "properties": {**FLUX["properties"], "num_repeats": {"type": "integer", "minimum": 1}},
}


def chosen(
    policy: str = DEFAULT_POLICY,
    images: int = 12,
    model_type: str = "person",
    schema: dict[str, Any] = FLUX,
    **overrides: Any,
) -> TrainingParameters:
    return training_parameters(
        policy,
        image_count=images,
        trigger_word="user42585527",
        model_type=model_type,
        overrides=overrides,
        schema=schema,
    )


def test_the_default_policy_gives_the_documented_parameters() -> None:
    parameters = chosen()

    assert parameters.values == {
        "steps": 1000,
        "lora_rank": 16,
        "optimizer": "adamw8bit",
        "batch_size": 1,
        "resolution": "512,768,1024",
        "autocaption": True,
        "learning_rate": 0.0004,
        "trigger_word": "user42585527",
        "autocaption_prefix": "a photo of user42585527, ",
    }
    assert (parameters.policy, parameters.steps) == ("default/1", 1000)


def test_repeats_are_sent_only_to_trainers_that_have_them() -> None:
    assert chosen(schema=WITH_REPEATS).values["num_repeats"] == 10
    assert "num_repeats" not in chosen().values


@pytest.mark.parametrize(
    ("images", "rank", "steps", "rate"),
    [
        (5, 32, 1200, 4e-4),
        (9, 32, 1200, 4e-4),
        (10, 40, 1200, 4e-4),
        (14, 40, 1200, 4e-4),
        (15, 48, 1400, 8e-5),
        (30, 48, 1400, 8e-5),
    ],
)
def test_the_adaptive_policy_goes_by_the_number_of_images(
    images: int, rank: int, steps: int, rate: float
) -> None:
    parameters = chosen("adaptive/1", images)

    assert parameters.policy == "adaptive/1"
    assert (parameters.values["lora_rank"], parameters.steps, parameters.values["learning_rate"]) == (
        rank,
        steps,
        rate,
    )


def test_another_trainer_gets_its_own_names() -> None:
    assert chosen(schema=FAST, model_type="style").values == {
        "trigger_word": "user42585527",
        "training_steps": 1000,
        "lora_type": "style",
    }
    assert chosen(schema=FAST).values["lora_type"] == "subject"
    assert chosen(schema=FAST, training_steps=500).steps == 500


def test_a_style_is_captioned_as_a_style() -> None:
    assert chosen(model_type="style").values["autocaption_prefix"] == "in the style of user42585527, "


def test_an_override_wins_over_the_policy() -> None:
    parameters = chosen("adaptive/1", steps=2000, caption_dropout_rate=0.1)

    assert parameters.steps == 2000
    assert parameters.values["caption_dropout_rate"] == 0.1
    assert parameters.values["lora_rank"] == 40


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(ParametersRefused) as caught:
        chosen(
            steps=9000,
            learnig_rate=0.1,
            lora_rank="16",
            batch_size=1.5,
            autocaption=1,
            caption_dropout_rate=float("nan"),
            hf_token="hf_secretsecret",
            trigger_word="other",
            input_images="https://x/?sig=1",
        )

    told = str(caught.value).splitlines()
    assert sorted(problem.name for problem in caught.value.problems) == [
        "autocaption",
        "batch_size",
        "caption_dropout_rate",
        "hf_token",
        "input_images",
        "learnig_rate",
        "lora_rank",
        "steps",
        "trigger_word",
    ]
    assert "steps: got 9000, expected a whole number from 3 to 6000; choose a value in that range" in told
    assert (
        "learnig_rate: got 0.1, expected a parameter that this trainer has; did you mean learning_rate?"
        in told
    )
    assert "lora_rank: got '16', expected a whole number from 1 to 128; write it without quotes" in told
    assert "autocaption: got 1, expected true or false; give a value of that type" in told
    assert "secretsecret" not in str(caught.value)


def test_a_choice_that_is_not_offered_is_told_with_the_choices() -> None:
    with pytest.raises(ParametersRefused, match="expected one of subject, style; did you mean subject"):
        chosen(schema=FAST, lora_type="subjects")


def test_an_unknown_policy_is_told_with_the_known_ones() -> None:
    with pytest.raises(ParametersRefused, match="got 'adaptive/9', expected default/1 or adaptive/1"):
        chosen("adaptive/9")


def test_a_value_taken_from_a_redacted_record_is_not_sent() -> None:
    (problem,) = validate_parameters({"hf_repo_id": REDACTED}, FLUX)
    assert "removed from a stored record" in str(problem)


def test_what_is_required_must_be_there_but_for_the_dataset() -> None:
    assert validate_parameters({}, FLUX) == []
    assert [problem.name for problem in validate_parameters({}, FAST)] == ["trigger_word"]


@pytest.mark.parametrize("schema", [{}, {"properties": {}}, {"properties": None}])
def test_a_trainer_without_inputs_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(ParametersRefused, match="LORA_TRAINER"):
        chosen(schema=schema)


@given(
    images=st.integers(0, 1000),
    policy=st.sampled_from(sorted(POLICIES)),
    schema=st.sampled_from([FLUX, FAST]),
)
def test_no_policy_chooses_what_its_trainer_refuses(images: int, policy: str, schema: dict[str, Any]) -> None:
    values = chosen(policy, images, schema=schema).values
    assert validate_parameters(values, schema) == []


@given(
    parameters=st.dictionaries(
        st.sampled_from(sorted(FLUX["properties"])).filter(lambda name: name != "input_images"),
        st.integers(-10, 10**400)
        | st.floats()
        | st.booleans()
        | st.text(max_size=5)
        | st.none()
        | st.just([]),
        max_size=4,
    )
)
def test_what_passes_the_check_is_taken_by_the_trainer(parameters: dict[str, Any]) -> None:
    problems = validate_parameters(parameters, FLUX)
    if not problems:
        sent = {"input_images": "https://store.example/x.zip", **parameters}
        assert invalid_fields(FLUX_TRAINER, sent, refuse_unknown=True) == []
    assert {problem.name for problem in problems} <= set(parameters)
