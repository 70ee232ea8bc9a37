//! Ports that the router forwards (UPnP IGD): asked for, renewed, and given back.
//!
//! A forwarded port is a candidate only: it counts once somebody has dialed it from outside, for routers lie, and many
//! are behind another one. Routers forget when they restart, so that ports are asked for again and again; that is also
//! how a change of the outer address is noticed.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use igd_next::aio::Gateway;
use igd_next::aio::tokio::{Tokio, search_gateway};
use igd_next::{AddPortError, PortMappingProtocol, SearchOptions};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::limits::{MAPPED_PORTS_MAX, ROUTER_WORDS_CHARACTERS_MAX};
use crate::mesh::address::is_public;

/// How long a router may take to be found, and to answer one request.
const SEARCH: Duration = Duration::from_secs(4);
const REQUEST: Duration = Duration::from_secs(3);
/// For how long a port is asked for, in seconds, and how often it is asked for anew: a router that restarted is noticed
/// within this time.
const LEASE_S: u32 = 180;
const RENEW: Duration = Duration::from_secs(25);
/// When a router is looked for again that is not there.
const SEARCH_AGAIN: Duration = Duration::from_secs(120);
/// How long giving ports back may take.
const GIVE_BACK: Duration = Duration::from_secs(2);
/// Where routers are searched for (SSDP).
pub(in crate::mesh) const SSDP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(239, 255, 255, 250)), 1900);
/// What routers show beside the port.
const DESCRIPTION: &str = "aerolithsDB";

/// A port of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::mesh) struct Port {
    pub(in crate::mesh) udp: bool,
    pub(in crate::mesh) number: u16,
}

impl Port {
    fn protocol(self) -> PortMappingProtocol {
        if self.udp { PortMappingProtocol::UDP } else { PortMappingProtocol::TCP }
    }
}

/// A port that the router forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::mesh) struct Forwarded {
    pub(in crate::mesh) port: Port,
    pub(in crate::mesh) external: SocketAddr,
}

/// What the router does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::mesh) enum Mapping {
    /// It is not asked.
    #[default]
    Off,
    /// It is being looked for.
    Searching,
    /// It does nothing for us, and why.
    Nothing(String),
    /// It forwards these.
    Forwarded(Vec<Forwarded>),
}

/// Asks the router for ports, in a task of its own.
#[derive(Debug)]
pub(in crate::mesh) struct Mapper {
    /// Ports to forward; closed when they are to be given back.
    wanted: watch::Sender<Option<BTreeSet<Port>>>,
    state: watch::Receiver<Mapping>,
    task: JoinHandle<()>,
}

impl Mapper {
    /// Starts the task; the router is searched for at this address.
    pub(in crate::mesh) fn start(search_at: SocketAddr) -> Self {
        let wanted = watch::Sender::new(Some(BTreeSet::new()));
        let (sender, state) = watch::channel(Mapping::Searching);
        let task = tokio::spawn(run(wanted.subscribe(), sender, search_at));
        Self { wanted, state, task }
    }

    /// Which ports are to be forwarded from now on.
    pub(in crate::mesh) fn want(&self, ports: BTreeSet<Port>) {
        self.wanted.send_if_modified(|wanted| {
            let ports = Some(ports.into_iter().take(MAPPED_PORTS_MAX).collect());
            let is_new = wanted.is_some() && *wanted != ports;
            if is_new {
                *wanted = ports;
            }
            is_new
        });
    }

    /// What the router does, and whenever that changes.
    pub(in crate::mesh) fn state(&self) -> watch::Receiver<Mapping> {
        self.state.clone()
    }

    /// Gives all ports back.
    pub(in crate::mesh) async fn shutdown(self) {
        self.wanted.send_replace(None);
        // A router that does not answer forgets them by itself.
        if timeout(GIVE_BACK, self.task).await.is_err() {
            tracing::debug!("the router did not take the ports back in time");
        }
    }
}

