//! Drives the API from its own description: every example runs, and every answer is as the description says.
//!
//! Knows no path of the API. Also sends each operation odd values of each parameter and body: no answer is a 5xx, except where the
//! description has a 501.

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use tests::api::Api;

use super::node;

/// What stands in the place of a parameter or a body.
const ODD: [&str; 8] = ["%20", "%00", "a%2Fb", "%E2%80%A8", "{", "0", "*", "%F0%9F%92%A9"];

/// The part of a document that a value's `$ref` names, or the value itself.
fn resolve<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    let target = value["$ref"].as_str().and_then(|name| document.pointer(name.strip_prefix('#')?));
    target.unwrap_or(value)
}

/// What is wrong with a value, by the words of JSON Schema that the description uses.
fn wrong(document: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let schema = resolve(document, schema);
    let mut found = Vec::new();
    let mut say = |what: String| found.push(format!("{at}: {what}"));
    for (word, content) in schema.as_object().unwrap_or(&Map::new()) {
        let holds = match word.as_str() {
            "type" => match content.as_str() {
                Some("object") => value.is_object(),
                Some("array") => value.is_array(),
                Some("string") => value.is_string(),
                Some("integer") => value.is_i64() || value.is_u64(),
                Some("boolean") => value.is_boolean(),
                other => panic!("{other:?}: a type that this check does not know"),
            },
            "required" => {
                content.as_array().into_iter().flatten().filter_map(Value::as_str).all(|name| value.get(name).is_some())
            }
            "additionalProperties" => {
                let known = |name: &String| schema["properties"].get(name).is_some();
                value.as_object().is_none_or(|fields| fields.keys().all(known))
            }
            "enum" => content.as_array().is_some_and(|all| all.contains(value)),
            "minLength" => {
                value.as_str().is_none_or(|text| text.chars().count() as u64 >= content.as_u64().unwrap_or(0))
            }
            "maxLength" => {
                value.as_str().is_none_or(|text| text.chars().count() as u64 <= content.as_u64().unwrap_or(0))
            }
            "minimum" => value.as_i64().is_none_or(|number| number >= content.as_i64().unwrap_or(0)),
            "maximum" => value.as_i64().is_none_or(|number| number <= content.as_i64().unwrap_or(0)),
            "minItems" => value.as_array().is_none_or(|items| items.len() as u64 >= content.as_u64().unwrap_or(0)),
            "maxItems" => value.as_array().is_none_or(|items| items.len() as u64 <= content.as_u64().unwrap_or(0)),
            "oneOf" => {
                let matching = |schema: &&Value| wrong(document, schema, value, at).is_empty();
                content.as_array().into_iter().flatten().filter(matching).count() == 1
            }
            "not" => !wrong(document, content, value, at).is_empty(),
            "properties" | "items" | "description" | "default" | "format" | "pattern" => true,
            other => panic!("{other}: a word that this check does not know"),
        };
        if !holds {
            say(format!("{value} breaks {word} {content}"));
        }
    }
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        if let Some(value) = value.get(name) {
            found.extend(wrong(document, schema, value, &format!("{at}.{name}")));
        }
    }
    for item in value.as_array().filter(|_| schema.get("items").is_some()).into_iter().flatten() {
        found.extend(wrong(document, &schema["items"], item, &format!("{at}[]")));
    }
    found
}

/// One operation of a description.
struct Operation<'a> {
    document: &'a Value,
    method: String,
    path: &'a str,
    described: &'a Value,
}

