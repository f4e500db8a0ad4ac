"""What the inventory found and nothing names becomes a version because a person says whose it is."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lora_pipeline.cli.exits import Exit
from lora_pipeline.database.tables import (
    Activation,
    AuditEntry,
    InventoryObject,
    ModelVersion,
    UserModel,
    VersionAlias,
)
from lora_pipeline.image_sets.models import ModelDescription, ensure_model
from lora_pipeline.inventory.named_objects import RegistrationRefused
from lora_pipeline.inventory.registering import (
    Registered,
    header_parameters,
    register_found,
)
from lora_pipeline.lineage.finding import find
from lora_pipeline.lineage.rows import Scope
from lora_pipeline.versions.lookup import ModelNotFound
from lora_pipeline_tests.cli.conftest import Run
from lora_pipeline_tests.inventory.buckets import TestBucket, lora
from lora_pipeline_tests.versions.registered import add_version

KEY = "actor_maker_user/custom-styles-models/style_1_vV7.safetensors"
JOB = "3e248bb6-012c-4384-ae6c-4b19c126d093-e1"
STYLE = ModelDescription(model_type="style")
HEADER = {
    "ss_network_dim": "16",
    "ss_network_alpha": "8.0",
    "ss_learning_rate": "0.0001",
    "ss_optimizer": "adamw8bit",
    "ss_lr_warmup_steps": "None",
    "ss_tag_frequency": "a photo of somebody",
}


def register(bucket: TestBucket, *addresses: str, model: str = "style_1", **options: Any) -> list[Registered]:
    given: dict[str, Any] = {"described": STYLE, "actor": "cli:ops"} | options
    return register_found(bucket.connections, model, addresses, **given)


def versions(bucket: TestBucket) -> list[ModelVersion]:
    with bucket.database.read() as session:
        return session.query(ModelVersion).order_by(ModelVersion.number).all()


def names(bucket: TestBucket) -> set[tuple[str, str]]:
    with bucket.database.read() as session:
        return {(alias.kind, alias.alias) for alias in session.query(VersionAlias)}


def test_an_unregistered_lora_becomes_a_verified_version_that_nobody_is_served(
    bucket_on_each: TestBucket,
) -> None:
    bucket = bucket_on_each
    address = bucket.put(KEY, lora(1, **HEADER))
    bucket.take()
    (asked,) = bucket.reviews()

    assert register(bucket, address) == [Registered(address, "V7", "style_1", new=True)]

    (version,) = versions(bucket)
    assert (version.number, version.weights_url, version.weights_state) == (7, address, "verified")
    assert version.parameters == {
        "network_dim": 16,
        "network_alpha": 8.0,
        "learning_rate": 0.0001,
        "optimizer_type": "adamw8bit",
    }
    assert version.provenance["parameters"] == "the file's header"
    assert version.trained_at == bucket.row(KEY).modified
    assert names(bucket) == {("object", address)}
    assert (bucket.standing(KEY), bucket.row(KEY).version_id) == ("attached", version.id)
    (settled,) = bucket.reviews()
    assert (asked.resolved_at, settled.resolved_at is None) == (None, False)
    with bucket.database.read() as session:
        assert session.query(Activation).count() == 0
        said = session.query(AuditEntry).filter_by(action="register").one()
        assert (said.actor, said.subject, said.details["version"]) == ("cli:ops", "style_1", 7)
        model = session.query(UserModel).one()
    assert (version.trigger_word, model.lora_weights_url) == (model.trigger_word, None)


def test_a_second_time_changes_nothing(bucket: TestBucket) -> None:
    address = bucket.put(KEY, lora(1))
    bucket.take()
    register(bucket, address)
    spelled = f"https://{bucket.name}.s3-accelerate.amazonaws.com/{KEY}"
    assert register(bucket, address, spelled) == [Registered(address, "V7", "style_1", new=False)] * 2
    assert len(versions(bucket)) == 1
    assert not bucket.take().has_findings


def test_a_number_that_is_taken_or_not_told_is_the_next_one(bucket: TestBucket) -> None:
    add_version(bucket.database, "style_1", 7, serve=False)
    checkpoint = bucket.put("styles/style_91_4000.safetensors", lora(2))
    same = bucket.put("elsewhere/style_1_vV7.safetensors", lora(3))
    bucket.take()
    assert [one.version for one in register(bucket, checkpoint, same, described=None)] == ["V8", "V9"]


def test_the_job_in_the_metadata_and_the_given_trigger_word_are_the_versions(bucket: TestBucket) -> None:
    address = bucket.put(KEY, lora(1), {"runpod_job_id": JOB})
    bucket.take()
    register(bucket, address, trigger_word="inkstyle")
    (version,) = versions(bucket)
    assert (version.trigger_word, version.provider) == ("inkstyle", "runpod")
    with bucket.database.read() as session:
        assert session.query(UserModel).one().trigger_word == "inkstyle", "a retrain goes on with it"
    assert ("training_id", f"runpod:{JOB}") in names(bucket)


def test_a_folder_that_was_renamed_is_found_by_both_of_its_names(bucket: TestBucket) -> None:
    bucket.connections.settings.prefix_renames = f"{bucket.name}/styles_maker_user=actor_maker_user"
    address = bucket.put(KEY, lora(1))
    bucket.take()
    before = address.replace("actor_maker_user", "styles_maker_user")
    assert register(bucket, before) == [Registered(address, "V7", "style_1", new=True)]


def test_all_of_them_are_registered_or_none_and_no_model_is_left_behind(bucket: TestBucket) -> None:
    good = bucket.put("style_1_vV1.safetensors", lora(1))
    broken = bucket.put("style_1_vV2.safetensors", lora(2)[:-1])
    bucket.take()
    with pytest.raises(RegistrationRefused, match="it is refused: "):
        register(bucket, good, broken)
    assert versions(bucket) == []
    assert bucket.standing("style_1_vV1.safetensors") == "unregistered"
    with bucket.database.read() as session:
        assert session.query(UserModel).count() == 0
        assert session.query(AuditEntry).filter_by(action="register").count() == 0


def test_one_lora_is_no_second_models_version(bucket: TestBucket) -> None:
    first, copy = bucket.put(KEY, lora(1)), bucket.put("copy.safetensors", lora(1))
    bucket.take()
    register(bucket, first)
    assert register(bucket, copy) == [Registered(copy, "V7", "style_1", new=False)]
    with pytest.raises(
        RegistrationRefused, match=r"V7 of style_1 has this content\. One LoRA is one version"
    ):
        register(bucket, copy, model="style_2")
    assert len(versions(bucket)) == 1


def test_what_is_doubtful_stays_with_a_person(bucket: TestBucket) -> None:
    version = add_version(
        bucket.database, "style_1", 1, serve=False, provider="runpod", provider_version=None
    )
    with bucket.database.begin() as session:
        own = session.query(VersionAlias).filter_by(version_id=version, kind="training_id").one()
        own.alias = f"runpod:{JOB}"
    address = bucket.put(KEY, lora(1), {"runpod_job_id": JOB.replace("-e1", "-e2")})
    bucket.take()
    with pytest.raises(RegistrationRefused, match=r"it is doubtful: .*different suffixes"):
        register(bucket, address, described=None)


def test_a_file_that_was_not_read_yet_waits_for_the_inventory(bucket: TestBucket) -> None:
    address = bucket.put(KEY, lora(1))
    bucket.take()
    with bucket.database.begin() as session:
        row = session.query(InventoryObject).one()
        row.state, row.artifact_id, row.reason = "waiting", None, ""
    with pytest.raises(RegistrationRefused, match="inventory --apply"):
        register(bucket, address)


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("s3://another-bucket/x.safetensors", "the inventory knows no LoRA file at"),
        ("style_1_vV7.safetensors", "Expected s3://"),
        ("https://cdn.example.com/style_1_vV7.safetensors", "the inventory knows no LoRA file at"),
    ],
)
def test_what_is_no_file_of_the_inventory_is_refused(bucket: TestBucket, address: str, told: str) -> None:
    with pytest.raises(RegistrationRefused, match=told):
        register(bucket, address)


def test_a_model_is_made_only_where_it_is_described(bucket: TestBucket) -> None:
    address = bucket.put(KEY, lora(1))
    bucket.take()
    with pytest.raises(ModelNotFound):
        register(bucket, address, described=None)
    assert versions(bucket) == []


@pytest.mark.parametrize("word", ["", "  ", "x" * 65])
def test_a_trigger_word_that_cannot_be_one_is_refused(bucket: TestBucket, word: str) -> None:
    with pytest.raises(RegistrationRefused, match="expected 1 to 64"):
        register(bucket, "s3://b/x.safetensors", trigger_word=word)


def test_a_header_tells_numbers_and_words_and_nothing_else_of_itself() -> None:
    assert header_parameters({"ss_max_train_steps": "1000", "ss_lr_scheduler": "cosine"} | HEADER) == {
        "network_dim": 16,
        "network_alpha": 8.0,
        "learning_rate": 0.0001,
        "max_train_steps": 1000,
        "lr_scheduler": "cosine",
        "optimizer_type": "adamw8bit",
    }
    assert header_parameters({"ss_network_dim": "true", "ss_learning_rate": "NaN"}) == {
        "network_dim": "true",
        "learning_rate": "NaN",
    }


def test_the_inventory_names_the_command_and_the_command_registers(
    bucket: TestBucket, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = bucket.put(KEY, lora(1))
    monkeypatch.setenv("LORA_INVENTORY", f"s3://{bucket.name}")
    monkeypatch.setenv("DATABASE_URL", bucket.database.url.render_as_string(hide_password=False))
    taken = run("inventory", "--apply")
    assert (taken.code, "lora-pipeline register OBJECT --model MODEL" in taken.out) == (Exit.DRIFT, True)

    assert run("register", address, "--model", "style_1").code == Exit.WRONG_USE
    assert run("register", address, "--model", "style_1", "--user", "u").code == Exit.WRONG_USE
    done = run("register", address, "--model", "style_1", "--type", "style")
    assert (done.code, "lora-pipeline activate style_1 V7" in done.out) == (Exit.FINE, True)
    again = run("register", address, "--model", "style_1", "--json")
    assert again.json["versions"] == [{"object": address, "version": "V7", "model": "style_1", "new": False}]
    assert run("register", "s3://x/y.safetensors", "--model", "style_1").code == Exit.REFUSED

    why = run("why", "style_1", "--json").json
    assert why["detail"] == "it serves none of its versions; the newest is V7"
    assert why["next"] == "lora-pipeline activate style_1 V7"
    assert run("activate", "style_1", "V7").code == Exit.FINE
    assert KEY in run("resolve", "style_1", "--json").json["weights_url"]
    assert run("inventory").code == Exit.FINE


def test_in_a_bucket_that_keeps_versions_the_address_that_is_shown_registers(bucket: TestBucket) -> None:
    bucket.keep_versions()
    bucket.put(KEY, lora(1))
    odd = bucket.put("mit leer +ü?versionId=x.safetensors", lora(2))
    shown = [one.address for one in bucket.take().notable]
    assert all("?versionId=" in address for address in shown)
    assert {one.object for one in register(bucket, *shown)} == set(shown)
    assert register(bucket, odd)[0].new is False


@pytest.mark.parametrize(
    "spelling",
    ["s3://{bucket}/{key}?versionId={old}", "https://{bucket}.s3.amazonaws.com/{key}?versionId={old}"],
)
def test_an_older_object_version_is_not_taken_for_what_its_key_leads_to(
    bucket: TestBucket, spelling: str
) -> None:
    bucket.keep_versions()
    bucket.put(KEY, lora(1))
    bucket.put(KEY, lora(2))
    bucket.take()
    older = spelling.format(bucket=bucket.name, key=KEY, old=bucket.versions[KEY][0])
    with pytest.raises(RegistrationRefused, match="names another object version than"):
        register(bucket, older)
    assert versions(bucket) == []


def test_what_contradicts_another_file_of_the_same_command_is_refused_as_if_it_came_later(
    bucket: TestBucket,
) -> None:
    first = bucket.put("style_1_vV1.safetensors", lora(1), {"runpod_job_id": JOB})
    second = bucket.put("style_1_vV2.safetensors", lora(2), {"runpod_job_id": JOB})
    bucket.take()
    with pytest.raises(
        RegistrationRefused, match=r"style_1_vV2\.safetensors cannot be registered; it is doubtful"
    ):
        register(bucket, first, second)


def test_two_commands_with_the_same_files_in_another_order_do_not_wait_for_each_other(
    bucket_on_each: TestBucket,
) -> None:
    bucket = bucket_on_each
    addresses = [bucket.put(f"style_1_vV{number}.safetensors", lora(number)) for number in range(1, 31)]
    bucket.take()
    register(bucket, addresses[0])
    with ThreadPoolExecutor(2) as pool:
        orders = (addresses, addresses[::-1])
        done = list(pool.map(lambda order: register(bucket, *order), orders))
    assert sorted(one.new for some in done for one in some) == [False] * 31 + [True] * 29
    assert [version.number for version in versions(bucket)] == list(range(1, 31))


def test_copies_of_a_registered_lora_are_its_places_at_once(bucket: TestBucket) -> None:
    first, copy = bucket.put(KEY, lora(1)), bucket.put("copy.safetensors", lora(1))
    bucket.take()
    register(bucket, first)
    assert set(bucket.standings().values()) == {"attached"}
    assert {("object", first), ("object", copy)} == names(bucket)
    assert [review.resolved_at is None for review in bucket.reviews()] == [False]


def test_with_a_type_only_the_models_own_key_is_meant(bucket: TestBucket) -> None:
    address = bucket.put(KEY, lora(1))
    bucket.take()
    with bucket.database.begin() as session:
        described = ModelDescription(model_type="person", user_id="ada")
        ensure_model(session, "ada-portrait", described, bucket.connections.now())
    (one,) = register(bucket, address, model="ada", described=ModelDescription(user_id="ada"))
    assert one.model == "ada"


@pytest.mark.parametrize(
    "described",
    [ModelDescription(model_type="style"), ModelDescription(model_type="person", user_id="somebody-else")],
)
def test_a_model_that_is_otherwise_than_described_gets_nothing(
    bucket: TestBucket, described: ModelDescription
) -> None:
    address = bucket.put(KEY, lora(1))
    bucket.take()
    with bucket.database.begin() as session:
        ensure_model(session, "ada", ModelDescription(model_type="person"), bucket.connections.now())
    with pytest.raises(RegistrationRefused, match="'ada' is there already"):
        register(bucket, address, model="ada", described=described)
    assert versions(bucket) == []


def test_a_trigger_word_is_one_line(bucket: TestBucket) -> None:
    with pytest.raises(RegistrationRefused, match="control characters"):
        register(bucket, "s3://b/x.safetensors", trigger_word="two\nlines")


def test_lineage_takes_the_address_that_the_inventory_shows(bucket: TestBucket) -> None:
    bucket.keep_versions()
    bucket.put(KEY, lora(1))
    bucket.put(KEY, lora(2))
    (shown,) = [one.address for one in bucket.take().notable]
    register(bucket, shown)
    older = shown.replace(bucket.versions[KEY][1], bucket.versions[KEY][0])
    with bucket.database.read() as session:
        (current,), (before,) = (find(session, text, Scope()).nodes for text in (shown, older))
    assert current.endswith(f"@{bucket.versions[KEY][1]}")
    assert before.endswith(f"@{bucket.versions[KEY][0]}")
    (again,) = register(bucket, current.removeprefix("object:"))
    assert (again.object, again.new) == (shown, False)
