//! Whether a runtime speaks the version of CRI that we speak.

use rubelet_proto::cri::VersionResponse;

use crate::{Runtime, RuntimeError};

/// What `Version` must answer in its field `version`.
pub const API_VERSION: &str = "0.1.0";

/// Asks for the version and checks the answer, as upstream does at its start.
///
/// # Errors
/// The call's own; or [`RuntimeError::Plain`] when fields are missing or another version is spoken
/// (kubelet 1.36: `runtime api version is not supported`).
pub async fn check_version(runtime: &dyn Runtime) -> Result<VersionResponse, RuntimeError> {
    let answer = runtime.version().await?;
    judge(&answer)?;
    Ok(answer)
}

fn judge(answer: &VersionResponse) -> Result<(), RuntimeError> {
    let fields = [
        ("Version", &answer.version),
        ("RuntimeName", &answer.runtime_name),
        ("RuntimeApiVersion", &answer.runtime_api_version),
        ("RuntimeVersion", &answer.runtime_version),
    ];
    let missing: Vec<&str> = fields.iter().filter(|(_, value)| value.is_empty()).map(|(name, _)| *name).collect();
    if !missing.is_empty() {
        let message = format!("not all fields are set in VersionResponse (missing {})", missing.join(", "));
        return Err(RuntimeError::Plain { verb: "Version", message });
    }
    if answer.version != API_VERSION {
        return Err(RuntimeError::Plain {
            verb: "Version",
            message: "runtime api version is not supported".to_owned(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(version: &str, name: &str) -> VersionResponse {
        VersionResponse {
            version: version.into(),
            runtime_name: name.into(),
            runtime_version: "2.1.9".into(),
            runtime_api_version: "v1".into(),
        }
    }

    #[test]
    fn the_spoken_version_is_accepted() {
        assert_eq!(judge(&answer("0.1.0", "containerd")), Ok(()));
    }

    #[test]
    fn another_version_is_refused() {
        let refusal = judge(&answer("0.2.0", "containerd")).unwrap_err();
        assert_eq!(refusal.to_string(), "runtime api version is not supported");
    }

    #[test]
    fn missing_fields_are_named() {
        let refusal = judge(&answer("", "")).unwrap_err();
        assert_eq!(refusal.to_string(), "not all fields are set in VersionResponse (missing Version, RuntimeName)");
    }
}
