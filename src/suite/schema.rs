//! JSON Schema (draft 2020-12) of suite, path and fleet files, from the same shapes that the parser reads by.

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::suite::condition;
use crate::suite::fleet_file;
use crate::suite::layer;
use crate::suite::path_file;
use crate::suite::shape::Key;
use crate::suite::shape::Kind;
use crate::suite::shape::Need;
use crate::suite::shape::Shape;
use crate::suite::shape::flags_between;
use crate::suite::suite_file;

/// The schema of path files.
pub fn path_schema() -> Value {
    let writer = Writer { variables: false };
    writer.file(&path_file::FILE, "tunproof path file")
}

/// The schema of fleet files.
pub fn fleet_schema() -> Value {
    let writer = Writer { variables: false };
    writer.file(&fleet_file::FILE, "tunproof fleet file")
}

/// The schema of suite files: a string such as `"$rip"` may stand for any value.
pub fn suite_schema() -> Value {
    let writer = Writer { variables: true };
    writer.file(&suite_file::FILE, "tunproof suite")
}

/// What stands for a variable.
const VARIABLE: &str = "^\\$[A-Za-z0-9_-]+$";

struct Writer {
    variables: bool,
}

impl Writer {
    fn file(&self, shape: &Shape, title: &str) -> Value {
        let mut schema = Map::new();
        let dialect = "https://json-schema.org/draft/2020-12/schema";
        schema.insert("$schema".to_owned(), dialect.into());
        schema.insert("title".to_owned(), title.into());
        schema.extend(self.shape(shape));
        Value::Object(schema)
    }

    fn shape(&self, shape: &Shape) -> Map<String, Value> {
        let mut schema = Map::new();
        let mut set = |name: &str, value| schema.insert(name.to_owned(), value);
        set("description", shape.about.into());
        set("type", "object".into());
        let properties = shape
            .keys
            .iter()
            .map(|key| (key.name.to_owned(), self.key(key)));
        set("properties", Value::Object(properties.collect()));
        set("additionalProperties", false.into());
        let required: Vec<_> = shape
            .keys
            .iter()
            .filter(|key| matches!(key.need, Need::Required(_) | Need::Expected))
            .map(|key| key.name)
            .collect();
        if !required.is_empty() {
            set("required", required.into());
        }
        let dependent = shape.keys.iter().filter_map(|key| match key.need {
            Need::With(other) => Some((key.name.to_owned(), json!([other]))),
            _ => None,
        });
        let dependent: Map<_, _> = dependent.collect();
        if !dependent.is_empty() {
            set("dependentRequired", Value::Object(dependent));
        }
        if !shape.one_of.is_empty() {
            let each = shape.one_of.iter().map(|key| json!({ "required": [key] }));
            set("oneOf", each.collect());
        }
        schema
    }

    fn key(&self, key: &Key) -> Value {
        let mut schema = self.kind(&key.kind);
        if self.variables && takes_a_variable(&key.kind) {
            let variable = json!({ "type": "string", "pattern": VARIABLE });
            schema = any_of(vec![Value::Object(schema), variable]);
        }
        schema.insert("description".to_owned(), key.about.into());
        Value::Object(schema)
    }

    /// What an element of a list or a map may be.
    fn element(&self, kind: &Kind) -> Value {
        let schema = Value::Object(self.kind(kind));
        match self.variables && takes_a_variable(kind) {
            true => {
                let variable = json!({ "type": "string", "pattern": VARIABLE });
                Value::Object(any_of(vec![schema, variable]))
            }
            false => schema,
        }
    }

