"""Whatever somebody holds in their hand leads to where it came from and what became of it, on both databases."""

from __future__ import annotations

import re

import pytest

from lora_pipeline.database.tables import Artifact, ImageSet, ModelVersion
from lora_pipeline.identity import parse_version
from lora_pipeline.lineage.graph import Kind
from lora_pipeline.lineage.meanings import AmbiguousId, LineageNotFound
from lora_pipeline_tests.inventory.trees import SPELLINGS, SYNCED_ENTRY, WEBHOOK_ENTRY
from lora_pipeline_tests.lineage.conftest import FAILED_JOB, KEY, OTHER, STYLE, UNTRAINED, Story

V1, V2, OTHERS, STYLES = f"{KEY} V1", f"{KEY} V2", f"{OTHER} V1", f"{STYLE} V7"


def version_row(story: Story, number: int = 1) -> ModelVersion:
    run = story.run(number)
    found: ModelVersion = story.row(ModelVersion, training_run_id=run.id)
    return found


def test_a_photograph_in_two_sets_and_of_two_users_tells_every_version_that_was_trained_with_it(
    story: Story,
) -> None:
    shared, early, late = story.photographs[0], story.photographs[1], story.photographs[5]
    assert story.versions(shared) == [V1, V2, OTHERS]
    assert story.versions(early) == [V1, V2]
    assert story.versions(late) == [V2]
    assert (
        story.versions(late[:12]) == story.versions(late.upper()) == story.versions(f"sha256:{late}") == [V2]
    )

    answer = story.trace(shared)
    assert [node.label for node in answer.lineage.versions if node.facts["live"]] == [V2, OTHERS]
    assert answer.about_photographs
    for node in answer.lineage.versions:
        (address,) = node.facts["weights_at"]
        assert story.connections.store.key_of(address) is not None


def test_what_a_photograph_was_normalised_to_leads_to_it(story: Story) -> None:
    image = story.image(story.photographs[4])
    assert image.normalised_sha256 not in (None, image.sha256)
    by_normalised = story.trace(str(image.normalised_sha256))
    assert by_normalised.starts == story.trace(image.sha256).starts
    for key in (image.object_key, image.normalised_key):
        address = story.connections.store.address(str(key))
        assert story.trace(address).starts == by_normalised.starts, address


def test_a_photograph_that_was_left_out_lies_in_its_set_and_was_not_trained_on(story: Story) -> None:
    answer = story.trace(story.left_out)
    assert answer.lineage.versions == []
    (edge,) = answer.left_out
    assert edge.facts["verdict"] == "excluded"
    assert edge.facts["reasons"]
    assert [node.kind for node in answer.lineage.nodes.values()] == [Kind.IMAGE, Kind.SET]
    (left_out,) = answer.as_json()["left_out_of"]
    assert left_out["image_set"] == edge.target

    photographs = {node.facts["sha256"] for node in story.trace(f"{KEY}:V1").lineage.of_kind(Kind.IMAGE)}
    assert photographs == set(story.photographs[:5]), "no version was made from it"
    in_set = {node.facts["sha256"] for node in story.trace(edge.target).lineage.of_kind(Kind.IMAGE)}
    assert in_set == {*photographs, story.left_out}, "but its set shows it"


def test_every_id_of_one_training_leads_to_its_version(story: Story) -> None:
    run, version = story.run(1), version_row(story)
    artifact: Artifact = story.row(Artifact, id=version.artifact_id)
    image_set: ImageSet = story.row(ImageSet, id=run.image_set_id)
    assert version.provider_version is not None
    ref = parse_version(version.provider_version)
    ids = {
        "the set": f"set:{image_set.id}",
        "its digest": image_set.digest,
        "the address of its manifest": story.connections.store.address(str(image_set.manifest_key)),
        "the ZIP": run.zip_sha256,
        "the ZIP's address, though it is deleted": story.connections.store.address(str(run.zip_key)),
        "the training": f"run:{run.id}",
        "its token": run.token,
        "its job": run.training_id,
        "its job with its provider": f"replicate:{run.training_id}",
        "what the provider delivered": run.output_artifact_url,
        "the weights file": artifact.file_sha256,
        "its first digits": artifact.file_sha256[:14],
        "AutoV2": artifact.autov2.upper(),
        "AutoV3": artifact.autov3,
        "AutoV3 as pages show it": artifact.autov3[:12],
        "the content key": artifact.content_key,
        "where it lies": version.weights_url,
        "the version": f"version:{version.id}",
        "its provider version": str(ref),
        "the bare hash": ref.hash,
        "model:hash": f"{ref.name}:{ref.hash.upper()}",
        "its page": ref.page_url,
        "its number": f"{KEY}:V1",
        "its number otherwise": f"{KEY} v1",
        "its file's name": f"{KEY}_vV1.safetensors",
    }
    for what, text in ids.items():
        assert story.versions(str(text)) == [V1], what
    nodes = story.trace(str(run.token)).lineage.nodes
    for text in nodes:
        assert text in story.trace(text).starts, "every node's id can be asked for"


