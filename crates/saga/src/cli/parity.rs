//! What an operator can ask of the admin API, they can ask from a terminal: every operation of its document has a verb, and every
//! parameter an option.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use clap::CommandFactory as _;
use serde_json::Value;

use crate::args::Cli;
use crate::up::documents;

/// By operation: its verb. `-` at the end: its last word is what the operation's path says (`retry`, `cancel`, …).
const VERBS: [(&str, &str); 25] = [
    ("checkBooks", "check"),
    ("countSagas", "sagas counts"),
    ("createAccount", "admin create"),
    ("getDeadLetter", "dlq show"),
    ("getFailures", "failures show"),
    ("getOverview", "overview"),
    ("getSaga", "sagas show"),
    ("getStats", "stats"),
    ("listAuditLines", "audit"),
    ("listDeadLetterTopics", "dlq list"),
    ("listDeadLetters", "dlq list"),
    ("listDefinitions", "definitions"),
    ("listGroups", "topics"),
    ("listMessages", "topics messages"),
    ("listParticipants", "participants"),
    ("listSagaMessages", "sagas messages"),
    ("listSagas", "sagas list"),
    ("listTopics", "topics list"),
    ("purgeDeadLetters", "dlq purge"),
    ("redriveDeadLetters", "dlq redrive"),
    ("setFailures", "failures set"),
    ("steerSaga", "sagas -"),
    ("steerSagas", "sagas bulk"),
    ("watchOverview", "overview"),
    ("watchSaga", "sagas watch"),
];

/// Parameters that a verb says in another way.
const OTHERWISE: [(&str, &str, &str); 1] = [("listDeadLetters", "after", "page_token")];

/// What the documents of all operations say, by their names; the words of `{verb}` where there is one.
fn operations() -> BTreeMap<String, (Value, Vec<String>)> {
    let document = documents::admin().unwrap();
    let mut found = BTreeMap::new();
    for methods in document["paths"].as_object().unwrap().values() {
        for operation in methods.as_object().unwrap().values() {
            let Some(name) = operation["operationId"].as_str() else { continue };
            let parameters = operation["parameters"].clone();
            let verb = parameters.as_array().into_iter().flatten().find(|parameter| parameter["name"] == "verb");
            let words = verb.map(|verb| verb["schema"]["enum"].as_array().unwrap().clone()).unwrap_or_default();
            let words = words.iter().map(|word| word.as_str().unwrap().to_owned()).collect();
            assert!(found.insert(name.to_owned(), (parameters, words)).is_none(), "{name} twice");
        }
    }
    found
}

fn command(words: &str) -> clap::Command {
    let mut at = Cli::command();
    for word in words.split(' ') {
        at = at.find_subcommand(word).unwrap_or_else(|| panic!("there is no `saga {words}`")).clone();
    }
    at
}

#[test]
fn every_operation_of_the_admin_api_has_a_verb_and_every_parameter_an_option() {
    let operations = operations();
    let named: Vec<&str> = operations.keys().map(String::as_str).collect();
    assert_eq!(named, VERBS.map(|(operation, _)| operation), "operations and their verbs");
    let mut looked = 0;
    for (operation, verb) in VERBS {
        let (parameters, words) = &operations[operation];
        let verbs = match verb.strip_suffix('-') {
            Some(stem) => words.iter().map(|word| format!("{stem}{word}")).collect(),
            None => vec![verb.to_owned()],
        };
        assert!(!verbs.is_empty(), "{operation}");
        for verb in verbs {
            let command = command(&verb);
            for parameter in parameters.as_array().into_iter().flatten().filter(|one| one["name"] != "verb") {
                let name = parameter["name"].as_str().unwrap();
                let other = OTHERWISE.iter().find(|(of, from, _)| (*of, *from) == (operation, name));
                let name = other.map_or(name, |(_, _, to)| *to);
                assert!(
                    command.get_arguments().any(|argument| argument.get_id() == name),
                    "`saga {verb}` has no way to say the `{name}` of {operation}"
                );
                looked += 1;
            }
        }
    }
    assert!(looked > 25, "only {looked} parameters were looked at");
}
