//! Where things are: the routes of the server with real ids, or with ids that nobody has, in the
//! place of `{id}`. A route with a kind of thing that is not known here ends the story, so that no
//! new route slips by.

use std::collections::BTreeMap;

/// An id of the right form that nobody has.
pub const NOBODY: &str = "019ac6a5-1c00-7000-8000-00000000dead";

/// Ids of one company's things, by the path segment before them.
#[derive(Clone, Debug, Default)]
pub struct Places(BTreeMap<&'static str, String>);

/// The path segments that an id follows.
const KINDS: [&str; 11] = [
    "tokens",
    "enrollments",
    "operations",
    "users",
    "devices",
    "companies",
    "clients",
    "webhooks",
    "deliveries",
    "approvals",
    "bindings",
];

impl Places {
    /// Ids that nobody has.
    pub fn nowhere() -> Self {
        Self(KINDS.into_iter().map(|kind| (kind, NOBODY.to_owned())).collect())
    }

    /// The same with the id of one thing.
    #[must_use]
    pub fn with(mut self, kind: &'static str, id: &str) -> Self {
        assert!(KINDS.contains(&kind), "{kind} is no kind of thing");
        self.0.insert(kind, id.to_owned());
        self
    }

    /// The path with ids for its `{…}`.
    pub fn at(&self, path: &str) -> String {
        let mut before = "";
        let mut filled = Vec::new();
        for segment in path.split('/') {
            filled.push(match segment.strip_prefix('{') {
                Some(_) => {
                    self.0.get(before).unwrap_or_else(|| panic!("{path}: whose id?")).as_str()
                }
                None => segment,
            });
            before = segment;
        }
        filled.join("/")
    }
}

/// Whether a path has an id in it.
pub fn has_id(path: &str) -> bool {
    path.contains('{')
}
