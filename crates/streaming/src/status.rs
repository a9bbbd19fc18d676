//! What a client is told at the end, in the stream `error`.

use serde_json::{Value, json};

/// The end of an exec or attach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// All went well.
    Success,
    /// The command ended with another code than 0. kubelet 1.36: the text says what runtimes say there.
    Exited {
        /// The code.
        code: i32,
        /// What the runtime says about it.
        text: String,
    },
    /// It could not be run, or watched to its end.
    Internal(String),
}

impl Status {
    /// The text for a person.
    pub fn message(&self) -> String {
        match self {
            Self::Success => String::new(),
            Self::Exited { text, .. } => format!("command terminated with non-zero exit code: {text}"),
            Self::Internal(text) => format!("Internal error occurred: {text}"),
        }
    }

    /// From version 4 on: a `metav1.Status`.
    pub(crate) fn json(&self) -> Vec<u8> {
        let value = match self {
            Self::Success => json!({"metadata": {}, "status": "Success"}),
            Self::Exited { code, .. } => json!({
                "metadata": {},
                "status": "Failure",
                "message": self.message(),
                "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            }),
            Self::Internal(text) => json!({
                "metadata": {},
                "status": "Failure",
                "message": self.message(),
                "reason": "InternalError",
                "details": {"causes": [{"message": text}]},
                "code": 500,
            }),
        };
        value.to_string().into_bytes()
    }

    /// Reads what [`Status::json`] writes. `None`: it is something else.
    pub fn parse(json: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(json).ok()?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        match value["status"].as_str()? {
            "Success" => Some(Self::Success),
            "Failure" if value["reason"] == "NonZeroExitCode" => {
                let causes = value["details"]["causes"].as_array()?;
                let code = causes.iter().find(|cause| cause["reason"] == "ExitCode")?["message"].as_str()?;
                let message = text(&value["message"]);
                let text = message.strip_prefix("command terminated with non-zero exit code: ").unwrap_or(&message);
                Some(Self::Exited { code: code.parse().ok()?, text: text.to_owned() })
            }
            "Failure" => {
                let message = text(&value["message"]);
                let text = message.strip_prefix("Internal error occurred: ").unwrap_or(&message);
                Some(Self::Internal(text.to_owned()))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_is_written_as_kubelet_writes_it() {
        let exited = Status::Exited { code: 3, text: "error executing command [false], exit code 3".to_owned() };
        let cases = [
            (Status::Success, r#"{"metadata":{},"status":"Success"}"#),
            (
                exited,
                r#"{"metadata":{},"status":"Failure","message":"command terminated with non-zero exit code: error executing command [false], exit code 3","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#,
            ),
            (
                Status::Internal("error attaching to container: gone".to_owned()),
                r#"{"metadata":{},"status":"Failure","message":"Internal error occurred: error attaching to container: gone","reason":"InternalError","details":{"causes":[{"message":"error attaching to container: gone"}]},"code":500}"#,
            ),
        ];
        for (status, text) in cases {
            assert_eq!(String::from_utf8(status.json()).unwrap(), text);
            assert_eq!(Status::parse(text.as_bytes()), Some(status));
        }
    }

    #[test]
    fn other_text_is_no_status() {
        for text in ["", "gone", "{}", r#"{"status":"Maybe"}"#, r#"{"status":"Failure","reason":"NonZeroExitCode"}"#] {
            assert_eq!(Status::parse(text.as_bytes()), None, "{text}");
        }
    }
}
