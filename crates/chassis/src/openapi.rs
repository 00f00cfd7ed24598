//! What the services' API documents (OpenAPI 3.1) have in common: the problems, and what follows from a handler's
//! arguments.
//!
//! A handler's annotation names what is its own: its parameters, its body, the answer when all goes well, and under
//! [`PROBLEMS`] the problems of its use case. What the extractors answer by themselves (no token, no such id, a body that
//! is not valid) is added by [`complete`], by one rule for all of them, so it is true of all of them or of none.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::problem::Code;

/// The extension in which a handler names the codes of its own: `"x-problems" = json!(["conflict"])`.
pub const PROBLEMS: &str = "x-problems";

/// The security scheme: an access token.
pub const BEARER: &str = "bearer";

/// What each problem is made of; the name of its schema.
const PROBLEM: &str = "Problem";

/// What every operation may come to.
const ALWAYS: &[Code] = &[Code::DependencyUnavailable, Code::InternalError];
/// Of whoever must say who they are.
const SIGNED_IN: &[Code] = &[Code::Unauthenticated, Code::TokenExpired];
/// Of a body that may be left out, whatever it calls itself.
const BODY: &[Code] = &[Code::MalformedJson, Code::PayloadTooLarge, Code::ValidationError];

/// Adds to every operation the answers that its arguments bring along, those that whatever stands before it may give, and
/// the schema of problems.
pub fn complete(document: &mut Value, before: &[Code]) {
    let paths = document.get_mut("paths").and_then(Value::as_object_mut);
    for (path, item) in paths.into_iter().flatten() {
        for (_, operation) in item.as_object_mut().into_iter().flatten() {
            let Some(operation) = operation.as_object_mut() else { continue };
            let codes = codes(path, operation, before);
            name_body(operation);
            let responses = operation.entry("responses").or_insert_with(|| json!({}));
            if let Some(responses) = responses.as_object_mut() {
                responses.values_mut().for_each(name_headers);
                responses.extend(answers(&codes));
            }
        }
    }
    document["components"]["schemas"][PROBLEM] = problem();
    let examples: Map<String, Value> =
        Code::ALL.iter().map(|code| (code.as_str().to_owned(), example(*code))).collect();
    document["components"]["examples"] = examples.into();
}

/// A body that may be left out is not there; it is not `null`.
fn name_body(operation: &mut Map<String, Value>) {
    let Some(content) = operation.get_mut("requestBody").and_then(|body| body["content"].as_object_mut()) else {
        return;
    };
    for (_, content) in content {
        let other = content["schema"]["oneOf"].as_array().and_then(|all| all.iter().find(|one| one["type"] != "null"));
        if let Some(schema) = other.cloned() {
            content["schema"] = schema;
        }
    }
}

/// A header is there, or it is not: none is ever null. Those that a handler types as optional may be left out.
fn name_headers(response: &mut Value) {
    let headers = response.get_mut("headers").and_then(Value::as_object_mut);
    for (_, header) in headers.into_iter().flatten() {
        let kind = &mut header["schema"]["type"];
        let optional = kind.as_array().and_then(|kinds| kinds.first()).cloned();
        header["required"] = optional.is_none().into();
        if let Some(only) = optional {
            header["schema"]["type"] = only;
        }
    }
}

/// Every code that an operation may answer with.
fn codes(path: &str, operation: &mut Map<String, Value>, before: &[Code]) -> Vec<Code> {
    let mut codes = [ALWAYS, before].concat();
    if let Some(needed) = operation.get("security").and_then(Value::as_array).and_then(|all| all.first()) {
        codes.extend(SIGNED_IN);
        if needed[BEARER].as_array().is_some_and(|roles| !roles.is_empty()) {
            codes.push(Code::Forbidden);
        }
    }
    if path.contains('{') {
        codes.push(Code::NotFound);
    }
    if let Some(body) = operation.get("requestBody") {
        codes.extend(BODY);
        if body["required"] == true {
            codes.push(Code::UnsupportedMediaType);
        }
    }
    let parameters = operation.get("parameters").and_then(Value::as_array);
    if parameters.into_iter().flatten().any(|parameter| parameter["in"] == "query") {
        codes.push(Code::ValidationError);
    }
    // What is no code stays where it is: the document's test finds it.
    let named = |text: &Value| Code::ALL.iter().find(|code| *text == code.as_str());
    if let Some(own) = operation.get_mut(PROBLEMS).and_then(Value::as_array_mut) {
        codes.extend(own.iter().filter_map(named));
        own.retain(|text| named(text).is_none());
        if own.is_empty() {
            operation.remove(PROBLEMS);
        }
    }
    // In the order of the list of codes, each once.
    Code::ALL.iter().filter(|code| codes.contains(code)).copied().collect()
}

