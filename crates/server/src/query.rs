//! The parameters of a request, as Go reads them.

use crate::mux;

/// Names and values, decoded, in their order. What is malformed is left out, as Go does.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads what stands behind the question mark.
    pub(crate) fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')).filter_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode(name)?, decode(value)?))
        });
        Self(pairs.collect())
    }

    /// All values of a name.
    pub(crate) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The first value of a name.
    pub(crate) fn first<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.values(name).next()
    }

    /// Sets the only value of a name, or removes it.
    pub(crate) fn set(&mut self, name: &str, value: Option<&str>) {
        self.0.retain(|(known, _)| known != name);
        if let Some(value) = value {
            self.0.push((name.to_owned(), value.to_owned()));
        }
    }
}

/// `+` is a space, `%2f` is a slash; `None`: a percent sign without two digits. What is no UTF-8 is replaced.
fn decode(text: &str) -> Option<String> {
    mux::decode(&text.replace('+', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_as_go_reads() {
        let query = Query::parse("a=1&b=x+y%2Fz&a=2&bad=%zz&c&semi;=1&&d=");
        assert_eq!(query.values("a").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(query.first("b"), Some("x y/z"));
        assert_eq!(
            (query.first("c"), query.first("d"), query.first("bad"), query.first("semi")),
            (Some(""), Some(""), None, None)
        );
        let mut query = query;
        query.set("a", None);
        query.set("b", Some("1"));
        assert_eq!((query.first("a"), query.first("b")), (None, Some("1")));
    }
}
