//! What the topics' document (docs/asyncapi.yaml, AsyncAPI 3.0) says a message looks like, ready to be compared with one.

use std::collections::BTreeSet;

use jsonschema::Validator;
use serde_json::{Map, Value, json};

const DOCUMENT: &str = include_str!("../../../../docs/asyncapi.yaml");
/// The format's own schema; see the README beside it.
const FORMAT: &str = include_str!("../asyncapi/3.0.0.json");

/// A message of a channel.
pub struct Documented {
    /// The channel's address; `{topic}` stands for any.
    pub address: String,
    /// Channel and message.
    pub name: String,
    headers: Validator,
    payload: Validator,
    header_names: BTreeSet<String>,
    payload_names: BTreeSet<String>,
}

fn document() -> Value {
    serde_norway::from_str(DOCUMENT).unwrap()
}

/// What a reference means.
fn meant<'d>(document: &'d Value, value: &'d Value) -> &'d Value {
    match value["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).expect(reference),
        None => value,
    }
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

/// Every message of every channel.
pub fn messages() -> Vec<Documented> {
    let document = document();
    let mut found = Vec::new();
    for (channel, about) in members(&document["channels"]) {
        for (name, message) in members(&about["messages"]) {
            let message = meant(&document, message);
            let schema = |part: &Value| {
                let schema = json!({ "allOf": [part], "components": document["components"] });
                jsonschema::validator_for(&schema).unwrap()
            };
            found.push(Documented {
                address: about["address"].as_str().unwrap().to_owned(),
                name: format!("{channel}.{name}"),
                headers: schema(&message["headers"]),
                payload: schema(&message["payload"]),
                header_names: names(&document, &message["headers"]),
                payload_names: names(&document, &message["payload"]),
            });
        }
    }
    found
}

/// Every property that a schema has a word for.
fn names(document: &Value, schema: &Value) -> BTreeSet<String> {
    let schema = meant(document, schema);
    let mut found: BTreeSet<String> = members(&schema["properties"]).map(|(name, _)| name.clone()).collect();
    for part in ["allOf", "oneOf"] {
        let parts = schema[part].as_array().into_iter().flatten();
        found.extend(parts.flat_map(|part| names(document, part)));
    }
    found
}

impl Documented {
    /// What a message has that this one has not; nothing: it is one.
    pub fn differences(&self, headers: &Map<String, Value>, payload: &[u8]) -> Vec<String> {
        let mut found = Vec::new();
        let as_value = Value::Object(headers.clone());
        found.extend(self.headers.iter_errors(&as_value).map(|error| format!("header {error}")));
        if self.is_dead_letter() {
            return found;
        }
        found.extend(headers.keys().filter(|name| !self.header_names.contains(*name)).map(|n| format!("header {n}")));
        match serde_json::from_slice::<Value>(payload) {
            Err(error) => found.push(error.to_string()),
            Ok(payload) => {
                found.extend(self.payload.iter_errors(&payload).map(|error| error.to_string()));
                let named = members(&payload).map(|(name, _)| name);
                found.extend(named.filter(|name| !self.payload_names.contains(*name)).map(|n| format!("field {n}")));
            }
        }
        found
    }

    /// Whatever came, as it came.
    pub fn is_dead_letter(&self) -> bool {
        self.address.ends_with(".dlq")
    }
}

#[test]
fn the_topics_document_is_asyncapi_3() {
    let format: Value = serde_json::from_str(FORMAT).unwrap();
    let document = document();
    let validator = jsonschema::validator_for(&format).unwrap();
    let errors: Vec<String> =
        validator.iter_errors(&document).map(|error| format!("{} {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    // The schema takes any text for a reference.
    let mut open = vec![&document];
    while let Some(value) = open.pop() {
        if let Some(reference) = value["$ref"].as_str() {
            assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
        }
        open.extend(members(value).map(|(_, member)| member).chain(value.as_array().into_iter().flatten()));
    }
}

#[test]
fn the_topics_document_names_every_topic_of_the_purchase_saga_and_no_other() {
    let definitions = orchestrator::load_definitions(&[]).unwrap();
    let topics: BTreeSet<String> =
        definitions.all().iter().flat_map(|definition| definition.topics()).map(|name| name.to_string()).collect();
    let all = messages();
    let (letters, others): (Vec<_>, Vec<_>) = all.iter().partition(|message| message.is_dead_letter());
    assert_eq!(others.iter().map(|message| message.address.clone()).collect::<BTreeSet<_>>(), topics);
    assert_eq!(letters.len(), 1);
    let listed = &document()["channels"]["deadLetters"]["parameters"]["topic"]["enum"];
    assert_eq!(
        listed.as_array().unwrap().iter().map(|t| t.as_str().unwrap().to_owned()).collect::<BTreeSet<_>>(),
        topics
    );
}

#[test]
fn the_topics_documents_examples_are_what_they_stand_for() {
    let (document, all) = (document(), messages());
    let mut checked = 0;
    for (name, message) in members(&document["components"]["messages"]) {
        let documented = all.iter().find(|one| one.name.ends_with(&format!(".{name}"))).or_else(|| {
            let channel = format!("{name}.command");
            all.iter().find(|one| one.name == channel)
        });
        for example in message["examples"].as_array().into_iter().flatten() {
            let headers = example["headers"].as_object().unwrap();
            let found = documented.unwrap().differences(headers, example["payload"].to_string().as_bytes());
            assert!(found.is_empty(), "{name}: {found:?}");
            checked += 1;
        }
    }
    assert!(checked >= 5, "{checked}");
}