    fn kind(&self, kind: &Kind) -> Map<String, Value> {
        let schema = match kind {
            Kind::Table(shape) => return self.shape(shape),
            Kind::Either(kinds) => {
                return any_of(kinds.iter().map(|kind| self.element(kind)).collect());
            }
            Kind::List(kind) => json!({ "type": "array", "items": self.element(kind) }),
            Kind::Map(kind) => json!({
                "type": "object",
                "additionalProperties": self.element(kind),
            }),
            Kind::Numbers(low, high) => {
                let number = Kind::Number(*low, *high);
                return any_of(vec![
                    self.element(&number),
                    json!({ "type": "array", "items": self.element(&number), "minItems": 1 }),
                    json!({ "type": "string", "pattern": "^[0-9]+\\.\\.[0-9]+$" }),
                ]);
            }
            Kind::Number(low, high) => {
                json!({ "type": "integer", "minimum": low, "maximum": high })
            }
            Kind::Named(high, names) => {
                let names: Vec<_> = names.iter().map(|(name, _)| *name).collect();
                return any_of(vec![
                    json!({ "type": "integer", "minimum": 0, "maximum": high }),
                    json!({ "type": "string", "enum": names }),
                ]);
            }
            Kind::Flags(names) => {
                let high = (1u64 << names.len()) - 1;
                return any_of(vec![
                    json!({ "type": "integer", "minimum": 0, "maximum": high }),
                    json!({ "type": "string", "pattern": flags_pattern(names) }),
                ]);
            }
            Kind::Bool => json!({ "type": "boolean" }),
            Kind::Word(words) => json!({ "type": "string", "enum": words() }),
            Kind::Line | Kind::Command | Kind::Text => json!({ "type": "string" }),
            Kind::Name => json!({ "type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$" }),
            Kind::Duration(_) => json!({
                "type": "string",
                "pattern": "^[0-9]+ ?[a-zµ]+( ?[0-9]+ ?[a-zµ]+)*$",
            }),
            Kind::Address | Kind::AnyAddress => json!({
                "type": "string",
                "pattern": "^[0-9]{1,3}(\\.[0-9]{1,3}){3}$",
            }),
            Kind::Mac => json!({
                "type": "string",
                "pattern": "^[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}$",
            }),
            Kind::Device => json!({ "type": "string", "pattern": "^[^/:\\s]{1,15}$" }),
            Kind::Hex => json!({ "type": "string", "pattern": "^[0-9A-Fa-f:\\s]*$" }),
            Kind::Conditions => return self.conditions(),
            Kind::Special(_, "") => json!({}),
            Kind::Special(_, pattern) => json!({ "pattern": pattern }),
        };
        match schema {
            Value::Object(schema) => schema,
            _ => Map::new(),
        }
    }

    /// `"ipv4.ttl"`, `"ipv4.1.ttl"`, or the same as tables in tables.
    fn conditions(&self) -> Map<String, Value> {
        let (mut layers, mut paths) = (Map::new(), Map::new());
        for (layer, shape) in layer::WITH_FIELDS {
            let mut fields = Map::new();
            let numbers = shape
                .keys
                .iter()
                .filter(|key| condition::is_number(&key.kind));
            for field in numbers {
                let mut schema = any_of(vec![
                    self.element(&field.kind),
                    json!({ "type": "string", "enum": ["unchanged"] }),
                    Value::Object(self.shape(&condition::TEST)),
                ]);
                schema.insert("description".to_owned(), field.about.into());
                let schema = Value::Object(schema);
                let path = format!("^{layer}(\\.[0-9]+)?\\.{}$", field.name);
                paths.insert(path, schema.clone());
                fields.insert(field.name.to_owned(), schema);
            }
            let mut of_layer = object(fields);
            let numbered = json!({ "^[0-9]+$": of_layer });
            of_layer.insert("patternProperties".to_owned(), numbered);
            layers.insert(layer.to_owned(), Value::Object(of_layer));
        }
        let mut schema = object(layers);
        schema.insert("patternProperties".to_owned(), Value::Object(paths));
        schema
    }
}

/// A table that has these keys and no other.
fn object(properties: Map<String, Value>) -> Map<String, Value> {
    Map::from_iter([
        ("type".to_owned(), "object".into()),
        ("properties".to_owned(), Value::Object(properties)),
        ("additionalProperties".to_owned(), false.into()),
    ])
}

fn any_of(kinds: Vec<Value>) -> Map<String, Value> {
    Map::from_iter([("anyOf".to_owned(), kinds.into())])
}

/// Whether a variable in its place would break what the schema says of it.
fn takes_a_variable(kind: &Kind) -> bool {
    !matches!(
        kind,
        Kind::Table(_)
            | Kind::Map(_)
            | Kind::Conditions
            | Kind::Line
            | Kind::Text
            | Kind::Command
            | Kind::List(Kind::Table(_))
    )
}

fn flags_pattern(names: &[&str]) -> String {
    match flags_between(names) {
        "" => format!("^[{}]*$", names.concat()),
        between => {
            let name = format!("({})", names.join("|"));
            format!("^({name}(\\{between}{name})*)?$")
        }
    }
}