async fn run(
    mut wanted: watch::Receiver<Option<BTreeSet<Port>>>,
    state: watch::Sender<Mapping>,
    search_at: SocketAddr,
) {
    let mut asked = Asked { search_at, gateway: None, lost: true, held: Vec::new() };
    loop {
        let Some(ports) = wanted.borrow_and_update().clone() else { break };
        let known = !asked.lost;
        if !ports.is_empty() {
            state.send_if_modified(|state| {
                let was_off = *state == Mapping::Off;
                if was_off {
                    *state = Mapping::Searching;
                }
                was_off
            });
        }
        // A receiver of its own, so that a change that comes meanwhile is still one afterwards.
        let mut closing = wanted.clone();
        let outcome = tokio::select! {
            outcome = asked.have_forwarded(&ports) => outcome,
            // An error means that the mapper was dropped.
            _ = closing.wait_for(Option::is_none) => break,
        };
        let now = match outcome {
            Ok(_) if ports.is_empty() => Mapping::Off,
            Ok(forwarded) => Mapping::Forwarded(forwarded),
            Err(why) => Mapping::Nothing(why),
        };
        let pause = if known || !asked.lost { RENEW } else { SEARCH_AGAIN };
        state.send_if_modified(|before| std::mem::replace(before, now.clone()) != now);
        tokio::select! {
            () = sleep(pause) => {}
            changed = wanted.changed() => if changed.is_err() { break },
        }
    }
    asked.give_back(&BTreeSet::new()).await;
}

/// A router, and what was had from it.
#[derive(Debug)]
struct Asked {
    /// Where routers are searched for.
    search_at: SocketAddr,
    gateway: Option<Gateway<Tokio>>,
    /// Whether it has to be searched for: it is not known, or the last time something went wrong with it.
    lost: bool,
    /// What it was made to forward and was not given back, also while it does not answer.
    held: Vec<Forwarded>,
}

impl Asked {
    /// Has the router forward these ports and no others, those that it forwards already with the outer ports that they
    /// have. A port that is refused costs no other one.
    async fn have_forwarded(&mut self, ports: &BTreeSet<Port>) -> Result<Vec<Forwarded>, String> {
        self.give_back(ports).await;
        if ports.is_empty() {
            return Ok(Vec::new());
        }
        if std::mem::replace(&mut self.lost, true) {
            self.search().await?;
        }
        let forwarded = self.forward(ports).await?;
        self.lost = false;
        Ok(forwarded)
    }

    async fn search(&mut self) -> Result<(), String> {
        let mut options = SearchOptions::default();
        options.broadcast_address = self.search_at;
        if !self.search_at.ip().is_multicast() {
            // It was named, so it may be where no router that was found would be believed.
            options.allowed_gateway_ips.push(self.search_at.ip());
        }
        let found = timeout(SEARCH, search_gateway(options)).await;
        let found = found.map_err(|_| "no UPnP router answers".to_owned())?;
        let found = found.map_err(|error| format!("no UPnP router answers ({})", plain(&error)))?;
        if self.gateway.as_ref().is_some_and(|before| before.addr.ip() != found.addr.ip()) {
            // Another network: nobody is there any more to take them back.
            self.held.clear();
        }
        self.gateway = Some(found);
        Ok(())
    }

    async fn forward(&mut self, ports: &BTreeSet<Port>) -> Result<Vec<Forwarded>, String> {
        let Some(gateway) = &self.gateway else { return Err("no UPnP router answers".into()) };
        let external = in_time(gateway.get_external_ip()).await?;
        if !is_public(external) {
            return Err(format!(
                "the router's own address, {external}, is not a public one: it is behind another NAT, or says something wrong"
            ));
        }
        let local =
            local_ip(gateway.addr).map_err(|error| format!("this machine has no way to the router: {error}"))?;
        let (mut forwarded, mut refusal) = (Vec::new(), None);
        for port in ports {
            let before = self.held.iter().find(|before| before.port == *port).map(|before| before.external.port());
            match add(gateway, *port, local, before.unwrap_or(port.number)).await {
                Ok(number) => {
                    let new = Forwarded { port: *port, external: SocketAddr::new(external, number) };
                    self.held.retain(|before| before.port != *port);
                    self.held.push(new);
                    forwarded.push(new);
                }
                Err(Refusal::Silence) => return Err(silent()),
                Err(Refusal::Said(why)) => {
                    tracing::debug!(port = port.number, udp = port.udp, why, "the router refuses a port");
                    refusal.get_or_insert(why);
                }
            }
        }
        match refusal {
            Some(why) if forwarded.is_empty() => Err(why),
            Some(_) | None => Ok(forwarded),
        }
    }

    /// Gives back what is held beside these ports.
    async fn give_back(&mut self, beside: &BTreeSet<Port>) {
        let Some(gateway) = &self.gateway else { return };
        while let Some(at) = self.held.iter().position(|held| !beside.contains(&held.port)) {
            let Forwarded { port, external } = self.held[at];
            // What it keeps ends with the lease.
            _ = timeout(REQUEST, gateway.remove_port(port.protocol(), external.port())).await;
            self.held.remove(at);
        }
    }
}

