//! A peer as a program holds it: start one, get handles to its collections and its mesh, shut it down.
//!
//! ```no_run
//! # async fn example() -> aerolithsdb::Result<()> {
//! use aerolithsdb::{Peer, PeerConfig};
//!
//! let peer = Peer::start(PeerConfig::at("./data")).await?;
//! let notes = peer.collection("notes")?;
//! let note = notes.insert(serde_json::json!({"text": "hello"})).await?;
//! assert_eq!(notes.get(note.id())?.expect("it was just written").data()["text"], "hello");
//! peer.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! Whoever has something for the node runs it, under a lock that makes it the only writer of the store
//! (`run`); calls that meet share one flush. Reads go to the store beside it; those of a document's past, which cost
//! what its history is long, a few at a time (`version`). Queues are bounded: when they
//! stay full, calls fail with [`Error::Unavailable`] instead of piling up.

mod collection;
mod copy;
pub mod doctor;
mod feed;
mod live;
mod mesh;
mod meter;
mod query;
mod run;
mod version;
mod waiting;

pub use collection::{Cleared, Collection, Confirmation, Document, Listing};
pub use feed::{Changes, Feed, KeyConflict};
pub use live::LiveQuery;
pub use mesh::{Founded, Invite, Joined, Mesh};
pub use meter::{Latency, Meter};
pub use query::{Declared, IndexReport, TimeLimit};
pub use version::Diff;
pub use waiting::LiveChange;

pub use crate::document::{
    At, ChangeKind, Conflict, Conflicts, Difference, Differences, HistoryEntry, HistoryPage, Rival, Side,
};

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, broadcast};

use self::run::Runner;
use crate::base::{CollectionName, PeerId};
use crate::identity::Keypair;
use crate::kv::{self, CacheUse, Durability, Kv, MemoryKv, StorageConfig};
use crate::limits::HISTORY_READS_MAX;
use crate::memory::{self, CACHE_BYTES_DEFAULT, Memory};
use crate::mesh::nat;
use crate::node::{self, Command, Event, Node, PeerReport, Reply};
use crate::store::{self, Loss, Reader};
use crate::{Error, Result};

/// Events that a slow watcher may lag behind before it loses some.
const EVENTS_MAX: usize = 4_096;

/// How often a start looks whether a damaged table has been built anew.
const MENDING_LOOK: Duration = Duration::from_millis(100);

/// How long a query takes that is slow.
const SLOW_QUERY: Duration = Duration::from_millis(500);

/// How a peer is set up.
#[derive(Debug, Clone)]
pub struct PeerConfig {
    /// Where the data is kept; `None` keeps everything in memory, identity included.
    pub data_dir: Option<PathBuf>,
    /// Bytes of the table's cache; what else may be in memory follows from it, see [`Memory`].
    pub cache_bytes: usize,
    /// What an acknowledged write survives.
    pub durability: Durability,
    /// A name for people.
    pub node_id: String,
    /// The name of the mesh that a new peer founds, and one that leaves the mesh that it shares.
    pub mesh_name: String,
    /// Queries that take longer are told in the log; zero for none.
    pub slow_query: Duration,
    /// How it meets others.
    pub network: NetworkConfig,
}

/// How a peer meets others.
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// Multiaddrs to listen on; port 0 takes a free one.
    pub listen: Vec<String>,
    /// Ports on which to listen besides at all addresses of this machine, over QUIC and TCP; 0 takes a free one. Of IPv4 and
    /// IPv6, one that the machine lacks is left out.
    pub listen_ports: Vec<u16>,
    /// Multiaddrs at which others can reach this peer, as they are.
    pub external_addresses: Vec<String>,
    /// Multiaddrs to dial.
    pub seeds: Vec<String>,
    /// Whether peers on the same LAN find each other.
    pub mdns: bool,
    /// Whether peers find each other through a distributed hash table.
    pub kademlia: bool,
    /// What it may do to reach peers behind NATs, and to be reached behind one.
    pub nat: nat::Settings,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            listen_ports: vec![0],
            external_addresses: Vec::new(),
            seeds: Vec::new(),
            mdns: true,
            kademlia: true,
            nat: nat::Settings::default(),
        }
    }
}