/// The responses by status.
fn answers(codes: &[Code]) -> BTreeMap<String, Value> {
    let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in codes {
        by_status.entry(code.status().as_u16()).or_default().push(*code);
    }
    by_status.into_iter().map(|(status, codes)| (status.to_string(), answer(status, &codes))).collect()
}

fn answer(status: u16, codes: &[Code]) -> Value {
    let names: Vec<&str> = codes.iter().map(|code| code.as_str()).collect();
    let lines: Vec<String> = codes.iter().map(|code| format!("`{}`: {}.", code.as_str(), code.title())).collect();
    let examples: Map<String, Value> = names
        .iter()
        .map(|name| ((*name).to_owned(), json!({ "$ref": format!("#/components/examples/{name}") })))
        .collect();
    let schema = json!({
        "allOf": [
            { "$ref": format!("#/components/schemas/{PROBLEM}") },
            { "properties": { "code": { "enum": names }, "status": { "const": status } } },
        ],
    });
    let mut answer = json!({
        "description": lines.join(" "),
        "content": { "application/problem+json": { "schema": schema, "examples": examples } },
    });
    if codes.iter().any(|code| code.retryable()) {
        let seconds = json!({ "type": "integer", "minimum": 1 });
        answer["headers"]["Retry-After"] =
            json!({ "description": "When to come back, in seconds.", "required": true, "schema": seconds });
    }
    if status == 401 {
        let schema = json!({ "type": "string", "pattern": "^Bearer" });
        answer["headers"]["WWW-Authenticate"] =
            json!({ "description": "The scheme (RFC 6750).", "required": true, "schema": schema });
    }
    answer
}

fn example(code: Code) -> Value {
    let mut value = json!({
        "type": format!("/docs/errors/{}", code.as_str()),
        "title": code.title(),
        "status": code.status().as_u16(),
        "detail": "what happened this time, and what to do",
        "instance": "/api/v1/…",
        "code": code.as_str(),
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        "retryable": code.retryable(),
    });
    if code == Code::ValidationError {
        value["errors"] = json!([{ "pointer": "#/the/field", "detail": "what is wrong with it" }]);
    }
    json!({ "summary": code.title(), "value": value })
}

fn problem() -> Value {
    let text = |about: &str| json!({ "type": "string", "description": about });
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    let error = json!({
        "type": "object",
        "required": ["pointer", "detail"],
        "properties": {
            "pointer": text("A JSON pointer (RFC 6901) into the request: `#/order_items/0/quantity`; of a query, `#/` and the parameter's name."),
            "detail": text("What is wrong."),
        },
    });
    json!({
        "type": "object",
        "description": "What went wrong, for people and programs (RFC 9457).",
        "required": ["type", "title", "status", "detail", "code", "retryable"],
        "properties": {
            "type": text("The code's page."),
            "title": text("The same for every occurrence of the code."),
            "status": { "type": "integer", "description": "The HTTP status." },
            "detail": text("What happened this time, and what to do."),
            "instance": text("The request's path."),
            "code": { "type": "string", "description": "Stable, for programs.", "enum": codes },
            "trace_id": { "type": "string", "description": "Finds the request in the logs.", "pattern": "^[0-9a-f]{32}$" },
            "retryable": { "type": "boolean", "description": "Whether the same request may succeed later." },
            "errors": { "type": "array", "description": "Which fields are wrong.", "items": error },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_gets_the_answers_of_its_arguments_and_its_own() {
        let mut document = json!({ "paths": { "/things/{id}": { "put": {
            "security": [{ "bearer": ["admin"] }],
            "requestBody": { "required": true },
            "x-problems": ["conflict"],
            "responses": { "200": { "description": "changed" } },
        } } } });
        complete(&mut document, &[Code::RateLimited]);
        let operation = &document["paths"]["/things/{id}"]["put"];
        let responses =
            operation["responses"].as_object().map(|all| all.keys().map(String::as_str).collect::<Vec<_>>());
        let expected = ["200", "400", "401", "403", "404", "409", "413", "415", "422", "429", "500", "503"];
        assert_eq!(responses.unwrap_or_default(), expected);
        assert!(operation.get(PROBLEMS).is_none());
        let schema = &operation["responses"]["401"]["content"]["application/problem+json"]["schema"];
        assert_eq!(schema["allOf"][1]["properties"]["code"]["enum"], json!(["unauthenticated", "token_expired"]));
        assert_eq!(operation["responses"]["429"]["headers"]["Retry-After"]["required"], true);
    }

    #[test]
    fn an_open_operation_without_arguments_gets_no_answer_that_it_cannot_give() {
        let mut document = json!({ "paths": { "/things": { "get": { "responses": {} } } } });
        complete(&mut document, &[]);
        let responses = document["paths"]["/things"]["get"]["responses"].as_object();
        let statuses = responses.map(|all| all.keys().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(statuses.unwrap_or_default(), ["500", "503"]);
    }
}
