//! What a key allows.

use std::fmt;
use std::str::FromStr;

/// A right. Each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Look.
    Read,
    /// Change one's own things: streams, views, exports.
    Write,
    /// Start, cancel, retry and pause what the service does.
    Operator,
    /// Manage keys.
    Admin,
}

impl Scope {
    /// All, lowest first.
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Operator, Self::Admin];

    /// As in the database and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|scope| scope.as_str() == text);
        found.ok_or_else(|| "use read, write, operator or admin".to_owned())
    }
}
