//! What objects and collections are called in URLs.

use std::borrow::Cow;
use std::fmt::{self, Write};

use rubelet_api::Resource;

/// An object or a collection: `/api/v1/namespaces/NS/pods/NAME/status` and the like.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path {
    /// Empty for core/v1.
    pub group: Cow<'static, str>,
    pub version: Cow<'static, str>,
    pub resource: Cow<'static, str>,
    pub namespace: Option<String>,
    pub name: Option<String>,
    pub subresource: Option<Cow<'static, str>>,
}

impl Path {
    /// A collection by its words, for kinds that there is no type for.
    #[must_use]
    pub fn of(group: &'static str, version: &'static str, resource: &'static str) -> Self {
        Self {
            group: group.into(),
            version: version.into(),
            resource: resource.into(),
            namespace: None,
            name: None,
            subresource: None,
        }
    }

    /// All objects of a kind: of all namespaces, if the kind has them.
    #[must_use]
    pub fn all<T: Resource>() -> Self {
        Self::of(T::GROUP, T::VERSION, T::URL_PATH_SEGMENT)
    }

    /// All objects of a kind in a namespace.
    #[must_use]
    pub fn within<T: Resource>(namespace: &str) -> Self {
        Self::all::<T>().in_namespace(namespace)
    }

    /// One object in a namespace.
    #[must_use]
    pub fn to<T: Resource>(namespace: &str, name: &str) -> Self {
        Self::within::<T>(namespace).named(name)
    }

    /// One object of a kind that has no namespaces.
    #[must_use]
    pub fn to_cluster<T: Resource>(name: &str) -> Self {
        Self::all::<T>().named(name)
    }

    #[must_use]
    pub fn in_namespace(self, namespace: &str) -> Self {
        Self { namespace: Some(namespace.to_owned()), ..self }
    }

    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Self { name: Some(name.to_owned()), ..self }
    }

    /// A part of an object: `status`, `token`, `resize`.
    #[must_use]
    pub fn part(self, subresource: &'static str) -> Self {
        Self { subresource: Some(subresource.into()), ..self }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.group {
            "" => write!(f, "/api/{}", self.version)?,
            group => write!(f, "/apis/{group}/{}", self.version)?,
        }
        if let Some(namespace) = &self.namespace {
            write!(f, "/namespaces/{}", Escaped(namespace))?;
        }
        write!(f, "/{}", self.resource)?;
        if let Some(name) = &self.name {
            write!(f, "/{}", Escaped(name))?;
        }
        match &self.subresource {
            Some(subresource) => write!(f, "/{subresource}"),
            None => Ok(()),
        }
    }
}

/// Which objects of a collection; the empty texts choose all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// `spec.nodeName=n1,metadata.name!=x`.
    pub fields: String,
    /// `app=web,tier!=back`.
    pub labels: String,
}

impl Selector {
    /// All objects.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// By fields that the API server has an index for.
    #[must_use]
    pub fn fields(fields: impl Into<String>) -> Self {
        Self { fields: fields.into(), ..Self::default() }
    }

    /// The one object of this name.
    #[must_use]
    pub fn name(name: &str) -> Self {
        Self::fields(format!("metadata.name={name}"))
    }

    /// By labels.
    #[must_use]
    pub fn labels(labels: impl Into<String>) -> Self {
        Self { labels: labels.into(), ..Self::default() }
    }
}

/// The part of a URL after the question mark.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(String);

impl Query {
    /// Adds a parameter.
    pub(crate) fn with(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        // Writing to a string does not fail.
        let _ = write!(self.0, "{name}={}", Escaped(&value.to_string()));
        self
    }

    /// Adds a parameter unless it is empty.
    pub(crate) fn with_some(self, name: &str, value: &str) -> Self {
        if value.is_empty() { self } else { self.with(name, value) }
    }

    pub(crate) fn of(selector: &Selector) -> Self {
        Self::default().with_some("fieldSelector", &selector.fields).with_some("labelSelector", &selector.labels)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text with everything that means something in a URL written as `%XX`.
pub(crate) struct Escaped<'a>(pub(crate) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => {
                    f.write_char(byte.into())?
                }
                _ => write!(f, "%{byte:02X}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rubelet_api::groups::coordination_v1::Lease;
    use rubelet_api::v1;

    #[test]
    fn paths_are_written_as_the_server_reads_them() {
        assert_eq!(Path::all::<v1::Pod>().to_string(), "/api/v1/pods");
        assert_eq!(Path::to::<v1::Pod>("ns", "a").part("status").to_string(), "/api/v1/namespaces/ns/pods/a/status");
        assert_eq!(Path::to_cluster::<v1::Node>("n1").to_string(), "/api/v1/nodes/n1");
        assert_eq!(
            Path::to::<Lease>("kube-node-lease", "n1").to_string(),
            "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1"
        );
        assert_eq!(Path::to::<v1::Secret>("../x", "a/b?c").to_string(), "/api/v1/namespaces/..%2Fx/secrets/a%2Fb%3Fc");
    }

    #[test]
    fn queries_escape_what_selectors_contain() {
        let query = Query::of(&Selector::fields("spec.nodeName=n1,a!=b")).with("limit", 5);
        assert_eq!(query.as_str(), "?fieldSelector=spec.nodeName%3Dn1%2Ca%21%3Db&limit=5");
        assert_eq!(Query::of(&Selector::all()).as_str(), "");
    }
}
