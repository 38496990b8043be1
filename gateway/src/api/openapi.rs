//! Compares the description of the API with its routes. Tests only.

use std::collections::BTreeSet;

use serde_json::Value;

use super::answer::DOCUMENT;
use super::messages::{Written, WrittenBatch, parse};
use super::routes::ROUTES;

fn document() -> Value {
    serde_json::from_str(DOCUMENT).expect("JSON")
}

/// Each operation, with its method and path.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let paths = document["paths"].as_object().expect("paths");
    let operations = paths.iter().flat_map(|(path, item)| {
        let methods = item.as_object().expect("methods");
        methods.iter().map(move |(method, operation)| (method.to_uppercase(), path.clone(), operation.clone()))
    });
    operations.collect()
}

#[test]
fn the_document_has_exactly_the_routes() {
    let described: BTreeSet<_> = operations(&document()).into_iter().map(|(method, path, _)| (method, path)).collect();
    let routed = ROUTES.iter().map(|(method, path, _)| ((*method).to_owned(), (*path).to_owned())).collect();
    assert_eq!(described, routed);
}

#[test]
fn every_operation_has_a_name_of_its_own_words_responses_and_the_parameter_of_its_path() {
    let document = document();
    let mut names = BTreeSet::new();
    for (method, path, operation) in operations(&document) {
        assert!(names.insert(operation["operationId"].as_str().expect(&path).to_owned()), "{path}");
        assert!(operation["summary"].is_string() && operation["responses"].is_object(), "{method} {path}");
        let in_path = |parameter: &&Value| parameter["in"] == "path";
        let named: Vec<_> = operation["parameters"].as_array().into_iter().flatten().filter(in_path).collect();
        let braced = path.split(['{', '}']).nth(1);
        assert_eq!(named.first().map(|parameter| parameter["name"].as_str().expect("a name")), braced, "{path}");
    }
}

#[test]
fn every_reference_leads_somewhere() {
    let document = document();
    let mut rest = vec![&document];
    while let Some(value) = rest.pop() {
        match value {
            Value::Object(fields) => {
                if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                    let pointer = reference.strip_prefix('#').expect("within this document");
                    assert!(document.pointer(pointer).is_some(), "{reference}");
                }
                rest.extend(fields.values());
            }
            Value::Array(items) => rest.extend(items),
            _ => {}
        }
    }
}

#[test]
fn the_examples_of_bodies_can_be_read() {
    let document = document();
    let content = |path: &str| document["paths"][path]["post"]["requestBody"]["content"]["application/json"].clone();
    for (name, example) in content("/v1/publish")["examples"].as_object().expect("examples") {
        assert!(parse::<Written<'_>>(example["value"].to_string().as_bytes()).is_ok(), "{name}");
    }
    assert!(parse::<WrittenBatch<'_>>(content("/v1/batch")["example"].to_string().as_bytes()).is_ok());
}
