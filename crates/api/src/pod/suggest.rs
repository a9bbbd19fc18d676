//! "Did you mean …?"

use super::schema::{POD, Shape};

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
pub(super) fn suggestion(name: &str, shape: &Shape) -> Option<String> {
    let near = shape
        .fields
        .iter()
        .map(|(field, _)| (distance(&name.to_lowercase(), &field.to_lowercase()), *field))
        .filter(|(distance, field)| *distance <= allowed(name.len().max(field.len())))
        .min();
    if let Some((_, field)) = near {
        return Some(format!("did you mean {field:?}?"));
    }
    let habit = HABITS.iter().find(|(habit, field)| *habit == name && shape.field(field).is_some());
    if let Some((_, field)) = habit {
        return Some(format!("did you mean {field:?}?"));
    }
    places().find(|(_, shape)| shape.field(name).is_some()).map(|(place, _)| format!("{name} is a field of {place}"))
}

/// The candidate nearest to a word, if one is near.
pub(super) fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    candidates
        .iter()
        .map(|candidate| (distance(&word.to_lowercase(), &candidate.to_lowercase()), *candidate))
        .filter(|(distance, candidate)| *distance <= allowed(candidate.len()))
        .min()
        .map(|(_, candidate)| candidate)
}

fn allowed(length: usize) -> usize {
    match length {
        0..=3 => 1,
        4..=7 => 2,
        _ => 3,
    }
}

/// The objects in which people look for fields first.
fn places() -> impl Iterator<Item = (&'static str, &'static Shape)> {
    let child = |shape: &'static Shape, field: &str| shape.field(field).and_then(super::schema::Kind::shape);
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

/// Edits (insert, delete, replace, swap of neighbours) that make one word the other.
fn distance(a: &str, b: &str) -> usize {
    const LONGEST: usize = 64;
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().max(b.len()) > LONGEST {
        return usize::MAX;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut next = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = row[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            next[j] = replaced.min(row[j] + 1).min(next[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                next[j] = next[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut row, next);
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_and_misplaced_fields_are_found() {
        let spec = POD.field("spec").and_then(super::super::schema::Kind::shape).unwrap();
        assert_eq!(suggestion("container", spec).unwrap(), r#"did you mean "containers"?"#);
        assert_eq!(suggestion("restartpolicy", spec).unwrap(), r#"did you mean "restartPolicy"?"#);
        assert_eq!(suggestion("hostNetwrok", spec).unwrap(), r#"did you mean "hostNetwork"?"#);
        assert_eq!(
            suggestion("livenessProbe", spec).unwrap(),
            "livenessProbe is a field of a container, spec.containers[]"
        );
        let meta = POD.field("metadata").and_then(super::super::schema::Kind::shape).unwrap();
        assert_eq!(suggestion("restartPolicy", meta).unwrap(), "restartPolicy is a field of spec");
        assert_eq!(suggestion("zebra", meta), None);
        assert_eq!(nearest("Depoyment", &["Deployment", "Pod"]), Some("Deployment"));
    }

    #[test]
    fn swapped_neighbours_are_one_edit() {
        assert_eq!(distance("abc", "acb"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