impl Operation<'_> {
    /// The path with this value in its braces, and the parameters of the query and the head.
    fn filled(&self, value: Option<&str>) -> (String, Vec<(String, String)>) {
        let (mut path, mut query, mut headers) = (self.path.to_owned(), String::new(), Vec::new());
        for parameter in self.described["parameters"].as_array().into_iter().flatten() {
            let (name, example) = (parameter["name"].as_str().unwrap_or_default(), &parameter["example"]);
            let example = example.as_str().map_or_else(|| example.to_string(), str::to_owned);
            match parameter["in"].as_str() {
                Some("path") => path = path.replace(&format!("{{{name}}}"), value.unwrap_or(&example)),
                Some("header") => headers.push((name.to_owned(), example)),
                _ if value.is_some() || parameter.get("example").is_some() => {
                    let separator = if query.is_empty() { '?' } else { '&' };
                    query.push_str(&format!("{separator}{name}={}", value.unwrap_or(&example)));
                }
                _ => {}
            }
        }
        (path + &query, headers)
    }

    /// The examples of the body, each with its type; one without body if there is none.
    fn bodies(&self) -> Vec<(Option<&str>, Vec<u8>)> {
        let mut bodies = Vec::new();
        for (kind, content) in self.described["requestBody"]["content"].as_object().into_iter().flatten() {
            let named = content["examples"].as_object().into_iter().flatten().map(|(_, example)| &example["value"]);
            for example in content.get("example").into_iter().chain(named) {
                let text = if kind == "application/json" { None } else { example.as_str() };
                bodies
                    .push((Some(kind.as_str()), text.map_or_else(|| example.to_string(), str::to_owned).into_bytes()));
                if kind == "application/json" {
                    let found = wrong(self.document, &content["schema"], example, "the example");
                    assert!(found.is_empty(), "{}: {found:?}", self.path);
                }
            }
        }
        if bodies.is_empty() { vec![(None, Vec::new())] } else { bodies }
    }

    /// Sends a request, and checks that the description has its answer.
    async fn run(&self, api: &Api, value: Option<&str>, kind: Option<&str>, body: &[u8]) -> Result<u16> {
        let (path, headers) = self.filled(value);
        let mut headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        headers.extend(kind.map(|kind| ("Content-Type", kind)));
        let answer = api.send(&self.method, &path, &headers, body).await?;
        let status = answer.status.to_string();
        let what = format!("{} {path}: {} {}", self.method, answer.head, answer.body);
        // A changed path may be no path.
        if value.is_some() && answer.status == 404 {
            return Ok(404);
        }
        let response = self.described["responses"].get(&status).with_context(|| format!("not described: {what}"))?;
        let contents = resolve(self.document, response)["content"].as_object().context("it has a content")?;
        let kind = answer.header("content-type").unwrap_or_default().split(';').next().unwrap_or_default();
        let content = contents.get(kind).with_context(|| format!("not of a described type: {what}"))?;
        if kind.ends_with("json") {
            let document: Value = serde_json::from_str(&answer.body).with_context(|| what.clone())?;
            let found = wrong(self.document, &content["schema"], &document, "the answer");
            assert!(found.is_empty(), "{what}: {found:?}");
        }
        Ok(answer.status)
    }
}

#[tokio::test]
async fn every_example_of_the_description_runs_and_odd_values_get_described_answers() -> Result<()> {
    let (_node, api) = node(&[]).await?;
    let (_, document) = api.get("/v1/openapi.json").await?;
    let mut count = 0;
    for (path, methods) in document["paths"].as_object().context("paths")? {
        for (method, described) in methods.as_object().context("methods")? {
            let operation = Operation { document: &document, method: method.to_uppercase(), path, described };
            for (kind, body) in operation.bodies() {
                let status = operation.run(&api, None, kind, &body).await?;
                let expected = if described["responses"].get("200").is_some() { 200 } else { 501 };
                assert_eq!(status, expected, "{path}");
                count += 1;
                for value in ODD {
                    let status = operation.run(&api, Some(value), kind, &body).await?;
                    assert!(status < 500 || expected == 501, "{method} {path} {value}: {status}");
                }
            }
            if described.get("requestBody").is_some() {
                for body in
                    ["", "{", "[]", "null", "{\"a\":1}", "{\"channel\":1,\"data\":2}", "{\"messages\":{}}", "\u{fffd}"]
                {
                    let status = operation.run(&api, None, Some("application/json"), body.as_bytes()).await?;
                    assert!(status < 500, "{path} {body}: {status}");
                }
            }
            let nobody = operation.run(&api.with("no.key"), None, None, b"").await?;
            let open = described["security"] == json!([]);
            assert!(if open { nobody == 200 } else { nobody == 401 || nobody == 429 }, "{path}: {nobody}");
        }
    }
    assert!(count >= 18, "{count}");
    Ok(())
}
