//! The gateway's part of the configuration: where it listens, who may call, and how it proves that it is itself.

use std::path::Path;

use super::{Settings, address};
use crate::gateway::{self, Tls};
use crate::{Error, Result};

/// Requests a second that a client may make beyond loopback, unless the configuration says otherwise: more than a
/// program that works document by document makes, less than what keeps the others from working.
const RATE_LIMIT_PER_S: u32 = 500;

/// The gateway that the settings describe; `None` when it is switched off.
///
/// # Errors
/// [`Error::Invalid`] for values that make no sense together, [`Error::Denied`] for an exposed gateway.
pub(super) fn rest(settings: &Settings, data_dir: &Path) -> Result<Option<gateway::Config>> {
    if settings.flag("api.rest_api.enabled") == Some(false) {
        return Ok(None);
    }
    let port = settings.integer("api.rest_api.port").or_else(|| settings.integer("node.port"));
    let mut allowed_hosts = settings.list("api.rest_api.allowed_hosts").unwrap_or_default();
    let allow_insecure = settings.flag("api.rest_api.allow_insecure").unwrap_or(false);
    if allow_insecure {
        // In a network of containers a peer is called by its name.
        allowed_hosts.extend(settings.text("node.node_id").map(str::to_owned));
    }
    let bind = address(settings, "api.rest_api.bind", "127.0.0.1")?;
    let rate_limit = settings.integer("api.rest_api.rate_limit_per_s").map(u32::try_from);
    let config = gateway::Config {
        bind,
        port: port.map_or(gateway::PORT, |port| u16::try_from(port).expect("ports were checked to be at most 65535")),
        token_file: path(settings, "security.token_file").map(Into::into),
        tls: tls(settings, data_dir)?,
        allow_insecure,
        rate_limit_per_s: match rate_limit {
            Some(per_s) => per_s.expect("counts were checked to fit"),
            None if bind.is_loopback() => 0,
            None => RATE_LIMIT_PER_S,
        },
        allowed_hosts,
        cors_enabled: settings.flag("api.rest_api.cors_enabled").unwrap_or(false),
        cors_origins: settings.list("api.rest_api.cors_origins").unwrap_or_default(),
    };
    config.check()?;
    Ok(Some(config))
}

/// A path; an empty one is none.
fn path<'a>(settings: &'a Settings, key: &str) -> Option<&'a str> {
    settings.text(key).filter(|path| !path.is_empty())
}

fn tls(settings: &Settings, data_dir: &Path) -> Result<Option<Tls>> {
    let files = (path(settings, "security.tls_certificate"), path(settings, "security.tls_key"));
    match (settings.text("security.tls").unwrap_or("off"), files) {
        ("off", (None, None)) => Ok(None),
        ("generated", (None, None)) => Ok(Some(Tls::Generated(data_dir.to_owned()))),
        ("files", (Some(certificate), Some(key))) => {
            Ok(Some(Tls::Files { certificate: certificate.into(), key: key.into() }))
        }
        ("files", _) => Err(Error::invalid("security.tls = files needs security.tls_certificate and security.tls_key")),
        (_, _) => Err(Error::invalid("security.tls_certificate and security.tls_key need security.tls = files")),
    }
}
