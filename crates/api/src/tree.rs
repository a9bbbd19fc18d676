//! Typed objects as trees of JSON and back, by way of their text.
//!
//! `serde_json::to_value` and `from_value` do the same without the text, but with code of their own for each of the hundreds of types
//! of the API. The code for the text is there anyhow; through it the program is a tenth smaller, on disk and in memory.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// The tree that the object is written as.
///
/// # Errors
///
/// The object holds what JSON cannot say, such as a map whose keys are no texts.
pub fn to_tree<T: Serialize + ?Sized>(object: &T) -> serde_json::Result<Value> {
    serde_json::from_slice(&serde_json::to_vec(object)?)
}

/// The object that the tree says.
///
/// # Errors
///
/// What is wrong with the tree; its position is that in a text that nobody wrote.
pub fn from_tree<T: DeserializeOwned>(tree: &Value) -> serde_json::Result<T> {
    serde_json::from_slice(&serde_json::to_vec(tree)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_the_same_there_and_back() {
        let text = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"é\"\n"},"spec":{"containers":[{"name":"c"}],"priority":-3}}"#;
        let tree: Value = serde_json::from_str(text).expect("JSON");
        let pod: crate::v1::Pod = from_tree(&tree).expect("a pod");
        assert_eq!(pod, serde_json::from_value(tree.clone()).expect("a pod"));
        assert_eq!(to_tree(&pod).expect("a tree"), serde_json::to_value(&pod).expect("a tree"));
        assert!(from_tree::<crate::v1::Pod>(&Value::from(1)).is_err());
    }
}