impl Default for PeerConfig {
    fn default() -> Self {
        Self {
            data_dir: None,
            cache_bytes: CACHE_BYTES_DEFAULT,
            durability: Durability::Durable,
            node_id: "peer".into(),
            mesh_name: "mesh".into(),
            slow_query: SLOW_QUERY,
            network: NetworkConfig::default(),
        }
    }
}

impl PeerConfig {
    /// A peer that keeps its data in a folder, with everything else at its default.
    #[must_use]
    pub fn at(data_dir: impl AsRef<Path>) -> Self {
        Self { data_dir: Some(data_dir.as_ref().to_owned()), ..Self::default() }
    }

    /// A peer in memory that meets others on loopback only and searches for nobody: for tests and examples.
    #[must_use]
    pub fn local() -> Self {
        let network = NetworkConfig {
            listen: vec!["/ip4/127.0.0.1/udp/0/quic-v1".into(), "/ip4/127.0.0.1/tcp/0".into()],
            listen_ports: Vec::new(),
            mdns: false,
            kademlia: false,
            ..NetworkConfig::default()
        };
        Self { network, ..Self::default() }
    }
}

/// What a peer has and does, for those who watch over it.
#[derive(Debug, Clone)]
pub struct Stats {
    /// Bytes on the disk, about.
    pub disk_bytes: u64,
    /// What the parts of the peer may have in memory.
    pub memory: Memory,
    /// Bytes of the process that are in memory; `None` where the system does not say.
    pub resident_bytes: Option<u64>,
    /// How the table's cache does.
    pub table_cache: CacheUse,
    /// This peer, its neighbours and its counters.
    pub peer: PeerReport,
    /// Bytes received from and sent to other peers.
    pub traffic: crate::mesh::Traffic,
    /// Those of them that went through other peers as relays.
    pub relayed: crate::mesh::Traffic,
    /// How this peer is reached, and how it reaches others.
    pub reach: crate::mesh::nat::ReachReport,
    /// Reads of documents.
    pub reads: Latency,
    /// Writes of documents.
    pub writes: Latency,
    /// Queries.
    pub queries: Latency,
    /// Those of them that took longer than [`PeerConfig::slow_query`].
    pub slow_queries: u64,
}

/// A running peer. Clones are handles to the same one; it runs until [`Peer::shutdown`], or until the
/// process ends.
#[derive(Debug, Clone)]
pub struct Peer {
    shared: Arc<Shared>,
}

/// What all handles share.
#[derive(Debug)]
struct Shared {
    id: PeerId,
    node_id: String,
    started: Instant,
    runner: Arc<Runner>,
    reader: Reader,
    events: broadcast::Sender<Event>,
    network: Arc<crate::mesh::Handle>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
    reads: Meter,
    writes: Meter,
    /// Readings of whole histories that may begin.
    histories: Arc<Semaphore>,
    /// Queries that may begin.
    queries: Arc<Semaphore>,
    queried: Meter,
    slow_query: Duration,
    slow_queries: AtomicU64,
    live: Arc<live::Hub>,
    memory: Memory,
}

