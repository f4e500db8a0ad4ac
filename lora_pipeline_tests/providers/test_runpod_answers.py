"""Reading RunPod's JSON: whatever arrives, the outcome is a record or a named problem, and only the status decides."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_pipeline.providers.protocol import JobState, TrainingJob
from lora_pipeline.providers.runpod_answers import MalformedJob, parse_job

JOB = "60902e6c-08a1-426e-9cb9-9eaec90f5e2b-u1"
TIMEOUT = timedelta(hours=3)
RECORDED = {
    "delayTime": 31618,
    "executionTime": 1437,
    "id": JOB,
    "output": {
        "job_id": "req-7",
        "loraName": "style_1_vV7",
        "loraUrl": "https://b.s3-accelerate.amazonaws.com/k/style_1_vV7.safetensors",
        "status": "success",
        "training_type": "style",
        "model_info": {"download_url": "https://b.s3.amazonaws.com/k?X-Amz-Signature=s", "size_bytes": 5},
    },
    "status": "COMPLETED",
}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def parsed(**changes: object) -> TrainingJob:
    return parse_job({"id": JOB, "status": "COMPLETED"} | changes, TIMEOUT)


def test_a_recorded_answer_is_read() -> None:
    job = parse_job(RECORDED, TIMEOUT)
    assert (job.id, job.state, job.mark) == (JOB, JobState.SUCCEEDED, "req-7")
    assert (job.predict_seconds, job.output_weights, job.error) == (1.437, None, None)


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("IN_QUEUE", JobState.QUEUED),
        ("IN_PROGRESS", JobState.RUNNING),
        ("RUNNING", JobState.RUNNING),
        ("COMPLETED", JobState.SUCCEEDED),
        ("FAILED", JobState.FAILED),
        ("CANCELLED", JobState.CANCELED),
        ("TIMED_OUT", JobState.FAILED),
        ("completed", JobState.UNKNOWN),
        ("", JobState.UNKNOWN),
    ],
)
def test_every_status_word_has_one_meaning(word: str, state: JobState) -> None:
    assert parsed(status=word).state is state


@given(st.sampled_from(["IN_QUEUE", "IN_PROGRESS", "RUNNING", "CANCELLED", "NEW_WORD"]), json_values)
def test_output_never_decides_before_the_end(word: str, output: object) -> None:
    assert parsed(status=word, output=output).state is parsed(status=word).state


@given(json_values)
def test_only_plain_words_of_failure_turn_a_completed_job_into_a_failed_one(output: object) -> None:
    state = parsed(output=output).state
    said_so = isinstance(output, dict) and (
        output.get("ok") is False or str(output.get("status")).lower() in ("error", "failed", "failure")
    )
    assert state is (JobState.FAILED if said_so else JobState.SUCCEEDED)


@given(json_values)
def test_nothing_but_a_named_problem_is_raised(raw: object) -> None:
    for item in (
        raw,
        {"id": JOB, "status": raw},
        {"id": raw, "status": "FAILED"},
        {"id": JOB, "status": "FAILED", "error": raw},
    ):
        try:
            parse_job(item, TIMEOUT)
        except MalformedJob:
            continue


def error_of(error: object) -> str | None:
    return parsed(status="FAILED", error=error).error


def test_a_handler_s_exception_is_reduced_to_type_and_message() -> None:
    told = {
        "error_type": "<class 'botocore.exceptions.ClientError'>",
        "error_message": "could not get https://b.example/x.zip?X-Amz-Signature=swordfish\n",
        "error_traceback": "Traceback … /root/.secrets",
        "hostname": "pod-1",
    }
    expected = "ClientError: could not get https://b.example/x.zip?***"
    assert error_of(json.dumps(told)) == error_of(told) == expected


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (None, None),
        ("", None),
        ("worker exited with code 137", "worker exited with code 137"),
        ('{"error_type": "ValueError"}', "ValueError"),
        ('{"error_message": "bad zip"}', "bad zip"),
        ('{"message": "bad zip"}', "bad zip"),
        ("{}", "the worker failed, and did not say why"),
        ('"a JSON text"', '"a JSON text"'),
        ('{"error_type": "ValueErr', '{"error_type": "ValueErr'),
        (["a"], "an error that is a list"),
        (7, "an error that is a number"),
        ("x" * 600, "x" * 500 + "…"),
        ("[" * 100_000, "[" * 500 + "…"),
    ],
)
def test_an_error_becomes_one_line(error: object, text: str | None) -> None:
    assert error_of(error) == text


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ({"ok": False}, "the worker says that it failed, and not why"),
        ({"ok": False, "error": "out of memory"}, "out of memory"),
        ({"status": "FAILED", "message": "no images"}, "no images"),
        ({"status": "error", "error": {"error_type": "OSError", "error_message": "disk"}}, "OSError: disk"),
    ],
)
def test_a_failure_told_in_the_output_brings_its_reason(output: object, reason: str) -> None:
    assert parsed(output=output).error == reason


def test_a_timeout_says_how_long_it_ran_and_what_was_allowed() -> None:
    assert parsed(status="TIMED_OUT", executionTime=600_000).error == (
        "timed out after 600 s (executionTimeout 10800 s, set by LORA_RUNPOD_EXECUTION_TIMEOUT)"
    )
    assert (parsed(status="TIMED_OUT", error="job timed out").error or "").endswith(": job timed out")


@pytest.mark.parametrize(
    ("raw", "mark"),
    [
        ({"output": {"job_id": "t1"}, "input": {"job_id": "t2"}}, "t1"),
        ({"input": {"job_id": "t2"}}, "t2"),
        ({"output": {"job_id": 5}}, None),
        ({"output": {"job_id": "x" * 300}}, None),
        ({"output": "text", "input": []}, None),
    ],
)
def test_our_mark_is_read_where_it_is_echoed(raw: dict[str, object], mark: str | None) -> None:
    assert parsed(**raw).mark == mark
