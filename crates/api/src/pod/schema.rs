//! The shape of a Pod: every field's name and kind, as a table.
//!
//! The typed structs drop unknown fields in silence and stop at the first wrong type without a position. A walk over
//! this table finds every unknown field and every wrong type at once, and knows where each stands in the file.
//! The names are those of core/v1 1.36; a test keeps the table and the structs together.

mod container;
mod object;
mod spec;
mod volume;

pub(crate) use object::POD;

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    use super::*;
    use crate::schema::{Kind, Shape};

    /// A value with every field, as far as `depth` goes.
    fn full(kind: &Kind, depth: usize) -> Value {
        match kind {
            Kind::Text => json!("x"),
            Kind::Bool => json!(true),
            Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::IntOrString | Kind::Float => json!(7),
            Kind::Duration | Kind::DurationOrNanos => json!("1s"),
            Kind::Quantity => json!("1"),
            Kind::Time => json!("2026-01-31T12:00:00Z"),
            Kind::Anything => json!({}),
            Kind::List(inner) => Value::Array(vec![full(inner, depth)]),
            Kind::Map(inner) => json!({"k": full(inner, depth)}),
            Kind::Pointer(inner) => full(inner, depth),
            Kind::Object(shape) if depth == 0 => {
                let _ = shape;
                json!({})
            }
            Kind::Object(shape) => Value::Object(object(shape, depth)),
        }
    }

    fn object(shape: &Shape, depth: usize) -> Map<String, Value> {
        shape.fields.iter().map(|(name, kind)| ((*name).to_owned(), full(kind, depth - 1))).collect()
    }

    fn assert_kept(before: &Value, after: &Value, path: &str) {
        match (before, after) {
            (Value::Object(before), Value::Object(after)) => {
                for (key, value) in before {
                    let kept = after.get(key).unwrap_or_else(|| panic!("the type has no field {path}.{key}"));
                    assert_kept(value, kept, &format!("{path}.{key}"));
                }
            }
            (Value::Array(before), Value::Array(after)) => assert_kept(&before[0], &after[0], path),
            _ => assert_eq!(before, after, "{path}"),
        }
    }

    #[test]
    fn every_field_of_the_table_is_a_field_of_the_type() {
        let mut pod = Value::Object(object(&POD, 20));
        pod["apiVersion"] = json!("v1");
        pod["kind"] = json!("Pod");
        let typed: crate::v1::Pod = serde_json::from_value(pod.clone()).unwrap();
        assert_kept(&pod, &serde_json::to_value(&typed).unwrap(), "");
    }

    #[test]
    fn tables_have_no_field_twice() {
        let mut names: Vec<&str> =
            POD.field("spec").and_then(Kind::shape).unwrap().fields.iter().map(|f| f.0).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert_eq!(count, 42, "fields of PodSpec in 1.36");
    }
}
