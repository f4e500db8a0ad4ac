"""One look at one training: what the provider says and, where weights are left in our bucket, what lies there.

Such a provider's word proves neither success nor failure: a job can be done without its object, its result is
forgotten after half an hour, and one that was cut off may have left its weights. The object decides.
"""

from __future__ import annotations

from dataclasses import replace

from lora_pipeline.providers.protocol import (
    JobState,
    LeavesWeightsInBucket,
    NotFound,
    TrainingJob,
    TrainingProvider,
)

_OBJECT_DECIDES = (JobState.SUCCEEDED, JobState.FAILED)


def look_at_training(provider: TrainingProvider, job_id: str, token: str, destination: str) -> TrainingJob:
    """The job `job_id` of the run with this token as it stands now, with its logs where there are any.

    Raises NotFound where the provider does not show it and no weights of it lie in our bucket.
    """
    if not isinstance(provider, LeavesWeightsInBucket):
        return provider.get_training(job_id)
    try:
        job = provider.get_training(job_id)
    except NotFound:
        found = provider.find_training(token, destination)
        if found is None:
            raise
        return replace(found, id=job_id)
    return judged_by_object(provider, job, token, destination)


def judged_by_object(
    provider: LeavesWeightsInBucket, job: TrainingJob, token: str, destination: str
) -> TrainingJob:
    """What a job amounts to that the provider has just shown, once the bucket is asked too where that decides."""
    if job.state not in _OBJECT_DECIDES:
        return job
    found = provider.find_training(token, destination)
    if found is None:
        return job
    return replace(job, state=JobState.SUCCEEDED, output_weights=found.output_weights, error=None)
