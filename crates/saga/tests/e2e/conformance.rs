//! Every answer that any test here gets is held against the API's documents: its status, its content type, its headers
//! and its body must be those of the operation.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use hyper::Method;
use jsonschema::Validator;
use saga::remote::Answer;
use serde_json::{Value, json};

use crate::town::BodyJson as _;

/// One operation's answers.
struct Operation {
    path: Vec<String>,
    method: String,
    answers: BTreeMap<u16, Documented>,
}

struct Documented {
    /// Content type and schema; none: no body.
    content: Option<(String, Validator)>,
    headers: Vec<String>,
}

/// Both documents, ready to be compared with.
fn operations() -> &'static [Operation] {
    static OPERATIONS: OnceLock<Vec<Operation>> = OnceLock::new();
    OPERATIONS.get_or_init(|| {
        let documents = [saga::up::documents::public().unwrap(), saga::up::documents::admin().unwrap()];
        documents.iter().flat_map(operations_of).collect()
    })
}

fn operations_of(document: &Value) -> Vec<Operation> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let answers = operation["responses"].as_object().unwrap().iter();
            found.push(Operation {
                path: path.split('/').map(str::to_owned).collect(),
                method: method.to_ascii_uppercase(),
                answers: answers.map(|(status, it)| (status.parse().unwrap(), documented(it, document))).collect(),
            });
        }
    }
    found
}

fn documented(answer: &Value, document: &Value) -> Documented {
    let content = answer["content"].as_object().and_then(|all| all.iter().next()).map(|(kind, content)| {
        let schema = json!({ "allOf": [content["schema"]], "components": document["components"] });
        (kind.clone(), jsonschema::validator_for(&schema).unwrap())
    });
    let headers = answer["headers"].as_object().into_iter().flatten();
    let wanted = headers.filter(|(_, header)| header["required"] == true);
    Documented { content, headers: wanted.map(|(name, _)| name.clone()).collect() }
}

fn fits(operation: &Operation, path: &str) -> bool {
    let segments: Vec<&str> = path.split('/').collect();
    let same = |(wanted, is): (&String, &&str)| wanted == is || (wanted.starts_with('{') && !is.is_empty());
    segments.len() == operation.path.len() && operation.path.iter().zip(&segments).all(same)
}

/// Holds the data of an event of a stream of purchases against the document.
///
/// # Panics
/// When it is not one.
pub fn check_event(data: &Value) {
    static EVENT: OnceLock<Validator> = OnceLock::new();
    let schema = EVENT.get_or_init(|| {
        let document = saga::up::documents::public().unwrap();
        let schema = json!({ "$ref": "#/components/schemas/PurchaseEvent", "components": document["components"] });
        jsonschema::validator_for(&schema).unwrap()
    });
    let errors: Vec<String> = schema.iter_errors(data).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{data}: {errors:?}");
}

/// # Panics
/// When the answer is not in the document.
pub fn check(method: &Method, path: &str, answer: &Answer) {
    let path = path.split('?').next().unwrap_or_default();
    let exactly = |operation: &&Operation| operation.path.join("/") == path;
    let mut all = operations().iter().filter(|operation| operation.method == method.as_str() && fits(operation, path));
    // `/purchases/events` is not a purchase.
    let Some(operation) = all.clone().find(exactly).or_else(|| all.next()) else { return };
    let status = answer.status.as_u16();
    // Operators' routes, asked for at the customers' door.
    if status == 404 && path.starts_with("/admin") && answer.body_json()["detail"] == "there is nothing at this path" {
        return;
    }
    let body = String::from_utf8_lossy(&answer.body);
    let Some(documented) = operation.answers.get(&status) else {
        panic!("{method} {path}: the document has no {status}: {body}");
    };
    for name in &documented.headers {
        assert!(answer.headers.contains_key(name.as_str()), "{method} {path}: {status} without {name}");
    }
    let Some((kind, schema)) = &documented.content else {
        assert!(answer.body.is_empty(), "{method} {path}: {status} has a body: {body}");
        return;
    };
    let is = answer.headers.get("content-type").map_or("", |value| value.to_str().unwrap());
    assert_eq!(is, kind, "{method} {path}: {status}");
    if kind.ends_with("json") {
        let value: Value = serde_json::from_slice(&answer.body).unwrap();
        let errors: Vec<String> = schema.iter_errors(&value).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{method} {path}: {status} {body}: {errors:?}");
    }
}
