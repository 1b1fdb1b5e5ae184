//! The document of the account routes, held against the gateway that serves it: what it calls right is served, what it calls wrong
//! is refused as it says, and no answer has a status that it does not name.

use serde_json::{Map, Value, json};

use crate::harness::{Answer, Gateway, Raw, Site, Upstream, get, keys::bearer, request};

const PASSWORD: &str = "correct horse battery staple";

/// One operation of the document.
struct Operation {
    method: String,
    path: String,
    described: Value,
}

impl Operation {
    fn id(&self) -> &str {
        self.described["operationId"].as_str().unwrap()
    }

    fn is_page(&self) -> bool {
        self.described["tags"] == json!(["pages"])
    }

    fn needs_token(&self) -> bool {
        self.described["security"] == json!([{ "bearer": [] }])
    }

    /// The type of its JSON body.
    fn body(&self, document: &Value) -> Option<Value> {
        let schema = &self.described["requestBody"]["content"]["application/json"]["schema"];
        let reference = schema["$ref"].as_str()?;
        Some(document.pointer(&reference[1..]).unwrap().clone())
    }

    async fn send(&self, gateway: &Gateway, token: &str, body: &str) -> Answer {
        let bearer = bearer(token);
        let mut fields = vec![("Content-Type", "application/json")];
        if !token.is_empty() {
            fields.push(("Authorization", &*bearer));
        }
        let path = self.path.replace("{id}", "no-such-id");
        let method = self.method.to_ascii_uppercase();
        let request = request(&method, &path, &fields, body);
        Raw::connect(gateway).await.exchange(request).await
    }

    /// Whether the answer is one that the document names, with a code that it names.
    #[track_caller]
    fn allows(&self, document: &Value, answer: &Answer, what: &str) {
        let status = answer.status;
        let name = format!("{} {} {what}: {status}", self.method, self.path);
        assert!(status < 500, "{name}");
        let mut response = &self.described["responses"][status.to_string()];
        assert!(!response.is_null(), "{name} is not in the document");
        if let Some(reference) = response["$ref"].as_str() {
            response = document.pointer(&reference[1..]).unwrap();
        }
        if status >= 400 {
            let schema = &response["content"]["application/problem+json"]["schema"];
            let codes = schema["properties"]["code"]["enum"].as_array().unwrap();
            let problem = answer.json();
            assert!(codes.contains(&problem["code"]), "{name}: {problem}");
            let whole = &document["components"]["schemas"]["Problem"];
            holds(document, whole, &problem, &name);
            for field in response["headers"].as_object().unwrap().keys() {
                assert!(answer.header(field).is_some(), "{name} without {field}");
            }
        } else if let Some(schema) = response["content"]["application/json"].get("schema") {
            holds(document, schema, &answer.json(), &name);
        } else {
            assert_eq!(answer.text(), "", "{name}");
        }
    }
}

fn operations(document: &Value) -> Vec<Operation> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, described) in item.as_object().unwrap() {
            found.push(Operation {
                method: method.clone(),
                path: path.clone(),
                described: described.clone(),
            });
        }
    }
    found
}

fn resolved<'d>(document: &'d Value, schema: &'d Value) -> &'d Value {
    match schema["$ref"].as_str() {
        Some(reference) => document.pointer(&reference[1..]).unwrap(),
        None => schema,
    }
}

fn types(schema: &Value) -> Vec<&str> {
    match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Vec::new(),
    }
}

/// Whether a value is of a type; what the document says of an object is all that it has.
#[track_caller]
fn holds(document: &Value, schema: &Value, value: &Value, what: &str) {
    if let Some(either) = schema["anyOf"].as_array() {
        let fields = value.as_object().unwrap().len();
        let fits = either.iter().map(|one| resolved(document, one));
        let fit = fits
            .filter(|one| one["properties"].as_object().unwrap().len() >= fields)
            .min_by_key(|one| one["properties"].as_object().unwrap().len());
        return holds(document, fit.expect(what), value, what);
    }
    let schema = resolved(document, schema);
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    if schema.get("const").is_none() {
        assert!(
            types(schema).contains(&kind),
            "{what}: {value} is no {schema}"
        );
    }
    for item in value.as_array().into_iter().flatten() {
        holds(document, &schema["items"], item, what);
    }
    let (Some(fields), Some(known)) = (value.as_object(), schema["properties"].as_object()) else {
        return;
    };
    for (name, field) in fields {
        let schema = known.get(name);
        let schema = schema.unwrap_or_else(|| panic!("{what}: {name} is not in the document"));
        holds(document, schema, field, what);
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        assert!(
            fields.contains_key(name.as_str().unwrap()),
            "{what}: {name}"
        );
    }
}

/// A value of a type.
fn sample(document: &Value, schema: &Value, name: &str) -> Value {
    let schema = resolved(document, schema);
    if let Some(values) = schema["enum"].as_array() {
        return values[0].clone();
    }
    if let Some(values) = schema["oneOf"].as_array() {
        return values[0]["const"].clone();
    }
    match types(schema)[0] {
        "string" if name == "email" => json!("sample@example.com"),
        "string" if name.contains("password") => json!("a sample of a long passphrase"),
        "string" => json!("sample"),
        "boolean" => json!(false),
        "integer" => json!(60),
        "array" => json!(["clerk"]),
        "object" => {
            let mut whole = Map::new();
            for (name, field) in schema["properties"].as_object().unwrap() {
                whole.insert(name.clone(), sample(document, field, name));
            }
            whole.into()
        }
        other => panic!("{name}: {other}"),
    }
}

