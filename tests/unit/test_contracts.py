"""The messages of every topic: examples, their JSON Schemas, and what is refused."""

import base64
import hashlib
import json
from pathlib import Path

import jsonschema
import msgspec
import numpy as np
import pytest

from flead.contracts.jsonschema import MESSAGE_OF, main
from flead.contracts.messages import Telemetry
from flead.contracts.schema import feature_schema, input_names
from flead.contracts.topics import LAYOUTS, MESSAGE_BYTES, Topic, dead_letter_topic

REPOSITORY = Path(__file__).parents[2]
SCHEMAS = REPOSITORY / "docs" / "schemas"
EXAMPLES = REPOSITORY / "tests" / "examples"

every_topic = pytest.mark.parametrize("topic", Topic, ids=lambda topic: topic.value)


def example(topic):
    return json.loads((EXAMPLES / f"{topic.value}.json").read_text())


def validator(topic):
    schema = json.loads((SCHEMAS / f"{topic.value}.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@every_topic
def test_example_decodes_and_encodes_to_the_same_document(topic):
    message = msgspec.json.decode(json.dumps(example(topic)), type=MESSAGE_OF[topic])

    assert json.loads(msgspec.json.encode(message)) == example(topic)


@every_topic
def test_example_validates_against_the_published_schema(topic):
    assert list(validator(topic).iter_errors(example(topic))) == []


def test_published_schemas_are_those_of_the_contracts(tmp_path):
    main(tmp_path)

    published = {path.name: path.read_text() for path in SCHEMAS.iterdir()}
    assert published == {path.name: path.read_text() for path in tmp_path.iterdir()}, (
        "run `make schemas`"
    )


def test_models_of_five_thousand_features_fit_into_a_message():
    inputs = len(input_names(range(5_000)))
    weights = (-np.random.default_rng(1).random(inputs)).tolist()
    moments = {"count": weights, "mean": weights, "m2": weights}
    names = [f"feature number {number}" for number in range(5_000)]
    model = {"weights": weights, "feature_names": names, "standardizer": moments}
    update = {"weights": weights, "moments": moments}

    for topic, large in ((Topic.GLOBAL_UPDATES, model), (Topic.LOCAL_UPDATES, update)):
        assert len(msgspec.json.encode(example(topic) | large)) < MESSAGE_BYTES


def test_every_topic_has_a_layout_and_every_input_topic_a_dead_letter_topic():
    assert [layout.name for layout in LAYOUTS] == list(Topic)
    assert dead_letter_topic(Topic.TELEMETRY) == "edge-iiot-stream-dlq"
    with pytest.raises(ValueError, match="anomalies-dlq"):
        dead_letter_topic(Topic.ANOMALIES)


def refused(topic, change):
    """Return the example with `change` applied; `...` as a value removes the field."""
    changed = example(topic) | change
    return {name: value for name, value in changed.items() if value is not ...}


@pytest.mark.parametrize(
    ("topic", "change", "complaint"),
    [
        (Topic.TELEMETRY, {"device_id": ...}, "missing required field `device_id`"),
        (Topic.TELEMETRY, {"device_id": ""}, r"length >= 1 - at `\$.device_id`"),
        (Topic.TELEMETRY, {"device_id": 17}, r"got `int` - at `\$.device_id`"),
        (Topic.TELEMETRY, {"event_time": 1764000000123.5}, r"got `float` - at `\$.event_time`"),
        (Topic.TELEMETRY, {"event_time": -1}, r">= 0 - at `\$.event_time`"),
        (Topic.TELEMETRY, {"features": {"temperature": "high"}}, r"got `str` - at `\$.features"),
        (Topic.TELEMETRY, {"features": {"temperature": True}}, r"got `bool` - at `\$.features"),
        (Topic.TELEMETRY, {"features": [55.31]}, r"got `array` - at `\$.features`"),
        (Topic.TELEMETRY, {"label": 2}, r"Invalid enum value 2 - at `\$.label`"),
        (Topic.TELEMETRY, {"humidity": 0.5}, "unknown field `humidity`"),
        (Topic.TELEMETRY, {"schema_version": 2}, r"value 2 - at `\$.schema_version`"),
        (Topic.LOCAL_UPDATES, {"moments": {"count": []}}, "missing required field `mean`"),
        (Topic.LOCAL_UPDATES, {"closed_by": "hand"}, r"value 'hand' - at `\$.closed_by`"),
        (Topic.LOCAL_UPDATES, {"accuracy": 1.5}, r"<= 1.0 - at `\$.accuracy`"),
        (Topic.GLOBAL_UPDATES, {"version": 0}, r">= 1 - at `\$.version`"),
        (Topic.GLOBAL_UPDATES, {"version": 2**63}, r"<= 9223372036854775807 - at `\$.version`"),
        (Topic.GLOBAL_UPDATES, {"weights": [0.5, None]}, r"got `null` - at `\$.weights"),
        (Topic.GLOBAL_UPDATES, {"weights": [0.5, 1e300]}, r"<= 1e\+100 - at `\$.weights"),
        (Topic.FEEDBACK, {"mean_error": -0.5}, r">= 0.0 - at `\$.mean_error`"),
        (Topic.CONTROL, {"hyperparameters": {"learning_rate": 0.0}}, "learning_rate`"),
        (Topic.CONTROL, {"hyperparameters": {"eta": 0.1}}, "unknown field `eta`"),
        (
            Topic.CONTROL,
            {"trials": [{"trial": "a", "fraction": 0, "hyperparameters": {}}] * 101},
            "length <= 100",
        ),
        (Topic.CONTROL, {"state": "off"}, r"value 'off' - at `\$.state`"),
        (Topic.ANOMALIES, {"probability": 1.5}, r"<= 1.0 - at `\$.probability`"),
        (Topic.TELEMETRY_DLQ, {"reason": "bad luck"}, r"value 'bad luck' - at `\$.reason`"),
    ],
    ids=lambda part: part.value if isinstance(part, Topic) else str(part)[:40],
)
def test_a_bad_message_is_refused_by_the_contract_and_by_the_schema(topic, change, complaint):
    bad = refused(topic, change)

    with pytest.raises(msgspec.ValidationError, match=complaint):
        msgspec.json.decode(json.dumps(bad), type=MESSAGE_OF[topic])
    assert not validator(topic).is_valid(bad)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b'{"device_id":"pump-00017","event_ti', id="half an object"),
        pytest.param(b'{"device_id":"p","event_time":1,"features":{}}' * 2, id="two objects"),
        pytest.param(b'{"device_id":"p","event_time":1,"features":{"t":NaN}}', id="NaN"),
        pytest.param(b'{"device_id":"\xff","event_time":1,"features":{}}', id="not UTF-8"),
    ],
)
def test_what_is_not_one_json_document_is_no_message(text):
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
        msgspec.json.decode(text, type=Telemetry)


