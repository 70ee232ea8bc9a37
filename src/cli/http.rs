//! Calls to a peer's gateway.

use std::convert::Infallible;
use std::fmt;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use ureq::http::header::AUTHORIZATION;
use ureq::http::{HeaderValue, Method, Request, Response};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector, TcpConnector};
use ureq::{Agent, Body};
use zeroize::Zeroizing;

use super::failure::{Failure, Kind, Outcome};
use super::tls::Tls;
use crate::document::json;
use crate::gateway;
use crate::limits::DOCUMENT_DEPTH_MAX;

/// How long a connection may take: peers are near.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that are kept for the next calls: as many as calls run side by side.
const CONNECTIONS_MAX: usize = 256;
/// How long a call may take, a join that tries many addresses included.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);
/// Bytes of an answer: a page of the largest documents.
const ANSWER_BYTES_MAX: u64 = 2 << 30;
/// Levels of nesting in an answer: a list of the deepest documents.
pub(super) const ANSWER_DEPTH_MAX: usize = DOCUMENT_DEPTH_MAX + 4;

/// The heading in the help of each command under which the options are that all of them have.
const CONNECTION: &str = "Connection";

const LINES: &str = "application/x-ndjson";

/// A text that `Debug` does not show.
#[derive(Clone)]
struct Secret(Zeroizing<String>);

impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(Zeroizing::new(text.to_owned())))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// Which peer to call, and what it wants to see.
#[derive(Debug, Args)]
pub(super) struct Access {
    /// The peer's gateway
    #[arg(long, global = true, help_heading = CONNECTION, env = "AEROLITHSDB_URL", default_value = "http://127.0.0.1:8080", value_name = "URL")]
    url: String,
    /// The token that the peer wants; --token-file keeps it out of the list of processes
    #[arg(
        long,
        global = true,
        help_heading = CONNECTION,
        env = "AEROLITHSDB_TOKEN",
        hide_env_values = true,
        allow_hyphen_values = true,
        value_name = "TOKEN"
    )]
    token: Option<Secret>,
    /// A file with the token, such as the peer's security.token_file
    #[arg(long, global = true, help_heading = CONNECTION, env = "AEROLITHSDB_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The SHA-256 fingerprint of the peer's certificate, as the peer prints it at its start
    #[arg(long, global = true, help_heading = CONNECTION, env = "AEROLITHSDB_TLS_FINGERPRINT", value_name = "SHA256")]
    tls_fingerprint: Option<String>,
    /// A file with the certificates to trust (PEM), instead of those that the system trusts
    #[arg(long, global = true, help_heading = CONNECTION, env = "AEROLITHSDB_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
}

impl Access {
    /// The header of the token.
    fn authorization(&self) -> Outcome<Option<HeaderValue>> {
        let token = match (&self.token, &self.token_file) {
            (Some(token), _) => token.0.clone(),
            (None, Some(file)) => match gateway::read_token(file)? {
                Some(token) => token,
                None => return Err(Failure::new(Kind::Usage, format!("there is no token file {}", file.display()))),
            },
            (None, None) => return Ok(None),
        };
        let value = HeaderValue::try_from(format!("Bearer {}", *token));
        let mut value = value.map_err(|_| Failure::new(Kind::Usage, "the token holds what no token holds"))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// How TLS is done; `None` for plain HTTP.
    fn tls(&self) -> Outcome<Option<Tls>> {
        let trusted = self.tls_fingerprint.is_some() || self.ca.is_some();
        match (&self.tls_fingerprint, &self.ca) {
            // Whoever names a certificate must not talk to whom has none.
            _ if !self.url.starts_with("https://") && trusted => {
                Err(Failure::new(Kind::Usage, "--tls-fingerprint and --ca need a URL that starts with https://"))
            }
            _ if !self.url.starts_with("https://") => Ok(None),
            (Some(fingerprint), _) => Tls::pinned(fingerprint).map(Some),
            (None, Some(file)) => Tls::with_ca(file).map(Some),
            (None, None) => Tls::of_system().map(Some),
        }
    }
}

/// A peer to call.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    agent: Agent,
    url: String,
    authorization: Option<HeaderValue>,
}