impl Peer {
    /// Starts a peer. It returns once the peer can be written to and read from and listens to others.
    ///
    /// # Errors
    /// [`Error::Io`] when the data directory is in use, foreign or unwritable, or an address cannot be
    /// listened on; [`Error::Corrupt`] when what is stored cannot be opened.
    pub async fn start(config: PeerConfig) -> Result<Self> {
        let storage = config.clone();
        let opened = tokio::task::spawn_blocking(move || open_storage(&storage));
        let Storage { kv, keypair, fresh, loss } =
            opened.await.map_err(|error| Error::Io(format!("opening the storage: {error}")))??;
        let node_config = node_config(&config, keypair.clone(), fresh, loss)?;
        let opened = tokio::task::spawn_blocking(move || open_node(&node_config, &kv)).await;
        let mut node = opened.map_err(|error| Error::Io(format!("opening the node: {error}")))??;
        let memory = Memory::new(config.cache_bytes);
        node.keep_open(memory.open_documents());
        let (inputs, arriving) = run::inputs();
        let network = crate::mesh::Config {
            keypair,
            listen: config.network.listen,
            listen_ports: config.network.listen_ports,
            external_addresses: config.network.external_addresses,
            nat: config.network.nat,
            mdns: config.network.mdns,
            kademlia: config.network.kademlia,
        };
        let network = Arc::new(crate::mesh::start(network, node.context(), inputs).await?);
        let (events, _) = broadcast::channel(EVENTS_MAX);
        let (id, reader) = (node.peer_id(), node.reader());
        let (runner, thread) = Runner::start(node, network.clone(), events.clone(), arriving)?;
        let shared = Shared {
            id,
            node_id: config.node_id,
            started: Instant::now(),
            runner,
            reader,
            events,
            network,
            thread: Mutex::new(Some(thread)),
            reads: Meter::default(),
            writes: Meter::default(),
            histories: Arc::new(Semaphore::new(HISTORY_READS_MAX)),
            queries: Arc::new(Semaphore::new(memory.queries())),
            queried: Meter::default(),
            slow_query: config.slow_query,
            slow_queries: AtomicU64::new(0),
            live: Arc::new(live::Hub::new(memory)),
            memory,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Finishes what was asked for before, makes it durable and leaves the network. Calls made later fail.
    /// The store is closed when the last handle is gone.
    pub async fn shutdown(&self) {
        if self.stop().await {
            self.shared.network.shutdown().await;
        }
    }

    /// As [`Peer::shutdown`], for a process that ends: its ports may stay taken until then.
    pub(crate) async fn end(&self) {
        if self.stop().await {
            self.shared.network.end().await;
        }
    }

    /// Stops the node; says whether it ran.
    async fn stop(&self) -> bool {
        let runner = self.shared.runner.clone();
        let stopped = tokio::task::spawn_blocking(move || runner.stop()).await;
        let thread = self.shared.thread.lock().ok().and_then(|mut thread| thread.take());
        let Some(thread) = thread else { return false };
        let joined = tokio::task::spawn_blocking(move || thread.join()).await;
        if stopped.is_err() || !matches!(joined, Ok(Ok(()))) {
            tracing::error!("the node's thread did not end well");
        }
        true
    }

    /// This peer's id.
    #[must_use]
    pub fn id(&self) -> PeerId {
        self.shared.id
    }

    /// Its name for people.
    #[must_use]
    pub fn node_id(&self) -> &str {
        &self.shared.node_id
    }

    /// How long it has been running.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.shared.started.elapsed()
    }

    /// A handle to a collection, which comes into being with its first document.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the name breaks its rule.
    pub fn collection(&self, name: &str) -> Result<Collection> {
        Ok(Collection::new(self.clone(), name.parse()?))
    }

    /// Every collection with its counts, in the order of names.
    ///
    /// # Errors
    /// [`Error::Io`] when the disk cannot be read.
    pub fn collections(&self) -> Result<Vec<(CollectionName, store::Collection)>> {
        self.shared.reader.collections()
    }

    /// At most `limit` collections after a name with their counts, in the order of names, and whether there are more.
    ///
    /// # Errors
    /// [`Error::Io`] when the disk cannot be read.
    pub fn collections_after(
        &self,
        after: Option<&CollectionName>,
        limit: usize,
    ) -> Result<(Vec<(CollectionName, store::Collection)>, bool)> {
        self.shared.reader.collections_after(after, limit)
    }

    /// The collections with the most documents, at most `limit` of them, the largest first. Takes time for each
    /// collection that there is.
    ///
    /// # Errors
    /// [`Error::Io`] when the disk cannot be read.
    pub fn largest_collections(&self, limit: usize) -> Result<Vec<(CollectionName, store::Collection)>> {
        self.shared.reader.largest_collections(limit)
    }

    /// A handle to the mesh.
    #[must_use]
    pub fn mesh(&self) -> Mesh {
        Mesh::new(self.clone())
    }

    /// What the parts of it may hold in memory.
    pub(crate) fn memory(&self) -> Memory {
        self.shared.memory
    }

    /// What happens from now on. A watcher that lags too far behind is told how many events it lost.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.shared.events.subscribe()
    }

