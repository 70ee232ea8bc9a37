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

use crate::limits::MAPPED_PORTS_MAX;
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
            let is_new = wanted.as_ref() != Some(&ports);
            if is_new && wanted.is_some() {
                *wanted = Some(ports.into_iter().take(MAPPED_PORTS_MAX).collect());
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
    let mut forwarded = Vec::new();
    let mut gateway = None;
    loop {
        let Some(ports) = wanted.borrow_and_update().clone() else { break };
        let (now, pause) = if ports.is_empty() {
            (Mapping::Searching, RENEW)
        } else {
            match forward(&mut gateway, search_at, &ports, &forwarded).await {
                Ok(held) => {
                    forwarded = held;
                    (Mapping::Forwarded(forwarded.clone()), RENEW)
                }
                Err(why) => {
                    forwarded.clear();
                    let pause = if gateway.take().is_some() { RENEW } else { SEARCH_AGAIN };
                    (Mapping::Nothing(why), pause)
                }
            }
        };
        state.send_if_modified(|before| std::mem::replace(before, now.clone()) != now);
        tokio::select! {
            () = sleep(pause) => {}
            changed = wanted.changed() => if changed.is_err() { break },
        }
    }
    if let Some(gateway) = gateway {
        for Forwarded { port, external } in forwarded {
            // What it keeps ends with the lease.
            _ = timeout(REQUEST, gateway.remove_port(port.protocol(), external.port())).await;
        }
    }
}

/// Has the router forward these ports, those that it forwards already with the outer ports that they have.
async fn forward(
    known: &mut Option<Gateway<Tokio>>,
    search_at: SocketAddr,
    ports: &BTreeSet<Port>,
    held: &[Forwarded],
) -> Result<Vec<Forwarded>, String> {
    if known.is_none() {
        let mut options = SearchOptions::default();
        options.broadcast_address = search_at;
        if !search_at.ip().is_multicast() {
            // It was named, so it may be where no router that was found would be believed.
            options.allowed_gateway_ips.push(search_at.ip());
        }
        let found = timeout(SEARCH, search_gateway(options)).await;
        let found = found.map_err(|_| "no UPnP router answers".to_owned())?;
        *known = Some(found.map_err(|error| format!("no UPnP router answers ({error})"))?);
    }
    let Some(gateway) = known else { return Err("no UPnP router answers".into()) };
    let external = in_time(gateway.get_external_ip()).await?;
    if !is_public(external) {
        return Err(format!(
            "the router's own address, {external}, is not a public one: it is behind another NAT, or says something wrong"
        ));
    }
    let local = local_ip(gateway.addr).map_err(|error| format!("this machine has no way to the router: {error}"))?;
    let mut forwarded = Vec::new();
    for port in ports {
        let before = held.iter().find(|before| before.port == *port).map(|before| before.external.port());
        let number = add(gateway, *port, local, before.unwrap_or(port.number)).await?;
        forwarded.push(Forwarded { port: *port, external: SocketAddr::new(external, number) });
    }
    Ok(forwarded)
}

/// Asks for one port, with the outer number that is wanted, or another one when that is taken.
async fn add(gateway: &Gateway<Tokio>, port: Port, local: IpAddr, wanted: u16) -> Result<u16, String> {
    let (protocol, local) = (port.protocol(), SocketAddr::new(local, port.number));
    let ask = |number, lease| timeout(REQUEST, gateway.add_port(protocol, number, local, lease, DESCRIPTION));
    match ask(wanted, LEASE_S).await {
        Ok(Ok(())) => Ok(wanted),
        // It knows no leases: the port is given back at the end, or stays.
        Ok(Err(AddPortError::OnlyPermanentLeasesSupported)) => match ask(wanted, 0).await {
            Ok(Ok(())) => Ok(wanted),
            Ok(Err(error)) => Err(refused(&error)),
            Err(_) => Err(silent()),
        },
        Ok(Err(AddPortError::PortInUse)) => in_time(gateway.add_any_port(protocol, local, LEASE_S, DESCRIPTION)).await,
        Ok(Err(error)) => Err(refused(&error)),
        Err(_) => Err(silent()),
    }
}

async fn in_time<T, E: std::fmt::Display>(request: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    timeout(REQUEST, request).await.map_err(|_| silent())?.map_err(|error| refused(&error))
}

fn refused(error: &dyn std::fmt::Display) -> String {
    format!("the router does not forward ports: {error}")
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

    fn services() -> String {
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
        let actions = action("AddPortMapping", &add) + &action("DeletePortMapping", &add[..3]);
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
            let asked: Arc<Mutex<Vec<String>>> = Arc::default();
            let told = asked.clone();
            let handle = move |uri: Uri, body: Bytes| async move {
                let body = String::from_utf8_lossy(&body).into_owned();
                let (status, text) = match uri.path() {
                    "/device" => (200, DEVICE.to_owned()),
                    "/scpd" => (200, services()),
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
        let mut state = mapper.state();
        let settled = state.wait_for(|state| !matches!(state, Mapping::Searching));
        let settled = timeout(Duration::from_secs(20), settled).await.unwrap().unwrap().clone();
        (settled, mapper, fake)
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