impl Peer {
    /// A peer at a URL; `host:port` alone will do.
    ///
    /// # Errors
    /// For a token file or certificates that cannot be read.
    pub(super) fn at(access: &Access) -> Outcome<Self> {
        let url = access.url.trim_end_matches('/');
        let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let agent = match access.tls()? {
            Some(tls) => {
                Agent::with_parts(config(CALL_TIMEOUT), TcpConnector::default().chain(tls), DefaultResolver::default())
            }
            None => agent(CALL_TIMEOUT),
        };
        let authorization = access.authorization()?;
        if authorization.is_some() && !is_private(&url) {
            eprintln!("warning: the token goes to {url} unencrypted; whoever sees it on the way has it");
        }
        Ok(Self { agent, url, authorization })
    }

    /// Its URL.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Reads something.
    pub(super) fn get(&self, path: &str) -> Outcome<Value> {
        self.call(Method::GET, path, &[], None)
    }

    /// Sends something.
    pub(super) fn post(&self, path: &str, body: &Value) -> Outcome<Value> {
        self.call(Method::POST, path, &[], Some(body.to_string().as_bytes()))
    }

    /// Any call with a body of JSON, or none. It goes out as it is: the peer's parser is the one that counts.
    pub(super) fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Outcome<Value> {
        self.call_as(method, path, headers, body.map(|body| ("application/json", body)))
    }

    /// Any call; the body with its type.
    pub(super) fn call_as(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<(&str, &[u8])>,
    ) -> Outcome<Value> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = match body {
            Some((media_type, body)) => self.run(request.header("content-type", media_type).body(body)),
            None => self.run(request.body(())),
        }?;
        self.answer(response)
    }

    /// A call whose answer is lines, read as they come: not the whole is bounded in time, but each wait.
    pub(super) fn lines(&self, method: Method, path: &str, body: Option<&[u8]>) -> Outcome<impl BufRead + use<>> {
        let request = Request::builder().method(method).uri(format!("{}{path}", self.url)).header("accept", LINES);
        let response = match body {
            Some(body) => self.run_long(request.header("content-type", LINES).body(body)),
            None => self.run_long(request.body(())),
        }?;
        if response.status().as_u16() >= 400 {
            let unclear = |_| Failure::new(Kind::Failed, format!("{} answered in a way that makes no sense", self.url));
            return Err(self.answer(response).map_or_else(|failure| failure, unclear));
        }
        Ok(BufReader::new(response.into_body().into_with_config().limit(u64::MAX).reader()))
    }

    /// A call that takes as long as it takes, because the peer works on every document.
    pub(super) fn work(&self, method: Method, path: &str, body: Option<&Value>) -> Outcome<Value> {
        let request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        let response = match body {
            Some(body) => self.run_endless(request.header("content-type", "application/json").body(body.to_string())),
            None => self.run_endless(request.body(())),
        }?;
        self.answer(response)
    }

    fn run_endless<B: ureq::AsSendBody>(
        &self,
        request: Result<Request<B>, ureq::http::Error>,
    ) -> Outcome<Response<Body>> {
        self.run(request.map(|request| self.agent.configure_request(request).timeout_global(None).build()))
    }

    fn run_long<B: ureq::AsSendBody>(&self, request: Result<Request<B>, ureq::http::Error>) -> Outcome<Response<Body>> {
        let wait = Some(CALL_TIMEOUT);
        self.run(request.map(|request| {
            let request = self.agent.configure_request(request).timeout_global(None);
            request.timeout_per_read(wait).timeout_per_write(wait).build()
        }))
    }

    fn run<B: ureq::AsSendBody>(&self, request: Result<Request<B>, ureq::http::Error>) -> Outcome<Response<Body>> {
        let wrong = |error| Failure::new(Kind::Usage, format!("{} is not a URL to call: {error}", self.url));
        let mut request = request.map_err(wrong)?;
        request.headers_mut().extend(self.authorization.clone().map(|value| (AUTHORIZATION, value)));
        self.agent.run(request).map_err(|error| self.unreachable(&error))
    }

    fn answer(&self, mut response: Response<Body>) -> Outcome<Value> {
        let status = response.status().as_u16();
        let read = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        let bytes = read.map_err(|error| self.unreachable(&error))?;
        let json = if bytes.is_empty() { Ok(Value::Null) } else { json::parse_made(&bytes, ANSWER_DEPTH_MAX) };
        match json {
            Ok(value) if status < 400 => Ok(value),
            Ok(problem) => Err(Failure::new(Kind::of_status(status), detail(&problem, status))),
            Err(_) => Err(Failure::new(
                Kind::Failed,
                format!("{} answered {status} and no JSON; is a peer listening there?", self.url),
            )),
        }
    }

    fn unreachable(&self, error: &ureq::Error) -> Failure {
        let url = &self.url;
        if matches!(error, ureq::Error::BadUri(_)) {
            return Failure::new(Kind::Usage, format!("{url} is not a URL to call: {error}"));
        }
        if let ureq::Error::Io(io) = error
            && let Some(tls) = io.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>())
        {
            // Such a message is no TLS at all.
            let message = if matches!(tls, rustls::Error::InvalidMessage(_)) {
                format!("{url} does not speak TLS: write http:// instead of https:// in the URL")
            } else {
                not_trusted(url, tls)
            };
            return Failure::new(Kind::Failed, message);
        }
        if matches!(error, ureq::Error::Protocol(_)) && url.starts_with("http://") {
            let message = format!("{url} does not speak HTTP ({error}); if it speaks TLS, write https:// in the URL");
            return Failure::new(Kind::Failed, message);
        }
        let message = format!(
            "no peer answers at {url} ({error})\nstart one with: aerolithsdb\nor name another with --url or AEROLITHSDB_URL"
        );
        Failure::new(Kind::Unavailable, message)
    }
}

