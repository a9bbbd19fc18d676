//! What the author of an unknown field of a Pod may have meant.

use super::schema::POD;
use crate::schema::{Kind, Shape};
use crate::suggest::near_field;

/// What other tools call a field.
const HABITS: [(&str, &str); 11] = [
    ("cmd", "command"),
    ("entrypoint", "command"),
    ("environment", "env"),
    ("env_file", "envFrom"),
    ("healthcheck", "livenessProbe"),
    ("mounts", "volumeMounts"),
    ("volumes", "volumeMounts"),
    ("restart", "restartPolicy"),
    ("user", "securityContext"),
    ("privileged", "securityContext"),
    ("network_mode", "hostNetwork"),
];

/// What the author of an unknown field may have meant: a field of the same object with nearly the same name, or the
/// place where a field of just this name belongs.
pub(super) fn hint(name: &str, shape: &Shape) -> Option<String> {
    if let Some(field) = near_field(name, shape) {
        return Some(format!("did you mean {field:?}?"));
    }
    let habit = HABITS.iter().find(|(habit, field)| *habit == name && shape.field(field).is_some());
    if let Some((_, field)) = habit {
        return Some(format!("did you mean {field:?}?"));
    }
    places().find(|(_, shape)| shape.field(name).is_some()).map(|(place, _)| format!("{name} is a field of {place}"))
}

/// The objects in which people look for fields first.
fn places() -> impl Iterator<Item = (&'static str, &'static Shape)> {
    let child = |shape: &'static Shape, field: &str| shape.field(field).and_then(Kind::shape);
    let spec = child(&POD, "spec");
    let container = spec.and_then(|spec| child(spec, "containers"));
    let all = [
        ("spec", spec),
        ("metadata", child(&POD, "metadata")),
        ("a container, spec.containers[]", container),
        ("spec.securityContext", spec.and_then(|spec| child(spec, "securityContext"))),
        ("a container's securityContext", container.and_then(|one| child(one, "securityContext"))),
        ("a container's resources", container.and_then(|one| child(one, "resources"))),
        ("a probe, such as spec.containers[].livenessProbe", container.and_then(|one| child(one, "livenessProbe"))),
        ("a volume, spec.volumes[]", spec.and_then(|spec| child(spec, "volumes"))),
    ];
    all.into_iter().filter_map(|(place, shape)| Some((place, shape?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_and_misplaced_fields_are_found() {
        let spec = POD.field("spec").and_then(Kind::shape).unwrap();
        assert_eq!(hint("container", spec).unwrap(), r#"did you mean "containers"?"#);
        assert_eq!(hint("restartpolicy", spec).unwrap(), r#"did you mean "restartPolicy"?"#);
        assert_eq!(hint("hostNetwrok", spec).unwrap(), r#"did you mean "hostNetwork"?"#);
        assert_eq!(hint("livenessProbe", spec).unwrap(), "livenessProbe is a field of a container, spec.containers[]");
        let meta = POD.field("metadata").and_then(Kind::shape).unwrap();
        assert_eq!(hint("restartPolicy", meta).unwrap(), "restartPolicy is a field of spec");
        assert_eq!(hint("zebra", meta), None);
    }
}
