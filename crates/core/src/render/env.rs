//! A container's environment.

use std::path::PathBuf;

use rubelet_api::v1;

use super::expand::{expand, references};
use super::{ContainerView, RenderError, downward, namespace};
use crate::pod::needs::{Lack, ObjectName};
use crate::pod::step::EnvFile;
use crate::pod::{services, volumes};

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

/// The container's environment. kubelet 1.36: what the container declares stands before what it takes from whole objects, and that
/// before what services give; a value may refer to all of them and to variables declared before it.
pub fn environment(view: &ContainerView<'_>, container: &v1::Container) -> Result<Env, RenderError> {
    let pod_namespace = namespace(view.pod);
    let services = match view.inputs.services(pod_namespace) {
        Ok(services) => services,
        Err(lack) => return Err(lacking(lack, String::new)),
    };
    let has_links = view.pod.spec.as_ref().and_then(|s| s.enable_service_links).unwrap_or(true);
    let mut env = Env::default();
    for (name, value) in services::variables(services, pod_namespace, has_links) {
        env.set(&name, value);
    }
    for source in container.env_from.iter().flatten() {
        from_object(&mut env, view, source)?;
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

/// All of a ConfigMap's texts or of a Secret's values. kubelet 1.36: names are taken as they are.
fn from_object(env: &mut Env, view: &ContainerView<'_>, source: &v1::EnvFromSource) -> Result<(), RenderError> {
    let prefix = source.prefix.as_deref().unwrap_or_default();
    if let Some(from) = &source.config_map_ref {
        let found = config_map(view, &from.name, from.optional)?;
        for (key, value) in found.and_then(|m| m.data.as_ref()).into_iter().flatten() {
            env.set(&format!("{prefix}{key}"), value.clone());
        }
    } else if let Some(from) = &source.secret_ref {
        let found = secret(view, &from.name, from.optional)?;
        for (key, value) in found.and_then(|s| s.data.as_ref()).into_iter().flatten() {
            env.set(&format!("{prefix}{key}"), text(&value.0));
        }
    }
    Ok(())
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
        let found = config_map(view, &key.name, key.optional)?;
        let value = found.and_then(|m| m.data.as_ref()?.get(&key.key)).cloned();
        from_key(env, view, variable, value, ("ConfigMap", &key.name, &key.key, key.optional))?;
    } else if let Some(key) = &source.secret_key_ref {
        let found = secret(view, &key.name, key.optional)?;
        let value = found.and_then(|s| s.data.as_ref()?.get(&key.key)).map(|v| text(&v.0));
        from_key(env, view, variable, value, ("Secret", &key.name, &key.key, key.optional))?;
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

fn from_key(
    env: &mut Env,
    view: &ContainerView<'_>,
    variable: &str,
    value: Option<String>,
    (kind, name, key, optional): (&str, &str, &str, Option<bool>),
) -> Result<(), RenderError> {
    match value {
        Some(value) => env.set(variable, value),
        None if optional == Some(true) => {}
        None => {
            let namespace = namespace(view.pod);
            return Err(RenderError::config(format!("couldn't find key {key} in {kind} {namespace}/{name}")));
        }
    }
    Ok(())
}

/// `None`: it does not exist and need not.
fn config_map<'a>(
    view: &ContainerView<'a>,
    name: &str,
    optional: Option<bool>,
) -> Result<Option<&'a v1::ConfigMap>, RenderError> {
    match view.inputs.config_map(ObjectName::beside(view.pod, name)) {
        Ok(map) => Ok(Some(map)),
        Err(Lack::NotFound(_)) if optional == Some(true) => Ok(None),
        Err(lack) => Err(lacking(lack, || no_client("configMap", view.pod, name))),
    }
}

fn secret<'a>(
    view: &ContainerView<'a>,
    name: &str,
    optional: Option<bool>,
) -> Result<Option<&'a v1::Secret>, RenderError> {
    match view.inputs.secret(ObjectName::beside(view.pod, name)) {
        Ok(secret) => Ok(Some(secret)),
        Err(Lack::NotFound(_)) if optional == Some(true) => Ok(None),
        Err(lack) => Err(lacking(lack, || no_client("secret", view.pod, name))),
    }
}

fn lacking(lack: Lack, no_server: impl FnOnce() -> String) -> RenderError {
    RenderError::config(match lack {
        Lack::NoServer => no_server(),
        Lack::NotYet => "an object that the environment refers to has not been fetched yet".to_owned(),
        Lack::NotFound(text) | Lack::Failed(text) => text,
    })
}

fn no_client(kind: &str, pod: &v1::Pod, name: &str) -> String {
    format!("couldn't get {kind} {}/{name}, no kubeClient defined", namespace(pod))
}

/// The runtime takes any bytes, the environment of this program's types takes text: what is none is replaced.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn env_file(view: &ContainerView<'_>, variable: &str, key: &v1::FileKeySelector) -> Result<EnvFile, RenderError> {
    if !view.node.settings.gates.env_files {
        return Err(RenderError::config(format!(
            "environment variable {variable} uses fileKeyRef, but the feature gate EnvFiles is off"
        )));
    }
    let volume = view.pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()).find(|v| v.name == key.volume_name);
    let volume_path: PathBuf = match volume {
        Some(volume) => volumes::path(view.pod, view.node, volume, view.inputs),
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