/// Whether what is sent to a URL stays between the two: by TLS, or on this machine.
fn is_private(url: &str) -> bool {
    let Ok(url) = url.parse::<ureq::http::Uri>() else { return true };
    let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    url.scheme_str() == Some("https")
        || host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Why a peer is not talked to, and what to do.
fn not_trusted(url: &str, error: &rustls::Error) -> String {
    let why = if let rustls::Error::General(why) = error { why.clone() } else { error.to_string() };
    format!(
        "{url} is not trusted: {why}\nif it is the right peer, pass the fingerprint that it prints at its start with \
         --tls-fingerprint"
    )
}

/// What a problem says.
fn detail(problem: &Value, status: u16) -> String {
    match problem["detail"].as_str() {
        Some(detail) => detail.to_owned(),
        None => format!("the peer answered with status {status}"),
    }
}

/// An HTTP client for peers: no proxy, since peers are near, and errors as answers.
pub(super) fn agent(timeout: Duration) -> Agent {
    Agent::new_with_config(config(timeout))
}

fn config(timeout: Duration) -> ureq::config::Config {
    Agent::config_builder()
        .http_status_as_error(false)
        .max_idle_connections(CONNECTIONS_MAX)
        .max_idle_connections_per_host(CONNECTIONS_MAX)
        .proxy(None)
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_global(Some(timeout))
        .max_redirects(0)
        .user_agent(concat!("aerolithsdb/", env!("CARGO_PKG_VERSION")))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_private_under_tls_and_on_this_machine() {
        for url in ["https://a.example:1", "http://localhost:8080", "http://127.0.0.1:8080", "http://[::1]:1"] {
            assert!(is_private(url), "{url}");
        }
        for url in ["http://a.example", "http://192.0.2.1:8080", "http://localhost.a.example"] {
            assert!(!is_private(url), "{url}");
        }
    }
}
