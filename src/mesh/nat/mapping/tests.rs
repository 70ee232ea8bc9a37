//! What is made of routers that do as they should, and of others: fake ones on loopback.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::{StatusCode, Uri};

use super::*;
use crate::mesh::nat::tally::Reason;

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
    let detail = format!("<detail><UPnPError xmlns=\"urn:schemas-upnp-org:control-1-0\">{error}</UPnPError></detail>");
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

fn counted(mapper: &Mapper) -> Vec<(&'static str, u64)> {
    mapper.refusals().counts().into_iter().filter(|(_, count)| *count > 0).collect()
}

#[tokio::test]
async fn what_a_router_says_that_cannot_be_is_not_believed_and_counted_by_reason() {
    let cases: [(Answer, &str, RouterFault); 8] = [
        (|_, _| at("192.168.7.1"), "not a public one", RouterFault::NotPublic),
        (|_, _| at("100.64.3.1"), "not a public one", RouterFault::NotPublic),
        (|_, _| at("240.1.2.3"), "not a public one", RouterFault::NotPublic),
        (|_, _| at("0.1.2.3"), "not a public one", RouterFault::NotPublic),
        (|_, _| at("255.255.255.255"), "not a public one", RouterFault::NotPublic),
        (|_, _| (200, "</nonsense>".repeat(3)), "does not forward", RouterFault::Nonsense),
        (|_, _| (200, "x".repeat(8 << 20)), "does not forward", RouterFault::TooMuch),
        (
            |action, _| if action == "AddPortMapping" { fault(606) } else { at("8.8.4.4") },
            "does not forward",
            RouterFault::Refused,
        ),
    ];
    for (answer, says, fault) in cases {
        let (mapping, mapper, _fake) = outcome(answer).await;
        let Mapping::Nothing(refusal) = mapping else { panic!("{says}: {mapping:?}") };
        assert!(refusal.why.contains(says) && refusal.fault == fault, "{says}: {refusal:?}");
        assert_eq!(counted(&mapper), [(fault.as_str(), 1)]);
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
    assert_eq!(counted(&mapper), [("refused", 1)]);
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
        let Mapping::Nothing(Refusal { why, .. }) = mapping else { panic!("{mapping:?}") };
        let is_plain = why.chars().all(|letter| letter == ' ' || letter.is_ascii_graphic());
        assert!(is_plain && why.len() < 400, "{} bytes, plain: {is_plain}", why.len());
    }
}

#[tokio::test]
async fn a_router_that_names_no_port_has_forwarded_none() {
    let answer: Answer = |action, body| match action {
        "GetExternalIPAddress" => at("8.8.4.4"),
        "AddPortMapping" => fault(718),
        _ if body.contains("AddAnyPortMapping") => done("AddAnyPortMapping", "<NewReservedPort>0</NewReservedPort>"),
        other => done(other, ""),
    };
    let fake = Fake::offering(true, answer).await;
    let mapper = Mapper::start(fake.ssdp);
    mapper.want(BTreeSet::from([Port { udp: true, number: 4_001 }]));
    let mapping = until(&mapper, is_settled).await;
    assert!(matches!(&mapping, Mapping::Nothing(refusal) if refusal.why.contains("does not forward")), "{mapping:?}");
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
    assert_eq!(counted(&mapper), [("absent", 1)]);
    mapper.shutdown().await;
}
