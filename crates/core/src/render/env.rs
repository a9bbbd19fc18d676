//! A container's environment.

use std::path::PathBuf;

use rubelet_api::v1;

use super::expand::{expand, references};
use super::{ContainerView, RenderError, downward, namespace};
use crate::pod::step::EnvFile;
use crate::pod::volumes;

/// The variables of one container.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Env {
    /// In the order of the pod's specification; a repeated name keeps its first place and its last value.
    pub variables: Vec<(String, String)>,
    /// Variables whose value stands in a file that only exists when the container is about to start.
    pub files: Vec<EnvFile>,
}

impl Env {
    /// Replaces references in a command, argument or sub-path. A reference to a variable that is read from a file is refused:
    /// its value is not known here.
    pub fn expand(&self, text: &str) -> Result<String, RenderError> {
        self.refuse_late(text)?;
        Ok(expand(text, |name| self.get(name).map(str::to_owned)))
    }

    /// As [`Env::expand`], but an unknown name is an error, as sub-paths want it.
    pub fn expand_strictly(&self, text: &str) -> Result<String, RenderError> {
        match references(text).into_iter().find(|name| self.get(name).is_none()) {
            Some(name) => Err(RenderError::config(format!("missing value for {name:?}"))),
            None => self.expand(text),
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.variables.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    fn set(&mut self, name: &str, value: String) {
        self.files.retain(|f| f.variable != name);
        match self.variables.iter_mut().find(|(n, _)| n == name) {
            Some((_, known)) => *known = value,
            None => self.variables.push((name.to_owned(), value)),
        }
    }

    fn refuse_late(&self, text: &str) -> Result<(), RenderError> {
        let late = references(text).into_iter().find(|name| self.files.iter().any(|f| f.variable == *name));
        match late {
            None => Ok(()),
            Some(name) => Err(RenderError::config(format!(
                "$({name}) refers to a variable with fileKeyRef, which is not supported"
            ))),
        }
    }
}

/// The container's environment. kubelet 1.36: later variables may refer to earlier ones; what comes from ConfigMaps and Secrets
/// needs an API server.
pub fn environment(view: &ContainerView<'_>, container: &v1::Container) -> Result<Env, RenderError> {
    let mut env = Env::default();
    for source in container.env_from.iter().flatten() {
        if let Some(map) = &source.config_map_ref {
            return Err(needs_api("configMap", view.pod, &map.name));
        }
        if let Some(secret) = &source.secret_ref {
            return Err(needs_api("secret", view.pod, &secret.name));
        }
    }
    for variable in container.env.iter().flatten() {
        match (variable.value.as_deref().unwrap_or_default(), &variable.value_from) {
            ("", Some(source)) => from_source(&mut env, view, container, &variable.name, source)?,
            (text, _) => {
                let value = env.expand(text)?;
                env.set(&variable.name, value);
            }
        }
    }
    Ok(env)
}

fn from_source(
    env: &mut Env,
    view: &ContainerView<'_>,
    container: &v1::Container,
    variable: &str,
    source: &v1::EnvVarSource,
) -> Result<(), RenderError> {
    if let Some(selector) = &source.field_ref {
        let value = downward::field(view.pod, view.node, view.pod_ips, &selector.field_path)?;
        env.set(variable, value);
    } else if let Some(selector) = &source.resource_field_ref {
        let value = downward::resource(view.pod, view.node, Some(&container.name), selector)?;
        env.set(variable, value);
    } else if let Some(key) = &source.config_map_key_ref {
        return Err(needs_api("configMap", view.pod, &key.name));
    } else if let Some(key) = &source.secret_key_ref {
        return Err(needs_api("secret", view.pod, &key.name));
    } else if let Some(key) = &source.file_key_ref {
        let file = env_file(view, variable, key)?;
        env.variables.retain(|(name, _)| name != variable);
        env.files.retain(|f| f.variable != variable);
        env.files.push(file);
    } else {
        env.set(variable, String::new());
    }
    Ok(())
}

fn needs_api(kind: &str, pod: &v1::Pod, name: &str) -> RenderError {
    RenderError::config(format!("couldn't get {kind} {}/{name}, no kubeClient defined", namespace(pod)))
}

fn env_file(view: &ContainerView<'_>, variable: &str, key: &v1::FileKeySelector) -> Result<EnvFile, RenderError> {
    if !view.node.settings.gates.env_files {
        return Err(RenderError::config(format!(
            "environment variable {variable} uses fileKeyRef, but the feature gate EnvFiles is off"
        )));
    }
    let volume = view.pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()).find(|v| v.name == key.volume_name);
    let volume_path: PathBuf = match volume {
        Some(volume) => volumes::path(view.pod, view.node, volume),
        None => {
            return Err(RenderError::config(format!(
                "cannot find the volume {:?} referenced by FileKeyRef",
                key.volume_name
            )));
        }
    };
    Ok(EnvFile {
        variable: variable.to_owned(),
        volume_path,
        path: key.path.clone(),
        key: key.key.clone(),
        is_optional: key.optional.unwrap_or(false),
    })
}