def test_an_external_id_leads_to_its_set(story: Story) -> None:
    with story.connections.database.begin() as session:
        session.get_one(ImageSet, story.run(2).image_set_id).external_id = "selection 7"
    assert story.versions("selection 7") == [V2]


def test_a_retrained_model_shows_both_versions_and_when_each_was_live(story: Story) -> None:
    answer = story.trace(KEY)
    assert [node.label for node in answer.lineage.versions] == [V2, V1]
    first, second = (answer.lineage.nodes[f"version:{version_row(story, number).id}"] for number in (1, 2))
    assert first.facts["served"][0]["to"] == second.facts["served"][0]["from"]
    assert (first.facts["live"], second.facts["live"]) == (False, True)
    assert {node.facts["sha256"] for node in answer.lineage.of_kind(Kind.IMAGE)} == {
        *story.photographs,
        story.left_out,
    }
    assert story.versions(f"user:{story.run(1).user_id}") == [V1, V2]
    assert story.versions("acme/user-50c-selfie-lora") == [V1, V2]


def test_a_set_that_was_never_trained_on_made_nothing(story: Story) -> None:
    answer = story.trace(UNTRAINED)
    kinds = [node.kind for node in answer.lineage.nodes.values()]
    assert kinds.count(Kind.IMAGE) == 5
    assert set(kinds) == {Kind.IMAGE, Kind.SET, Kind.MODEL}
    (image_set,) = answer.lineage.of_kind(Kind.SET)
    assert story.trace(image_set.id).lineage.versions == []


def test_imported_entries_lead_to_the_one_version_that_they_are(story: Story) -> None:
    key = str(WEBHOOK_ENTRY["loraUrl"]).partition(".com/")[2]
    addresses = [one.format(bucket="storyboard-user-files", key=key) for one in SPELLINGS]
    job = str(WEBHOOK_ENTRY["id"])
    for text in (job, f"runpod:{job}", SYNCED_ENTRY["id"], f"{STYLE} V7", f"{STYLE}:7", *addresses):
        assert story.versions(text) == [STYLES], text
    assert story.versions(job.removesuffix("-e1")) == [STYLES], "one side may have lost the suffix"
    assert story.versions(f"sync-{job.upper()[:36]}") == [STYLES]
    with pytest.raises(LineageNotFound):
        story.trace(addresses[0].replace("style_1", "style_2"))
    before = addresses[0].replace("/actor_maker_user/", "/styles_maker_user/")
    with pytest.raises(LineageNotFound):
        story.trace(before)
    story.connections.settings.prefix_renames = "storyboard-user-files/styles_maker_user=actor_maker_user"
    assert story.versions(before) == story.versions(addresses[0]) == [STYLES]
    story.connections.settings.prefix_renames = ""
    failed = story.trace(FAILED_JOB)
    assert failed.lineage.versions == []
    assert [node.facts["state"] for node in failed.lineage.of_kind(Kind.RUN)] == ["failed"]


def test_up_tells_what_it_was_made_from_and_down_what_was_made_of_it(story: Story) -> None:
    run = f"run:{story.run(1).id}"
    up, down = story.trace(run, down=False), story.trace(run, up=False)
    assert {node.kind for node in up.lineage.nodes.values()} == {Kind.IMAGE, Kind.SET, Kind.ZIP, Kind.RUN}
    assert {node.kind for node in down.lineage.nodes.values()} == {
        Kind.RUN,
        Kind.VERSION,
        Kind.ARTIFACT,
        Kind.OBJECT,
        Kind.MODEL,
    }


def test_several_things_of_one_name_are_listed_not_guessed(story: Story) -> None:
    with pytest.raises(AmbiguousId) as ambiguous:
        story.trace("1")
    for candidate in ("set:1", "run:1", "version:1"):
        assert f"\n  {candidate}  (" in str(ambiguous.value)
        assert story.trace(candidate).starts == (candidate,)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0" * 64, "64-digit hash"),
        ("abcdef0", "at least 12 digits"),
        ("nobody:V3", "Expected an image's SHA-256"),
        (f"{KEY}:V9", "Expected an image's SHA-256"),
        ("k8sy6bgx31rm80cr2cwbn2bqkw", "a Replicate training id"),
        ("set:999999", "Expected"),
        ("", "Expected"),
        ("ann.secret@example.com", "…@example.com"),
        ("https://b.s3.amazonaws.com/k?X-Amz-Signature=0f1e2d", "(query not shown)"),
        ("x" * 3000, "characters of some other text"),
        ("%_' OR 1=1 --", "Expected"),
    ],
)
def test_an_unknown_id_says_what_it_looks_like(story: Story, text: str, says: str) -> None:
    with pytest.raises(LineageNotFound) as unknown:
        story.trace(text)
    assert says in str(unknown.value)
    for secret in ("ann.secret", "0f1e2d"):
        assert secret not in str(unknown.value)


def test_no_answer_holds_anything_personal(story: Story) -> None:
    told = ""
    for text in (KEY, OTHER, STYLE, story.left_out):
        told += str(story.trace(text).as_json())
    for personal in ("photo 0", "small.jpg", "X-Amz", ".tar", "replicate.delivery"):
        assert personal not in told, personal
    assert not re.search(r"@[a-z]", told), "an e-mail address"