/// Why a port is not forwarded.
#[derive(Debug)]
enum Refusal {
    /// Nothing came back: nor will it for the next port.
    Silence,
    Said(String),
}

/// Asks for one port, with the outer number that is wanted, or another one when that is taken.
async fn add(gateway: &Gateway<Tokio>, port: Port, local: IpAddr, wanted: u16) -> Result<u16, Refusal> {
    let (protocol, local) = (port.protocol(), SocketAddr::new(local, port.number));
    let ask = |number, lease| timeout(REQUEST, gateway.add_port(protocol, number, local, lease, DESCRIPTION));
    let mut answer = ask(wanted, LEASE_S).await;
    if let Ok(Err(AddPortError::OnlyPermanentLeasesSupported)) = answer {
        // It knows no leases: the port is given back at the end, or stays.
        answer = ask(wanted, 0).await;
    }
    match answer {
        Ok(Ok(())) => Ok(wanted),
        Ok(Err(AddPortError::PortInUse)) => {
            let any = timeout(REQUEST, gateway.add_any_port(protocol, local, LEASE_S, DESCRIPTION)).await;
            match any.map_err(|_| Refusal::Silence)? {
                Ok(0) => Err(Refusal::Said(refused(&"it names port 0"))),
                Ok(number) => Ok(number),
                Err(error) => Err(Refusal::Said(refused(&error))),
            }
        }
        Ok(Err(error)) => Err(Refusal::Said(refused(&error))),
        Err(_) => Err(Refusal::Silence),
    }
}

async fn in_time<T, E: std::fmt::Display>(request: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    timeout(REQUEST, request).await.map_err(|_| silent())?.map_err(|error| refused(&error))
}

fn refused(error: &dyn std::fmt::Display) -> String {
    format!("the router does not forward ports: {}", plain(error))
}

/// An error without what harms who reads it: it holds what the router said, which may be a whole page, or commands for
/// a terminal.
fn plain(error: &dyn std::fmt::Display) -> String {
    let safe = |letter: char| if letter == ' ' || letter.is_ascii_graphic() { letter } else { '?' };
    error.to_string().chars().take(ROUTER_WORDS_CHARACTERS_MAX).map(safe).collect()
}

fn silent() -> String {
    "the router does not answer in time".into()
}