/// Bodies that are not of a type, each with what is wrong with it.
fn violations(document: &Value, schema: &Value) -> Vec<(String, String)> {
    let whole = sample(document, schema, "");
    let mut bad = vec![
        ("no JSON".to_owned(), "{".to_owned()),
        ("an array".into(), "[]".into()),
        ("a text".into(), "\"x\"".into()),
    ];
    let mut add = |what: String, body: &Value| bad.push((what, body.to_string()));
    for extra in ["extra", "role", "__proto__"] {
        let mut body = whole.clone();
        body[extra] = json!("admin");
        add(format!("with {extra}"), &body);
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        let name = name.as_str().unwrap();
        let mut body = whole.clone();
        body.as_object_mut().unwrap().remove(name);
        add(format!("without {name}"), &body);
    }
    for (name, field) in schema["properties"].as_object().unwrap() {
        let kinds = types(resolved(document, field));
        for (kind, value) in [
            ("null", json!(null)),
            ("integer", json!(-1)),
            ("boolean", json!(true)),
            ("object", json!({ "a": 1 })),
            ("string", json!("x")),
            ("array", json!([[]])),
        ] {
            // -1 is no unsigned integer and [[]] no list of texts.
            if !kinds.contains(&kind) || matches!(kind, "integer" | "array") {
                if kind == "string" && kinds.is_empty() {
                    continue;
                }
                let mut body = whole.clone();
                body[name] = value;
                add(format!("{name} as {kind}"), &body);
            }
        }
    }
    bad
}

async fn site() -> Gateway {
    let upstream = Upstream::start().await;
    let site = Site::new(upstream.address)
        .accounts()
        .set("accounts", "registration", "\"invite\"");
    site.write();
    site.user("alice", PASSWORD, &["admin"]).await;
    site.start().await
}

async fn document(gateway: &Gateway) -> Value {
    let answer = get(gateway, "/auth/openapi.json", &[]).await;
    answer.is(200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let kept = answer.header("cache-control").unwrap();
    assert!(kept.starts_with("public, max-age="), "{kept}");
    answer.json()
}

async fn token(gateway: &Gateway) -> String {
    let body = json!({ "username": "alice", "password": PASSWORD, "delivery": "body" });
    let fields = [("Content-Type", "application/json")];
    let login = request("POST", "/auth/login", &fields, &body.to_string());
    let answer = Raw::connect(gateway).await.exchange(login).await;
    answer.is(200).json()["access_token"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[tokio::test]
async fn auth_7_a_body_that_the_document_calls_wrong_is_400() {
    let gateway = site().await;
    let document = document(&gateway).await;
    let token = token(&gateway).await;
    let mut sent = 0;
    for operation in operations(&document) {
        let Some(schema) = operation.body(&document) else {
            continue;
        };
        let token = if operation.needs_token() { &token } else { "" };
        for (what, body) in violations(&document, &schema) {
            let answer = operation.send(&gateway, token, &body).await;
            operation.allows(&document, &answer, &what);
            let name = format!("{} {what}: {}", operation.id(), answer.status);
            assert_eq!(answer.status, 400, "{name}");
            sent += 1;
        }
    }
    assert!(sent > 150, "{sent}");
}

#[tokio::test]
async fn a_body_that_the_document_calls_right_is_answered_as_it_says() {
    let gateway = site().await;
    let document = document(&gateway).await;
    let mut reached = 0;
    for operation in operations(&document) {
        if operation.is_page() {
            continue;
        }
        let body = operation
            .body(&document)
            .map_or_else(String::new, |schema| {
                sample(&document, &schema, "").to_string()
            });
        // One for each: some of them end the session.
        let token = if operation.needs_token() {
            token(&gateway).await
        } else {
            String::new()
        };
        let answer = operation.send(&gateway, &token, &body).await;
        operation.allows(&document, &answer, "right");
        // What is right by its type may still be refused for what it means, which has its own codes.
        if answer.status == 400 {
            assert_ne!(answer.code(), "bad_request", "{}", operation.id());
        }
        reached += usize::from(answer.status < 300);
        if operation.needs_token() {
            let answer = operation.send(&gateway, "", &body).await;
            operation.allows(&document, &answer, "without a token");
            answer.refused(401, "credentials_missing");
            let answer = operation.send(&gateway, "x.y.z", &body).await;
            operation.allows(&document, &answer, "with a bad token");
            answer.refused(401, "token_invalid");
        }
    }
    assert!(reached >= 10, "{reached}");
}

#[tokio::test]
async fn auth_10_administration_without_the_role_is_403_as_the_document_says() {
    let upstream = Upstream::start().await;
    let site = Site::new(upstream.address).accounts();
    site.write();
    site.user("alice", PASSWORD, &["clerk"]).await;
    let gateway = site.start().await;
    let document = document(&gateway).await;
    let token = token(&gateway).await;
    for operation in operations(&document) {
        if operation.described["tags"] == json!(["administration"]) {
            let answer = operation.send(&gateway, &token, "{}").await;
            operation.allows(&document, &answer, "without the role");
            answer.refused(403, "role_missing");
        }
    }
}
