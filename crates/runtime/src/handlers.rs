//! Runtime handlers: what creates the containers of a sandbox, by the name that its pod asks for.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rubelet_host::exec::{self, Order};
use rubelet_proto::cri;

/// What creates containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Creator {
    /// Our own shim.
    #[default]
    BuiltIn,
    /// An OCI runtime by its path, or by a name that is looked for in the directories of `PATH`.
    Oci(PathBuf),
}

/// The word for [`Creator::BuiltIn`].
const BUILT_IN: &str = "embedded";

impl From<&str> for Creator {
    /// A path, a name, or `embedded` (or nothing) for our own.
    fn from(text: &str) -> Self {
        if text.is_empty() || text == BUILT_IN { Self::BuiltIn } else { Self::Oci(text.into()) }
    }
}

/// Why handlers cannot be as they are configured.
#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    /// The name of a `RuntimeClass`'s handler is a DNS label.
    #[error(
        "runtime handler {0:?}: a name has small letters, digits and '-', at most 63, and begins and ends with none of '-'"
    )]
    Name(String),
    #[error("OCI runtime {0:?} is not in any directory of PATH ({1})")]
    Unknown(PathBuf, String),
    #[error("OCI runtime {0} is not a program that can be executed")]
    NotProgram(PathBuf),
}

/// One of them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Handler {
    /// `None`: our own shim.
    pub(crate) program: Option<PathBuf>,
    pub(crate) features: cri::RuntimeHandlerFeatures,
}

/// All of them; the one without a name is the usual one.
#[derive(Debug)]
pub(crate) struct Handlers(BTreeMap<String, Handler>);

impl Handlers {
    /// Looks each program up, and what it can.
    pub(crate) fn open(usual: &Creator, named: &BTreeMap<String, Creator>, path: &str) -> Result<Self, HandlerError> {
        let mut all = BTreeMap::from([(String::new(), open(usual, path)?)]);
        for (name, creator) in named {
            if !is_label(name) {
                return Err(HandlerError::Name(name.clone()));
            }
            all.insert(name.clone(), open(creator, path)?);
        }
        Ok(Self(all))
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Handler> {
        self.0.get(name)
    }

    /// As `Status` answers them.
    pub(crate) fn shown(&self) -> Vec<cri::RuntimeHandler> {
        let one = |(name, handler): (&String, &Handler)| cri::RuntimeHandler {
            name: name.clone(),
            features: Some(handler.features),
        };
        self.0.iter().map(one).collect()
    }
}

fn is_label(name: &str) -> bool {
    let is_plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let ends = [name.bytes().next(), name.bytes().last()];
    (1..=63).contains(&name.len())
        && name.bytes().all(|c| is_plain(c) || c == b'-')
        && ends.into_iter().flatten().all(is_plain)
}

fn open(creator: &Creator, path: &str) -> Result<Handler, HandlerError> {
    match creator {
        Creator::BuiltIn => Ok(Handler {
            program: None,
            features: cri::RuntimeHandlerFeatures { recursive_read_only_mounts: true, user_namespaces: true },
        }),
        Creator::Oci(name) => {
            let program = look_up(name, path)?;
            let features = features(&program);
            Ok(Handler { program: Some(program), features })
        }
    }
}

fn look_up(name: &Path, path: &str) -> Result<PathBuf, HandlerError> {
    let is_program = |path: &Path| fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    if name.components().count() > 1 || name.is_absolute() {
        let whole = std::path::absolute(name).map_err(|_| HandlerError::NotProgram(name.to_owned()))?;
        return if is_program(&whole) { Ok(whole) } else { Err(HandlerError::NotProgram(whole)) };
    }
    let found = path.split(':').filter(|dir| dir.starts_with('/')).map(|dir| Path::new(dir).join(name));
    found
        .into_iter()
        .find(|path| is_program(path))
        .ok_or_else(|| HandlerError::Unknown(name.to_owned(), path.to_owned()))
}

/// What its `features` tells. One that does not know the word has none of them. Pods with users of their own need a root that is mapped
/// for them, which these runtimes are not asked for.
fn features(program: &Path) -> cri::RuntimeHandlerFeatures {
    let order = Order {
        program,
        arguments: &["features".as_ref()],
        environment: &[(OsString::from("PATH"), OsString::from("/usr/sbin:/usr/bin:/sbin:/bin"))],
        input: b"",
        patience: Duration::from_secs(5),
        output_max: 1 << 20,
    };
    let told = exec::run(&order).ok().filter(|answer| answer.status.success());
    let told = told.and_then(|answer| serde_json::from_slice::<serde_json::Value>(&answer.stdout).ok());
    let options = told.as_ref().and_then(|told| told["mountOptions"].as_array());
    let has_rro = options.is_some_and(|options| options.iter().any(|option| option == "rro"));
    cri::RuntimeHandlerFeatures { recursive_read_only_mounts: has_rro, user_namespaces: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_and_their_features_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, script: &str, mode| {
            let path = dir.path().join(name);
            fs::write(&path, script).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let able =
            write("able", "#!/bin/sh\n[ \"$1\" = features ] && echo '{\"mountOptions\":[\"ro\",\"rro\"]}'\n", 0o755);
        write("old", "#!/bin/sh\nexit 1\n", 0o755);
        let text = write("text", "", 0o644);
        let path = format!("relative:/nowhere:{}", dir.path().display());
        let named = BTreeMap::from([
            ("able".to_owned(), Creator::from(able.to_str().unwrap())),
            ("old".to_owned(), Creator::from("old")),
            ("own".to_owned(), Creator::from("embedded")),
        ]);
        let handlers = Handlers::open(&Creator::from(""), &named, &path).unwrap();
        let shown: Vec<_> = handlers.shown().into_iter().map(|one| (one.name, one.features.unwrap())).collect();
        let can = |recursive_read_only_mounts, user_namespaces| cri::RuntimeHandlerFeatures {
            recursive_read_only_mounts,
            user_namespaces,
        };
        let of = |name: &str, features| (name.to_owned(), features);
        let (all, some, none) = (can(true, true), can(true, false), can(false, false));
        assert_eq!(shown, [of("", all), of("able", some), of("old", none), of("own", all)]);
        assert_eq!(handlers.find("able").unwrap().program.as_deref(), Some(able.as_path()));
        assert!(handlers.find("x").is_none());
        let fails = |name: &str, text: &str| {
            let named = BTreeMap::from([(name.to_owned(), Creator::from(text))]);
            Handlers::open(&Creator::BuiltIn, &named, &path).unwrap_err()
        };
        assert!(matches!(fails("a", "missing"), HandlerError::Unknown(..)));
        assert!(matches!(fails("a", text.to_str().unwrap()), HandlerError::NotProgram(_)));
        for name in ["", "A", "a-", "-a", "a.b", &"a".repeat(64)] {
            assert!(matches!(fails(name, "old"), HandlerError::Name(_)), "{name:?}");
        }
    }
}