    /// What the peer has and does.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the peer is overloaded or shut down.
    pub async fn stats(&self) -> Result<Stats> {
        Ok(Stats {
            disk_bytes: self.shared.reader.size_bytes(),
            memory: self.shared.memory,
            resident_bytes: memory::resident_bytes(),
            table_cache: self.shared.reader.cache(),
            peer: self.mesh().status().await?,
            traffic: self.traffic(),
            reach: self.shared.network.reach(),
            relayed: self.shared.network.relayed(),
            reads: self.shared.reads.read(),
            writes: self.shared.writes.read(),
            queries: self.shared.queried.read(),
            slow_queries: self.shared.slow_queries.load(Ordering::Relaxed),
        })
    }

    /// Bytes received from and sent to other peers since the start.
    #[must_use]
    pub fn traffic(&self) -> crate::mesh::Traffic {
        self.shared.network.traffic()
    }

    /// Whether writes are accepted now.
    ///
    /// # Errors
    /// Why not: the disk is full or has refused a write, or the peer is shutting down.
    pub fn check_writable(&self) -> Result<()> {
        self.shared.runner.check_running()?;
        self.shared.reader.check_writable()
    }

    /// Whether the storage can be read as a whole.
    #[must_use]
    pub fn storage_condition(&self) -> kv::Condition {
        self.shared.reader.condition()
    }

    async fn command(&self, command: Command) -> Result<Reply> {
        self.shared.runner.send(command).await
    }
}

/// What a peer stands on.
struct Storage {
    kv: Arc<dyn Kv>,
    keypair: Keypair,
    /// Whether it was made just now.
    fresh: bool,
    /// What of the writes before may be missing.
    loss: Loss,
}

fn node_config(config: &PeerConfig, keypair: Keypair, fresh: bool, loss: Loss) -> Result<node::Config> {
    Ok(node::Config {
        keypair,
        seed: fresh_seed()?,
        mesh_name: config.mesh_name.clone(),
        synced: config.data_dir.is_some() && config.durability == Durability::Durable,
        loss,
        fresh,
        seeds: config.network.seeds.clone(),
    })
}

fn open_storage(config: &PeerConfig) -> Result<Storage> {
    let Some(directory) = &config.data_dir else {
        let keypair = Keypair::from_seed(fresh_seed()?);
        return Ok(Storage { kv: Arc::new(MemoryKv::new()), keypair, fresh: true, loss: Loss::Nothing });
    };
    let key_file = directory.join("identity.key");
    let storage = StorageConfig {
        memory: Memory::new(config.cache_bytes),
        durability: config.durability,
        precious: Some(store::is_precious),
    };
    let fresh = !directory.join("FORMAT").exists();
    let (kv, damages) = kv::open(directory, &storage)?;
    for damage in &damages {
        tracing::warn!("{damage}");
    }
    // A directory that was made but never got as far as its key is as good as new.
    let fresh = fresh || !key_file.exists() && is_empty(&kv)?;
    if !fresh && !key_file.exists() {
        return Err(Error::Io(format!(
            "{} is missing: restore it, or start with an empty data directory and join the mesh again",
            key_file.display()
        )));
    }
    let keypair = Keypair::load_or_create(&key_file, fresh_seed()?)?;
    Ok(Storage { kv: Arc::new(kv), keypair, fresh, loss: Loss::of(config.durability, &damages) })
}

/// Opens the node. When its storage is found damaged meanwhile it waits until the table was built anew.
fn open_node(config: &node::Config, kv: &Arc<dyn Kv>) -> Result<Node> {
    loop {
        let before = kv.condition().mended;
        let opened = Node::open(config.clone(), kv.clone(), run::now());
        while kv.condition().mending.is_some() && matches!(kv.check(), Err(kv::Error::Unreadable(_))) {
            std::thread::sleep(MENDING_LOOK);
        }
        if opened.is_ok() || kv.condition().mended == before {
            return opened;
        }
    }
}

fn is_empty(kv: &dyn Kv) -> Result<bool> {
    let mut empty = true;
    kv.scan(&[], &[0xff], &mut |_, _| {
        empty = false;
        ControlFlow::Break(())
    })?;
    Ok(empty)
}

fn fresh_seed() -> Result<[u8; 32]> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| Error::Io(format!("the system gives no randomness: {error}")))?;
    Ok(seed)
}
