//! Calls to a peer's gateway.

use std::io::Read;
use std::time::Duration;

use serde_json::Value;
use ureq::http::{Method, Request, Response};
use ureq::{Agent, Body};

use super::failure::{Failure, Kind, Outcome};

/// How long a connection may take: peers are near.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a call may take, a join that tries many addresses included.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);
/// Bytes of an answer: a page of the largest documents.
const ANSWER_BYTES_MAX: u64 = 2 << 30;

/// A peer to call.
#[derive(Debug)]
pub(super) struct Peer {
    agent: Agent,
    url: String,
}

impl Peer {
    /// A peer at a URL; `host:port` alone will do.
    ///
    /// # Errors
    /// For a URL that is not plain HTTP.
    pub(super) fn at(url: &str) -> Outcome<Self> {
        let url = url.trim_end_matches('/');
        if url.starts_with("https://") {
            return Err(Failure::new(Kind::Usage, "this version has no TLS yet; use a URL that starts with http://"));
        }
        let url = if url.starts_with("http://") { url.to_owned() } else { format!("http://{url}") };
        Ok(Self { agent: agent(Some(CALL_TIMEOUT)), url })
    }

    /// Its URL.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Reads something.
    pub(super) fn get(&self, path: &str) -> Outcome<Value> {
        self.call(Method::GET, path, &[], None)
    }

    /// Opens a stream that lasts until either side ends it.
    pub(super) fn stream(&self, path: &str) -> Outcome<impl Read + use<>> {
        let request = Request::builder().uri(format!("{}{path}", self.url)).body(());
        let response = self.run_with(&agent(None), request)?;
        match response.status().as_u16() {
            200 => Ok(response.into_body().into_reader()),
            _ => Err(self.answer(response).err().unwrap_or_else(|| Failure::new(Kind::Failed, "no stream came"))),
        }
    }

    /// Sends something.
    pub(super) fn post(&self, path: &str, body: &Value) -> Outcome<Value> {
        self.call(Method::POST, path, &[], Some(body.to_string().as_bytes()))
    }

    /// Any call. The body goes out as it is: the peer's parser is the one that counts.
    pub(super) fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Outcome<Value> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = match body {
            Some(body) => self.run(request.header("content-type", "application/json").body(body)),
            None => self.run(request.body(())),
        }?;
        self.answer(response)
    }

    fn run<B: ureq::AsSendBody>(&self, request: Result<Request<B>, ureq::http::Error>) -> Outcome<Response<Body>> {
        self.run_with(&self.agent, request)
    }

    fn run_with<B: ureq::AsSendBody>(
        &self,
        agent: &Agent,
        request: Result<Request<B>, ureq::http::Error>,
    ) -> Outcome<Response<Body>> {
        let wrong = |error| Failure::new(Kind::Usage, format!("{} is not a URL to call: {error}", self.url));
        agent.run(request.map_err(wrong)?).map_err(|error| self.unreachable(&error))
    }

    fn answer(&self, mut response: Response<Body>) -> Outcome<Value> {
        let status = response.status().as_u16();
        let read = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        let bytes = read.map_err(|error| self.unreachable(&error))?;
        let json = if bytes.is_empty() { Ok(Value::Null) } else { serde_json::from_slice(&bytes) };
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
        let message = format!(
            "no peer answers at {url} ({error})\nstart one with: aerolithsdb\nor name another with --url or AEROLITHSDB_URL"
        );
        Failure::new(Kind::Unavailable, message)
    }
}

/// What a problem says.
fn detail(problem: &Value, status: u16) -> String {
    match problem["detail"].as_str() {
        Some(detail) => detail.to_owned(),
        None => format!("the peer answered with status {status}"),
    }
}

/// An HTTP client for peers: no proxy, since peers are near, and errors as answers.
pub(super) fn agent(timeout: Option<Duration>) -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_global(timeout)
        .max_redirects(0)
        .user_agent(concat!("aerolithsdb/", env!("CARGO_PKG_VERSION")))
        .build()
        .new_agent()
}
