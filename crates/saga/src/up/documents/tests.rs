#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;

use super::*;

/// Everything in a document that fits, with its place.
fn found<'d>(value: &'d Value, at: &str, wanted: &impl Fn(&str) -> bool, into: &mut Vec<(String, &'d Value)>) {
    let mut below = |key: &str, member: &'d Value| {
        let at = format!("{at}/{key}");
        if wanted(key) {
            into.push((at.clone(), member));
        }
        found(member, &at, wanted, into);
    };
    match value {
        Value::Object(members) => members.iter().for_each(|(key, member)| below(key, member)),
        Value::Array(items) => items.iter().enumerate().for_each(|(index, item)| below(&index.to_string(), item)),
        _ => {}
    }
}

fn all<'d>(document: &'d Value, key: &'static str) -> Vec<(String, &'d Value)> {
    let mut into = Vec::new();
    found(document, "#", &|k| k == key, &mut into);
    into
}

#[test]
fn the_document_is_openapi_3_1_and_its_references_lead_somewhere() {
    for document in [public().unwrap(), admin().unwrap()] {
        assert_eq!(document["openapi"], "3.1.0");
        let references = all(&document, "$ref");
        assert!(references.len() > 50, "{}", references.len());
        for (at, reference) in references {
            let pointer = reference.as_str().unwrap().strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{at}: there is no {pointer}");
        }
    }
}

#[test]
fn operations_have_names_of_their_own_a_summary_and_known_problems() {
    for (document, least) in [(public().unwrap(), 28), (admin().unwrap(), 14)] {
        let mut names = BTreeSet::new();
        for (at, name) in all(&document, "operationId").into_iter().filter(|(at, _)| !at.contains("/links/")) {
            assert!(names.insert(name.as_str().unwrap()), "{at}: a second {name}");
            let operation = document.pointer(at.trim_start_matches('#').strip_suffix("/operationId").unwrap());
            assert!(operation.is_none_or(|operation| operation["summary"].is_string()), "{at}");
        }
        assert!(names.len() >= least, "{names:?}");
        for (at, name) in all(&document, "operationId").into_iter().filter(|(at, _)| at.contains("/links/")) {
            assert!(names.contains(name.as_str().unwrap()), "{at} leads nowhere");
        }
        let unknown = all(&document, chassis::openapi::PROBLEMS);
        assert!(unknown.is_empty(), "no codes: {unknown:?}");
    }
}

#[test]
fn two_things_of_one_name_are_noticed() {
    let twice = || [("/api/v1", order::http::document()), ("/api/v1", order::http::document())];
    let error = document("Shop", "", "", json!([]), twice(), &[]).unwrap_err().to_string();
    assert!(error.contains("/api/v1/orders"), "{error}");
}

#[test]
fn every_example_passes_the_schema_it_stands_for() {
    let checked: usize = [public().unwrap(), admin().unwrap()].iter().map(examples_of).sum();
    assert!(checked > 60, "{checked}");
}

fn examples_of(document: &Value) -> usize {
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let shown = schemas.iter().filter_map(|(name, schema)| Some((name.as_str(), schema.get("example")?)));
    let problems = document["components"]["examples"].as_object().unwrap().values();
    let problems = problems.map(|example| ("Problem", &example["value"]));
    let mut checked = 0;
    for (name, example) in shown.chain(problems) {
        let reference = format!("#/components/schemas/{name}");
        let schema = json!({ "$ref": reference, "components": document["components"] });
        let errors: Vec<String> =
            jsonschema::validator_for(&schema).unwrap().iter_errors(example).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{name}: {errors:?}");
        checked += 1;
    }
    checked
}

#[test]
fn every_error_code_has_its_page_in_the_binary() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let named: BTreeSet<String> =
        files.filter_map(|name| name.strip_suffix(".md").map(str::to_owned)).filter(|name| name != "README").collect();
    assert_eq!(named, ERRORS.iter().map(|(code, _)| (*code).to_owned()).collect());
    assert!(Code::ALL.iter().all(|code| named.contains(code.as_str())));
}