/// Our address towards the router.
fn local_ip(gateway: SocketAddr) -> std::io::Result<IpAddr> {
    let any: IpAddr = if gateway.is_ipv4() { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
    let socket = UdpSocket::bind((any, 0))?;
    // Sends nothing; the system only chooses the way.
    socket.connect(gateway)?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex};

    use axum::Router;
    use axum::body::Bytes;
    use axum::http::{StatusCode, Uri};

    use super::*;

    const DEVICE: &str = r#"<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0"><device>
        <deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType><deviceList><device>
        <deviceType>urn:schemas-upnp-org:device:WANDevice:1</deviceType><deviceList><device>
        <deviceType>urn:schemas-upnp-org:device:WANConnectionDevice:1</deviceType><serviceList><service>
        <serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType><SCPDURL>/scpd</SCPDURL>
        <controlURL>/control</controlURL></service></serviceList></device></deviceList></device></deviceList>
        </device></root>"#;

    fn services(any: bool) -> String {
        let arguments = |names: &[&str]| -> String {
            let argument = |name: &&str| format!("<argument><name>{name}</name><direction>in</direction></argument>");
            names.iter().map(argument).collect()
        };
        let add = [
            "NewRemoteHost",
            "NewExternalPort",
            "NewProtocol",
            "NewInternalPort",
            "NewInternalClient",
            "NewEnabled",
            "NewPortMappingDescription",
            "NewLeaseDuration",
        ];
        let action = |name: &str, names: &[&str]| {
            format!("<action><name>{name}</name><argumentList>{}</argumentList></action>", arguments(names))
        };
        let any = if any { action("AddAnyPortMapping", &add) } else { String::new() };
        let actions = any + &action("AddPortMapping", &add) + &action("DeletePortMapping", &add[..3]);
        format!("<scpd xmlns=\"urn:schemas-upnp-org:service-1-0\"><actionList>{actions}</actionList></scpd>")
    }

    /// A router that does what a test says; what it was asked is kept.
    struct Fake {
        ssdp: SocketAddr,
        asked: Arc<Mutex<Vec<String>>>,
    }

    /// What it answers to an action: the status and the inside of the body.
    type Answer = fn(&str, &str) -> (u16, String);

    impl Fake {
        async fn start(answer: Answer) -> Self {
            Self::offering(false, answer).await
        }

        /// With or without a way to have it choose the outer port.
        async fn offering(any: bool, answer: Answer) -> Self {
            let asked: Arc<Mutex<Vec<String>>> = Arc::default();
            let told = asked.clone();
            let handle = move |uri: Uri, body: Bytes| async move {
                let body = String::from_utf8_lossy(&body).into_owned();
                let (status, text) = match uri.path() {
                    "/device" => (200, DEVICE.to_owned()),
                    "/scpd" => (200, services(any)),
                    _ => {
                        let actions = ["GetExternalIPAddress", "AddPortMapping", "DeletePortMapping"];
                        let action = actions.into_iter().find(|action| body.contains(action)).unwrap_or_default();
                        told.lock().unwrap().push(format!("{action} {}", tag(&body, "NewExternalPort")));
                        let (status, inside) = answer(action, &body);
                        let envelope = "<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\"><s:Body>";
                        (status, format!("{envelope}{inside}</s:Body></s:Envelope>"))
                    }
                };
                (StatusCode::from_u16(status).unwrap(), text)
            };
            let http = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let location = format!("http://{}/device", http.local_addr().unwrap());
            tokio::spawn(async move { axum::serve(http, Router::new().fallback(handle)).await });
            let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let ssdp = socket.local_addr().unwrap();
            tokio::spawn(async move {
                let mut buffer = [0; 2_000];
                while let Ok((_, from)) = socket.recv_from(&mut buffer).await {
                    let kind = "urn:schemas-upnp-org:device:InternetGatewayDevice:1";
                    let answer = format!("HTTP/1.1 200 OK\r\nST: {kind}\r\nLOCATION: {location}\r\n\r\n");
                    socket.send_to(answer.as_bytes(), from).await.unwrap();
                }
            });
            Self { ssdp, asked }
        }

        fn asked(&self, what: &str) -> bool {
            self.asked.lock().unwrap().iter().any(|asked| asked == what)
        }
    }

    fn tag<'a>(text: &'a str, name: &str) -> &'a str {
        let after = text.split_once(&format!("<{name}>")).map_or("", |(_, after)| after);
        after.split('<').next().unwrap_or_default()
    }

    fn done(action: &str, inside: &str) -> (u16, String) {
        let kind = "urn:schemas-upnp-org:service:WANIPConnection:1";
        (200, format!("<u:{action}Response xmlns:u=\"{kind}\">{inside}</u:{action}Response>"))
    }

    fn fault(code: u16) -> (u16, String) {
        let error = format!("<errorCode>{code}</errorCode><errorDescription>no</errorDescription>");
        let detail =
            format!("<detail><UPnPError xmlns=\"urn:schemas-upnp-org:control-1-0\">{error}</UPnPError></detail>");
        (500, format!("<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring>{detail}</s:Fault>"))
    }

    fn at(ip: &str) -> (u16, String) {
        done("GetExternalIPAddress", &format!("<NewExternalIPAddress>{ip}</NewExternalIPAddress>"))
    }

    async fn outcome(answer: Answer) -> (Mapping, Mapper, Fake) {
        let fake = Fake::start(answer).await;
        let mapper = Mapper::start(fake.ssdp);
        mapper.want(BTreeSet::from([Port { udp: true, number: 4_001 }]));
        (until(&mapper, is_settled).await, mapper, fake)
    }

    fn external(mapping: &Mapping) -> Option<SocketAddr> {
        match mapping {
            Mapping::Forwarded(ports) => ports.first().map(|port| port.external),
            Mapping::Off | Mapping::Searching | Mapping::Nothing(_) => None,
        }
    }

    #[tokio::test]
    async fn a_port_is_forwarded_and_given_back() {
        let answer: Answer = |action, _| match action {
            "GetExternalIPAddress" => at("8.8.4.4"),
            other => done(other, ""),
        };
        let (mapping, mapper, fake) = outcome(answer).await;
        assert_eq!(external(&mapping), Some("8.8.4.4:4001".parse().unwrap()));
        mapper.shutdown().await;
        assert!(fake.asked("DeletePortMapping 4001"), "{:?}", fake.asked);
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_exchanged_for_another() {
        let answer: Answer = |action, body| match action {
            "GetExternalIPAddress" => at("8.8.4.4"),
            "AddPortMapping" if tag(body, "NewExternalPort") == "4001" => fault(718),
            other => done(other, ""),
        };
        let (mapping, _mapper, _fake) = outcome(answer).await;
        let external = external(&mapping).unwrap();
        assert!(external.ip().to_string() == "8.8.4.4" && external.port() != 4_001, "{external}");
    }

    #[tokio::test]
    async fn a_router_that_knows_no_leases_is_asked_without() {
        let answer: Answer = |action, body| match action {
            "GetExternalIPAddress" => at("8.8.4.4"),
            "AddPortMapping" if tag(body, "NewLeaseDuration") != "0" => fault(725),
            other => done(other, ""),
        };
        let (mapping, _mapper, _fake) = outcome(answer).await;
        assert_eq!(external(&mapping), Some("8.8.4.4:4001".parse().unwrap()));
    }

    #[tokio::test]
    async fn what_a_router_says_that_cannot_be_is_not_believed() {
        let cases: [(Answer, &str); 4] = [
            (|_, _| at("192.168.7.1"), "not a public one"),
            (|_, _| at("100.64.3.1"), "not a public one"),
            (|_, _| (200, "</nonsense>".repeat(3)), "does not forward"),
            (|_, _| (200, "x".repeat(8 << 20)), "does not forward"),
        ];
        for (answer, says) in cases {
            let (mapping, _mapper, _fake) = outcome(answer).await;
            assert!(matches!(&mapping, Mapping::Nothing(why) if why.contains(says)), "{says}: {mapping:?}");
        }
    }

    fn numbers(mapping: &Mapping) -> Vec<u16> {
        match mapping {
            Mapping::Forwarded(ports) => ports.iter().map(|forwarded| forwarded.port.number).collect(),
            Mapping::Off | Mapping::Searching | Mapping::Nothing(_) => Vec::new(),
        }
    }

    fn is_settled(mapping: &Mapping) -> bool {
        matches!(mapping, Mapping::Nothing(_) | Mapping::Forwarded(_))
    }

    async fn until(mapper: &Mapper, is: impl Fn(&Mapping) -> bool) -> Mapping {
        let mut state = mapper.state();
        timeout(Duration::from_secs(20), state.wait_for(is)).await.unwrap().unwrap().clone()
    }

    #[tokio::test]
    async fn a_port_that_is_refused_costs_no_other() {
        let answer: Answer = |action, body| match action {
            "GetExternalIPAddress" => at("8.8.4.4"),
            "AddPortMapping" if tag(body, "NewInternalPort") == "4002" => fault(501),
            other => done(other, ""),
        };
        let fake = Fake::start(answer).await;
        let mapper = Mapper::start(fake.ssdp);
        mapper.want([4_001, 4_002, 4_003].map(|number| Port { udp: true, number }).into());
        let settled = until(&mapper, is_settled).await;
        assert_eq!(numbers(&settled), [4_001, 4_003], "{settled:?}");
        mapper.shutdown().await;
        assert!(fake.asked("DeletePortMapping 4001") && fake.asked("DeletePortMapping 4003"), "{:?}", fake.asked);
        assert!(!fake.asked("DeletePortMapping 4002"), "it may be somebody else's");
    }

    #[tokio::test]
    async fn a_port_that_is_no_longer_wanted_is_given_back() {
        let answer: Answer = |action, _| match action {
            "GetExternalIPAddress" => at("8.8.4.4"),
            other => done(other, ""),
        };
        let (_, mapper, fake) = outcome(answer).await;
        mapper.want(BTreeSet::from([Port { udp: true, number: 4_002 }]));
        until(&mapper, |state| numbers(state) == [4_002]).await;
        assert!(fake.asked("DeletePortMapping 4001"), "{:?}", fake.asked);
        mapper.want(BTreeSet::new());
        until(&mapper, |state| matches!(state, Mapping::Off)).await;
        assert!(fake.asked("DeletePortMapping 4002"), "{:?}", fake.asked);
    }

    #[tokio::test]
    async fn a_router_that_fails_once_gets_its_ports_back_all_the_same() {
        static FAILS: AtomicBool = AtomicBool::new(false);
        let answer: Answer = |action, _| match action {
            "GetExternalIPAddress" if FAILS.load(Ordering::SeqCst) => fault(501),
            "GetExternalIPAddress" => at("8.8.4.4"),
            other => done(other, ""),
        };
        let (_, mapper, fake) = outcome(answer).await;
        FAILS.store(true, Ordering::SeqCst);
        mapper.want([4_001, 4_002].map(|number| Port { udp: true, number }).into());
        until(&mapper, |state| matches!(state, Mapping::Nothing(_))).await;
        mapper.shutdown().await;
        assert!(fake.asked("DeletePortMapping 4001"), "{:?}", fake.asked);
    }

    #[tokio::test]
    async fn a_port_keeps_its_outer_number_when_the_router_comes_back() {
        static FAILS: AtomicBool = AtomicBool::new(false);
        let answer: Answer = |action, body| match action {
            "GetExternalIPAddress" if FAILS.load(Ordering::SeqCst) => fault(501),
            "GetExternalIPAddress" => at("8.8.4.4"),
            "AddPortMapping" if tag(body, "NewExternalPort") == "4001" => fault(718),
            other => done(other, ""),
        };
        let (before, mapper, fake) = outcome(answer).await;
        FAILS.store(true, Ordering::SeqCst);
        mapper.want([4_001, 4_002].map(|number| Port { udp: true, number }).into());
        until(&mapper, |state| matches!(state, Mapping::Nothing(_))).await;
        FAILS.store(false, Ordering::SeqCst);
        mapper.want(BTreeSet::from([Port { udp: true, number: 4_001 }]));
        assert_eq!(until(&mapper, |state| external(state).is_some()).await, before);
        let again = format!("AddPortMapping {}", external(&before).unwrap().port());
        assert_eq!(fake.asked.lock().unwrap().iter().filter(|asked| **asked == again).count(), 2);
    }

    #[tokio::test]
    async fn what_a_router_says_is_repeated_in_part_and_as_plain_text() {
        let cases: [Answer; 2] = [
            |_, _| (200, format!("<x>\u{1b}]0;owned\u{7}{}</x>", "y".repeat(900 << 10))),
            |_, _| {
                let error = "<errorCode>501</errorCode><errorDescription>\u{202e}gnp.exe\n\nOK".to_owned();
                let error = error + &"z".repeat(10_000) + "</errorDescription>";
                (500, format!("<s:Fault><detail><UPnPError>{error}</UPnPError></detail></s:Fault>"))
            },
        ];
        for answer in cases {
            let (mapping, _mapper, _fake) = outcome(answer).await;
            let Mapping::Nothing(why) = mapping else { panic!("{mapping:?}") };
            let is_plain = why.chars().all(|letter| letter == ' ' || letter.is_ascii_graphic());
            assert!(is_plain && why.len() < 400, "{} bytes, plain: {is_plain}", why.len());
        }
    }

    #[tokio::test]
    async fn a_router_that_names_no_port_has_forwarded_none() {
        let answer: Answer = |action, body| match action {
            "GetExternalIPAddress" => at("8.8.4.4"),
            "AddPortMapping" => fault(718),
            _ if body.contains("AddAnyPortMapping") => {
                done("AddAnyPortMapping", "<NewReservedPort>0</NewReservedPort>")
            }
            other => done(other, ""),
        };
        let fake = Fake::offering(true, answer).await;
        let mapper = Mapper::start(fake.ssdp);
        mapper.want(BTreeSet::from([Port { udp: true, number: 4_001 }]));
        let mapping = until(&mapper, is_settled).await;
        assert!(matches!(&mapping, Mapping::Nothing(why) if why.contains("does not forward")), "{mapping:?}");
    }

    #[tokio::test]
    async fn a_router_that_hangs_is_given_up() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let location = silent.local_addr().unwrap();
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let ssdp = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 2_000];
            while let Ok((_, from)) = socket.recv_from(&mut buffer).await {
                let answer = format!("HTTP/1.1 200 OK\r\nST: upnp:rootdevice\r\nLOCATION: http://{location}/x\r\n\r\n");
                socket.send_to(answer.as_bytes(), from).await.unwrap();
            }
        });
        let mapper = Mapper::start(ssdp);
        mapper.want(BTreeSet::from([Port { udp: true, number: 4_001 }]));
        let mut state = mapper.state();
        let settled = state.wait_for(|state| matches!(state, Mapping::Nothing(_)));
        timeout(Duration::from_secs(20), settled).await.unwrap().unwrap();
        mapper.shutdown().await;
    }
}
