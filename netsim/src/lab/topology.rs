//! Who is where in a lab, as TOML: sites with a kind of NAT, the hosts behind it, and the line to the internet.
//!
//! ```toml
//! name = "two-homes"
//!
//! [[site]]
//! name = "a"
//! nat = "port_restricted"
//! hosts = ["laptop", "desk"]
//! line = { delay = "20ms", loss = 0.01 }
//! ```

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::wire::Line;
use super::{Kind, Result};
use crate::Error;

/// Sites of one lab: each has an address of its own in 44.128.0.0/16.
pub const SITES_MAX: usize = 100;
/// Hosts of one site.
pub const HOSTS_MAX: usize = 100;

/// Who is where.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Topology {
    /// Its name.
    pub name: String,
    /// What the lines draw their losses from.
    #[serde(default)]
    pub seed: u64,
    /// The places that are connected to the internet.
    #[serde(rename = "site")]
    pub sites: Vec<Site>,
}

/// One place: a router, and what is behind it.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// Its name.
    pub name: String,
    /// What its router does. A public site has no router, and one host.
    pub nat: Kind,
    /// The hosts behind it; one with the name of the site when none is given.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Its line to the internet; a plain cable when it is not given.
    #[serde(default)]
    pub line: Line,
}

impl Site {
    /// A site on a plain cable with one host of the same name.
    #[must_use]
    pub fn new(name: &str, nat: Kind) -> Self {
        Self { name: name.to_owned(), nat, hosts: vec![name.to_owned()], line: Line::default() }
    }

    /// The same with other hosts.
    #[must_use]
    pub fn with(mut self, hosts: &[&str]) -> Self {
        self.hosts = hosts.iter().map(|&host| host.to_owned()).collect();
        self
    }
}

impl Topology {
    /// A topology of sites.
    #[must_use]
    pub fn new(name: &str, sites: Vec<Site>) -> Self {
        Self { name: name.to_owned(), seed: 0, sites }
    }

    /// The same with one line for all sites.
    #[must_use]
    pub fn over(mut self, line: Line) -> Self {
        self.sites.iter_mut().for_each(|site| site.line = line);
        self
    }

    /// Whether IPv6 is spoken in the internet of this lab.
    #[must_use]
    pub fn has_ipv6(&self) -> bool {
        self.sites.iter().any(|site| matches!(site.nat, Kind::Ipv6 | Kind::DualStack))
    }

    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, and as [`Topology::parse`].
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| Error::Io(format!("{}: {error}", path.display())))?;
        Self::parse(&path.display().to_string(), &text)
    }

    /// Reads a topology from TOML; `source` names it in errors.
    ///
    /// # Errors
    /// [`Error::Scenario`] with the line, and with what would be allowed.
    pub fn parse(source: &str, text: &str) -> Result<Self> {
        let mut topology: Self = toml::from_str(text).map_err(|error| Error::Scenario(format!("{source}: {error}")))?;
        for site in &mut topology.sites {
            if site.hosts.is_empty() {
                site.hosts.push(site.name.clone());
            }
        }
        match topology.check() {
            Ok(()) => Ok(topology),
            Err((word, why)) => {
                let line = text.lines().position(|line| line.contains(&word)).map_or(0, |line| line + 1);
                Err(Error::Scenario(format!("{source}, line {line}: {word}: {why}")))
            }
        }
    }

    /// The word to look for, and what is wrong with it.
    fn check(&self) -> std::result::Result<(), (String, String)> {
        let check = |holds: bool, word: &str, why: String| if holds { Ok(()) } else { Err((word.to_owned(), why)) };
        check((1..=SITES_MAX).contains(&self.sites.len()), "site", format!("from 1 to {SITES_MAX} of them"))?;
        let mut names = std::collections::BTreeSet::new();
        for site in &self.sites {
            check((0.0..=0.5).contains(&site.line.loss), "loss", "a share from 0 to 0.5".into())?;
            check(site.hosts.len() <= HOSTS_MAX, &site.name, format!("at most {HOSTS_MAX} hosts"))?;
            let one = site.nat != Kind::Public || site.hosts.len() == 1;
            check(one, &site.name, "a public site is one host; make a site of each".into())?;
            for host in &site.hosts {
                let short =
                    (1..=32).contains(&host.len()) && host.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
                check(short, host, "a name is of 1 to 32 letters, digits and hyphens".into())?;
                check(names.insert(host), host, "there is another host of this name".into())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_topology_is_said_with_its_line() {
        let good = "name = \"x\"\n[[site]]\nname = \"a\"\nnat = \"cgnat\"\nline = { delay = \"20ms\", loss = 0.01 }\n";
        let topology = Topology::parse("t", good).unwrap();
        assert_eq!(topology.sites[0].hosts, ["a"]);
        assert_eq!(topology.sites[0].line.delay.as_ms(), 20);
        let check = |bad: &str, line: &str, says: &str| {
            let error = Topology::parse("t", &format!("{good}{bad}")).unwrap_err().to_string();
            assert!(error.contains(line) && error.contains(says), "{bad}: {error}");
        };
        check("[[site]]\nname = \"b\"\nnat = \"conical\"\n", "line 8", "full_cone");
        check("[[site]]\nname = \"b\"\nnat = \"public\"\nhost = \"c\"\n", "line 9", "hosts");
        check("[[site]]\nname = \"b\"\nnat = \"public\"\nhosts = [\"c\", \"d\"]\n", "line 7", "one host");
        check("[[site]]\nname = \"b\"\nnat = \"cgnat\"\nhosts = [\"b\", \"b\"]\n", "line 7", "another host");
        check("[[site]]\nname = \"b\"\nnat = \"cgnat\"\nline = { loss = 0.9 }\n", "line", "0.5");
    }
}