@pytest.mark.parametrize("topic", [topic for topic in Topic if topic.value.endswith("-dlq")])
def test_dead_letter_example_describes_its_own_value(topic):
    letter = example(topic)

    value = base64.b64decode(letter["value_prefix"])
    assert letter["topic"] == topic.value.removesuffix("-dlq")
    assert letter["value_bytes"] == len(value)
    assert letter["value_sha256"] == hashlib.sha256(value).hexdigest()


class TestFeatureSchema:
    def test_is_the_sha256_of_the_list_as_compact_json(self):
        # printf '["temperature","vibration"]' | sha256sum
        expected = "caa570749f469546732301a0c5bcfc17ef6c7026ac034ef2d4e021c12638fc4d"

        assert feature_schema(["temperature", "vibration"]) == expected
        assert example(Topic.GLOBAL_UPDATES)["feature_schema"] == expected

    def test_depends_on_the_order(self):
        assert feature_schema(["a", "b"]) != feature_schema(["b", "a"])

    @pytest.mark.parametrize(
        ("features", "complaint"),
        [([], "at least one feature"), (["a", "b", "a"], "listed twice")],
        ids=["empty", "twice"],
    )
    def test_refuses_a_list_that_is_no_schema(self, features, complaint):
        with pytest.raises(ValueError, match=complaint):
            feature_schema(features)


def test_inputs_of_a_feature_come_together_in_the_order_of_the_features():
    assert input_names(["power", "flow"]) == [
        "power.value",
        "power.z_score",
        "power.rolling_mean",
        "power.rolling_std",
        "flow.value",
        "flow.z_score",
        "flow.rolling_mean",
        "flow.rolling_std",
    ]
