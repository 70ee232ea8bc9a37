//! Every bound of the system, with its unit and its reason.
//!
//! Nothing a client or a peer sends may grow beyond one of these. A limit that two peers must agree on
//! (what a valid change is) is part of the protocol: changing it needs a new protocol version.
//!
//! What one peer has acknowledged no other may refuse for good, or they stay apart. So a bound is of one of these kinds:
//!
//! | kind | bounds | where they hold |
//! |---|---|---|
//! | what a change is, the same on every peer whatever it holds | `CHANGE_*`, `DOCUMENT_DEPTH_MAX`, `RUN_*`, the lengths of names and ids | `Change::own` judges a change of our own before it is acknowledged, as `Change::screen` does those of others |
//! | what a program may ask for | `COLLECTIONS_MAX`, `DOCUMENT_BYTES_MAX`, `PATCH_*`, `INDEX*` | at the command that asks, never on the way in from peers |
//! | what one message tells | `DOCUMENT_ACTORS_MAX`, `ITEMS_MAX`, `*_PARTS_MAX`, `OUTBOX_JOBS_MAX`, `RECEIPT_*` | the sender keeps to it; the rest goes in another message, or is found by the next comparison |
//! | what is kept of what waits | `DEAD_LETTERS_MAX`, `MEMBERS_WAITING_MAX` | what gives way comes again |
//! | what is shown | `DOCUMENT_VIEW_BYTES_MAX`, pages, reports | the changes are kept and sent all the same |
//!
//! Two depend on what a peer holds already and do refuse: `MEMBERS_MAX`, and a document whose authors used sequence
//! numbers twice in more than 64 places, which no honest peer comes to.

// Documents.

/// Bytes of a collection's name: fits a file name and a topic anywhere.
pub const COLLECTION_NAME_BYTES_MAX: usize = 64;
/// Bytes of a document's id: room for a URL or a path, still cheap as a key.
pub const DOCUMENT_ID_BYTES_MAX: usize = 512;
/// Bytes of one document as JSON, in a request: a document is read, shown and merged as a whole.
pub const DOCUMENT_BYTES_MAX: usize = 1 << 20;
/// Levels of nesting in a document.
pub const DOCUMENT_DEPTH_MAX: usize = 128;
/// Bytes of one change's payload: what the largest document needs as one change, with room to spare.
pub const CHANGE_BYTES_MAX: usize = 2 << 20;
/// Operations in one change: above what the largest document needs, below what a run-length bomb wants.
pub const CHANGE_OPS_MAX: u64 = 1 << 19;
/// Dependencies of one change: as many branches of one document as can meet in one edit.
pub const CHANGE_DEPS_MAX: usize = 1 << 10;
/// Actors that one change may name.
pub const CHANGE_ACTORS_MAX: usize = 1 << 12;
/// Operations of one patch: paths of update operators, operations of a JSON Patch, splices of a text. Each costs a
/// walk to its place, and inserting into a list or a text of the largest size takes Automerge milliseconds.
pub const PATCH_OPERATIONS_MAX: usize = 1_000;
/// Conditions of one `$pull`: each may be tried on every element of a list.
pub const PATCH_CONDITIONS_MAX: usize = 64;
/// Bytes of JSON that the operations of one JSON Patch may read in all: a short `test` or `copy` can name a large part
/// of a document, again and again.
pub const PATCH_READ_BYTES_MAX: usize = 16 << 20;
/// Milliseconds that a remote timestamp may be ahead of ours and still move our clock.
pub const CLOCK_DRIFT_MAX_MS: u64 = 5 * 60 * 1_000;
/// Milliseconds between a store's latest stamp and the start of its peer beyond which the machine's clock may have leapt:
/// a day, as a machine that is used every day has.
pub const CLOCK_GAP_MAX_MS: u64 = 24 * 60 * 60 * 1_000;
/// Milliseconds after which a clock that gave reason to doubt it is trusted again when nobody is there to confirm it: by
/// then time servers have set it, if there are any.
pub const CLOCK_DOUBT_MS: u64 = 60 * 60 * 1_000;
/// Milliseconds by which a member's clock may move against this one before it counts as set.
pub const CLOCK_SET_MS: u64 = 15_000;
/// Milliseconds between two messages that tell a connected member the time: 100 bytes each.
pub const CLOCK_TELL_EVERY_MS: u64 = 10 * 60 * 1_000;

// Histories.

/// Entries in one page of a history: each needs one or two old versions of the whole document.
pub const HISTORY_PAGE_MAX: usize = 100;
/// Operations that one page of a history reads through: an old version is read through all operations of its
/// document (less than a microsecond each), so pages of long histories have fewer entries.
pub const HISTORY_PAGE_OPERATIONS_MAX: usize = 2_000_000;
/// Places that one entry of a history lists as changed.
pub const HISTORY_DIFFERENCES_MAX: usize = 100;
/// Bytes of all paths and values that one entry of a history lists.
pub const HISTORY_ENTRY_BYTES_MAX: usize = 64 << 10;
/// Bytes of a value in a history as JSON; of a longer one the length is shown, and the version has the rest.
pub const HISTORY_VALUE_BYTES_MAX: usize = 4 << 10;
/// Places in the difference of two versions.
pub const DIFFERENCES_MAX: usize = 10_000;
/// Bytes of all paths and values in the difference of two versions: both whole, and room for paths.
pub const DIFFERENCE_BYTES_MAX: usize = 40 << 20;
/// Values in one list of conflicts.
pub const CONFLICT_VALUES_MAX: usize = 1_000;
/// Bytes of all paths and values in one list of conflicts; one more value may come on top.
pub const CONFLICT_BYTES_MAX: usize = 4 << 20;
/// Changes of the documents whose conflicts are counted at a time, after an update from a version that did not.
pub const CONFLICT_STEP_CHANGES: u64 = 2_000;
/// Signatures that are checked to find out whose the logs without a record are, after a damaged table was built anew, at
/// a time and in all: some seconds of one processor.
pub const ORPHAN_CHECKS_STEP: usize = 200;
/// See [`ORPHAN_CHECKS_STEP`].
pub const ORPHAN_CHECKS_MAX: usize = 100_000;
/// Heads that name a version: as many as meet in one edit, and fit a URL.
pub const VERSION_HEADS_MAX: usize = 256;
/// Readings of whole histories at a time: each opens a document with all of its changes in memory.
pub const HISTORY_READS_MAX: usize = 4;

// Queries.

/// Levels of nesting of one expression: far above what people write, shallow enough to be walked by recursion.
pub const EXPRESSION_DEPTH_MAX: usize = 50;
/// Operators and paths of one expression: each may be evaluated for every document.
pub const EXPRESSION_NODES_MAX: usize = 1_000;
/// Fields that one projection, or one stage of a pipeline, names: each is looked at for every document.
pub const QUERY_FIELDS_MAX: usize = 1_000;
/// Stages of one pipeline, those in its facets included.
pub const PIPELINE_STAGES_MAX: usize = 100;
/// Bytes of rows, groups and results that one pipeline holds at a time: what a small machine can spare for a question.
pub const AGGREGATE_BYTES_MAX: usize = 64 << 20;
/// Rows of a `$lookup` for which the other collection is read through once.
pub const LOOKUP_ROWS_MAX: usize = 10_000;
/// Bytes of such rows, after which it is read through as well: a part of [`AGGREGATE_BYTES_MAX`].
pub const LOOKUP_BYTES: usize = 4 << 20;

// Storage.

/// Collections that hold documents, after which this peer makes no more. Others that were made elsewhere at the same time
/// are taken all the same, at about 1.3 KB of memory each (see `store::holdings`).
pub const COLLECTIONS_MAX: usize = 32_768;
/// Documents kept open in memory as Automerge documents (about 31 KiB each when small).
pub const OPEN_DOCUMENTS_MAX: usize = 256;
/// Changes of one actor under one signature.
pub const RUN_CHANGES_MAX: usize = 128;
/// Bytes of the changes under one signature when they are several.
pub const RUN_BYTES_MAX: usize = 32 << 10;
/// Dead letters kept, shared among the neighbours that sent them and their authors; those that give way are counted.
pub const DEAD_LETTERS_MAX: usize = 10_000;
/// Bytes of dead letters kept in all.
pub const DEAD_LETTER_BYTES_MAX: usize = 64 << 20;

// Membership.

/// Delegations in one chain.
pub const CHAIN_LENGTH_MAX: usize = 8;
/// Members of one mesh.
pub const MEMBERS_MAX: usize = 4_096;
/// Addresses that a ticket carries.
pub const TICKET_ADDRESSES_MAX: usize = 16;
/// Bytes of one multiaddr in text.
pub const ADDRESS_BYTES_MAX: usize = 512;
/// Bytes of a ticket in text.
pub const TICKET_BYTES_MAX: usize = 16 << 10;
/// Actors of which one message about versions of documents tells. Any number may have written a document: of those beyond
/// nothing is told, and the other side sends what it has of them.
pub const DOCUMENT_ACTORS_MAX: usize = 1 << 14;
/// Bytes of one document's JSON as it is shown: edits by several peers can add up beyond what one request may hold.
pub const DOCUMENT_VIEW_BYTES_MAX: usize = 16 << 20;

// Messages.

/// Bytes of one frame between two peers: what the largest change needs.
pub const FRAME_BYTES_MAX: usize = 4 << 20;
/// Bytes of the changes in one frame before compression.
pub const CHANGES_RAW_BYTES_MAX: usize = 4 << 20;
/// Changes in one frame.
pub const CHANGES_PER_FRAME_MAX: usize = 4_096;
/// Bytes of changes after which a frame is closed: small enough to be checked while the next is on its way.
pub const CHANGES_FRAME_BYTES: usize = 64 << 10;
/// Bytes of changes under way to one peer without an acknowledgement.
pub const CREDIT_BYTES: usize = 1 << 20;
/// Member records in one frame.
pub const MEMBERS_PER_FRAME_MAX: usize = 512;
/// Ranges of names in one message about which collections differ: each takes at most 71 bytes, or is one of few lists.
pub const ROOTS_PARTS_MAX: usize = 1_024;
/// Collections that one message opens the comparison of: as many messages are queued for one peer. Those beyond are found
/// by the next comparison.
pub const OPENED_COLLECTIONS_MAX: usize = 4_096;
/// Ranges in one message.
pub const RANGE_PARTS_MAX: usize = 256;
/// Digests or vectors in one message.
pub const ITEMS_MAX: usize = 8_192;
/// Documents and ranges queued for one peer; what is beyond is found again by the next comparison.
pub const OUTBOX_JOBS_MAX: usize = 16_384;
/// Bytes of one gossip message before sealing: gossipsub's own limit is 64 KiB.
pub const GOSSIP_BYTES_MAX: usize = 60 << 10;
/// Bytes of a peer's writes that go out over gossip at once: what takes longer than that is no live change, and goes by
/// comparing, which follows each line's own pace.
pub const GOSSIP_BURST_BYTES: u64 = 256 << 10;
/// Bytes of writes a second that go out over gossip for as long as one likes: 250 edits of 500 bytes.
pub const GOSSIP_BYTES_PER_S: u64 = 128 << 10;
/// Changes that gossip is spreading and that are noted for it, so that comparing does not send them as well; of more some
/// come twice.
pub const SPREADING_CHANGES_MAX: usize = 4_096;
/// Gossip topics of a mesh; collections are spread over them by hash. A libp2p peer accepts at most 100.
pub const GOSSIP_TOPICS: u8 = 16;

// Membership, records.

/// Bytes of a mesh's name: what fits a line of a list.
pub const MESH_NAME_BYTES_MAX: usize = 64;
/// Members that one invitation may let in: a classroom or an office; beyond that a leaked ticket is worth too much.
pub const INVITATION_USES_MAX: u32 = 1_000;
/// Member records that wait for the record of somebody they name; the oldest give way. Peers send records in an
/// order in which none has to wait, so this is for records that cross on the way.
pub const MEMBERS_WAITING_MAX: usize = 1_024;
/// Joins of one invitation beyond its uses, in all and by one admitter, that are kept although they do not count: those
/// of members that were apart, and one joiner that several members let in at once. Members hand them on, so that all
/// judge by the same records.
pub const INVITATION_SPARE_MAX: usize = 64;
/// Member records that are kept although they do not count, of all invitations: 12 MB. Only admins, who sign
/// invitations, can bring a mesh there.
pub const MEMBERS_FALLEN_MAX: usize = 4 * MEMBERS_MAX;
/// Peers whose addresses are remembered.
pub const KNOWN_PEERS_MAX: usize = 1_024;
/// Neighbours up to which a peer dials others; more may still connect to it.
pub const NEIGHBOURS_TARGET: usize = 24;

// Receipts.

/// Versions in one question for receipts, or in one receipt: one signature for many writes.
pub const RECEIPT_VERSIONS_MAX: usize = 256;
/// Actors in a version that others are asked for, so that the question fits a frame; nobody is asked for one with more.
pub const RECEIPT_ACTORS_MAX: usize = 512;
/// Calls that wait for what other peers have: fewer than requests and commands at a time, so that others pass.
pub const INQUIRIES_MAX: usize = 256;
/// Actors in the versions that one neighbour waits for and that are not here yet: a write of its own names one, and a
/// few times as many as its calls at a time may be overdue. Each costs a comparison whenever its document changes.
pub const RECEIPTS_OWED_MAX: usize = 1_024;
/// Other peers for which a write can wait.
pub const WRITE_CONCERN_PEERS_MAX: usize = 64;
/// Milliseconds for which a write can wait for them.
pub const WRITE_CONCERN_MS_MAX: u64 = 60_000;

// Log.

/// Lines of the log about other peers that are remembered, so that none is written again within a minute.
pub const NOTES_MAX: usize = 1_024;
/// Peers and reasons of which is kept when a line of the log was last about them.
pub const COMPLAINTS_MAX: usize = 1_024;

// Changes.

/// Predecessors that the operations of one change name in all: one each, and room for conflicts.
pub const CHANGE_PREDECESSORS_MAX: u64 = 1 << 20;

// Journal and table files.

/// Bytes of one batch as a journal record: what the largest commit needs many times over, and one allocation.
pub const BATCH_BYTES_MAX: usize = 64 << 20;
/// Bytes of journal (and, about, of memory) after which it is moved into the table behind it: at most two
/// such amounts are in memory, and one is replayed at start.
pub const JOURNAL_SEGMENT_BYTES: usize = 16 << 20;
/// Milliseconds after which buffered writes are synced to the disk at the latest.
pub const BUFFERED_SYNC_MS: u64 = 200;
/// Ranges of keys of a damaged table that are told apart; a damaged page is one.
pub const LOST_RANGES_MAX: usize = 1_024;
/// Of them those that a report names.
pub const LOST_RANGES_SHOWN_MAX: usize = 16;
/// Bytes of one of them in words.
pub const KEY_TEXT_BYTES_MAX: usize = 4_096;
/// Keys listed in one report of journal damage.
pub const DAMAGE_KEYS_MAX: usize = 1_024;

// Channels.

/// Inputs of the network that wait for the node: a frame of each of many neighbours.
pub const INPUTS_MAX: usize = 64;
/// Commands that wait for the node; more wait a moment for room, then fail as overloaded.
pub const COMMANDS_MAX: usize = 1_024;
/// Inputs and commands that share one flush.
pub const BATCH_INPUTS_MAX: usize = 128;
// Network.

/// Connections in all: members, newcomers, and peers of the DHT.
pub const CONNECTIONS_MAX: u32 = 256;
/// Connections of one peer: two when both dial at once, a relayed one and two that were punched, and as many of its
/// former life that were not noticed to be dead.
pub const CONNECTIONS_PER_PEER_MAX: u32 = 8;
/// Connections that are being established, each way.
pub const CONNECTIONS_PENDING_MAX: u32 = 64;
/// Bytes that are read from a connection while it cannot be written to, to see whether the other side is there: a few
/// such looks at what comes.
pub const READ_AHEAD_BYTES_MAX: usize = 64 << 10;
/// Messages queued for one peer: the credit allows far fewer, so more means that it does not read.
pub const SEND_QUEUE_MAX: usize = 16_384;
/// Bytes of messages queued for one peer, as they are in memory.
pub const SEND_QUEUE_BYTES_MAX: usize = 16 << 20;
/// Batches of live changes that wait to be sealed and published; what is beyond is found by a comparison.
pub const PUBLISH_QUEUE_MAX: usize = 256;
/// Gossip messages that wait to be opened and checked; what is beyond is ignored, and found by a comparison.
pub const GOSSIP_QUEUE_MAX: usize = 256;
/// Gossip messages that wait for a verdict; gossipsub itself forgets them after a few seconds.
pub const GOSSIP_VERDICTS_MAX: usize = 4_096;
/// Dials and verdicts of the node that wait for the driver.
pub const DRIVER_QUEUE_MAX: usize = 4_096;
/// Failed dials and discovered addresses that wait for the node; discoveries give way first.
pub const NOTICES_MAX: usize = 1_024;
/// Peers that are kept out for misbehaving at a time; the oldest are let in again.
pub const BLOCKED_PEERS_MAX: usize = 1_024;
/// Relays on which a peer that cannot be dialed keeps a slot: when one ends, others still find it.
pub const RELAYS_WANTED: usize = 2;
/// Addresses of the link (fe80::) that are told to others, and network interfaces behind which one of theirs is dialed: a
/// machine that runs containers has one for each of them, and what peers tell each other has its bounds.
pub const LINK_ADDRESSES_MAX: usize = 8;
/// Addresses of one relay through which a peer says that it is reached: both protocols with both transports, and some more.
pub const RELAY_ADDRESSES_MAX: usize = 6;
/// Relayed connections at a time that one peer takes part in: as many as it has neighbours, and some that newcomers try.
pub const RELAY_CIRCUITS_PER_PEER_MAX: usize = 64;
/// Relayed addresses that wait until their relay is connected, for each relay.
pub const RELAY_DIALS_MAX: usize = 64;
/// Connections of which is kept at which address the peer sees us.
pub const OBSERVED_ADDRESSES_MAX: usize = CONNECTIONS_MAX as usize;
/// IP addresses of which is kept that something was sent there: firewalls let them in for a while.
pub const CONTACTED_MAX: usize = 1_024;
/// Addresses of which is kept that they were tried in vain.
pub const REFUTED_ADDRESSES_MAX: usize = 64;
/// Ports that the router is asked to forward: two for each address on which a peer listens, of which it rarely has more.
pub const MAPPED_PORTS_MAX: usize = 16;
/// Characters of what a router said that are repeated where people read it: a sentence, of up to a page that it may send.
pub const ROUTER_WORDS_CHARACTERS_MAX: usize = 200;
/// Answers of the STUN server each second, in all and to one IP address, and addresses that it remembers for that.
pub const STUN_ANSWERS_MAX: u32 = 1_000;
/// See [`STUN_ANSWERS_MAX`]: many peers may be behind one address, and each asks a few times a minute.
pub const STUN_ANSWERS_PER_ADDRESS_MAX: u32 = 50;
/// See [`STUN_ANSWERS_MAX`].
pub const STUN_ADDRESSES_MAX: usize = 1_000;
/// Strangers that stay connected for a while: their connection may be wanted as a relay, or they ask the DHT. The oldest
/// makes room for the next, so that they take few of the places of members.
pub const LINGERING_MAX: usize = 64;
/// Provider records held for others in the DHT, by key.
pub const DHT_KEYS_MAX: usize = 1_024;

// Feeds.

/// Documents that a live feed hands over at a time.
pub const FEED_DOCUMENTS_MAX: usize = 100;
/// Live feeds over HTTP at a time: each holds a connection, and is woken by every change.
pub const GATEWAY_FEEDS_MAX: usize = 256;
/// Live queries over HTTP at a time: each holds a connection, and is woken by what it is about only.
pub const GATEWAY_LIVE_MAX: usize = 512;

// Filters.

/// Levels of operators in a filter: each is a call within a call for every document.
pub const FILTER_DEPTH_MAX: usize = 32;
/// Conditions in a filter: each is tried on every document.
pub const FILTER_CONDITIONS_MAX: usize = 1_000;
/// Values in all lists of a filter (`$in`, `$nin`, `$all`): as many ids as a program joins by itself at a time.
pub const FILTER_VALUES_MAX: usize = 10_000;
/// Aggregation expressions (`$expr`) in a filter: each may have [`EXPRESSION_NODES_MAX`] operators.
pub const FILTER_EXPRESSIONS_MAX: usize = 16;
/// Regular expressions in a filter: each may take twice [`REGEX_COMPILED_BYTES_MAX`].
pub const FILTER_REGEXES_MAX: usize = 16;
/// Bytes of a regular expression as it is written.
pub const REGEX_BYTES_MAX: usize = 1_024;
/// Bytes of a regular expression as it is compiled, and of its cache: many classes of Unicode, few repetitions of them.
pub const REGEX_COMPILED_BYTES_MAX: usize = 1 << 20;
/// Bytes of the words that are searched for: a long sentence.
pub const SEARCH_BYTES_MAX: usize = 1_024;
/// Corners of a polygon: the border of a town, drawn finely.
pub const POLYGON_POINTS_MAX: usize = 1_000;

// Client.

/// Bytes of one line of an answer: the largest document as it is shown, and what is around it.
pub const ANSWER_LINE_BYTES_MAX: u64 = DOCUMENT_VIEW_BYTES_MAX as u64 + (4 << 10);

// Gateway.

/// Requests that the gateway works on at a time: each may hold a document's bytes; more are told to come back.
pub const GATEWAY_REQUESTS_MAX: usize = 512;
/// Bytes of an answer or a body up to which it needs no room of its own: any connection holds so many.
pub const GATEWAY_SMALL_BYTES: usize = 16 << 10;
/// Bytes of answers that are on their way to clients, in all: sixteen pages.
pub const GATEWAY_ANSWERS_BYTES_MAX: usize = 64 << 20;
/// Bytes of bodies that are on their way here, in all.
pub const GATEWAY_BODIES_BYTES_MAX: usize = 64 << 20;
/// Readings of pages and lists at a time; others wait for them.
pub const GATEWAY_READS_MAX: usize = 16;
/// Bytes that are read of a body of which the answer is known already, so that the client comes to read that: what
/// somebody sends who does not know the limits.
pub const GATEWAY_LEFTOVER_BYTES_MAX: usize = 64 << 20;
/// Connections that the gateway has open at a time, at most half of the files that the process may have open; for one
/// more the one gives way that has been idle for the longest.
pub const GATEWAY_CONNECTIONS_MAX: usize = 1_024;
/// Connections of one client elsewhere than on this machine: what a browser and a busy program need many times over,
/// and too few to keep the others out.
pub const GATEWAY_CONNECTIONS_PER_CLIENT_MAX: usize = 128;
/// Bytes of the head of a request: a document id in its longest encoding, cookies that browsers send, and room.
pub const GATEWAY_HEAD_BYTES_MAX: usize = 32 << 10;
/// Headers of a request.
pub const GATEWAY_HEADERS_MAX: usize = 100;
/// TLS handshakes that the gateway computes at a time: each takes about a millisecond of a core.
pub const GATEWAY_HANDSHAKES_MAX: usize = 64;
/// Clients of the gateway whose requests and wrong tokens are counted; whoever was silent the longest is forgotten.
pub const GATEWAY_CLIENTS_MAX: usize = 4_096;
/// Characters of a token at least: what nobody guesses.
pub const TOKEN_BYTES_MIN: usize = 32;
/// Characters of a token at most.
pub const TOKEN_BYTES_MAX: usize = 512;
/// Bytes of a file with certificates or a key: a chain of the largest.
pub const TLS_FILE_BYTES_MAX: u64 = 256 << 10;
/// Documents in one page of a listing.
pub const PAGE_DOCUMENTS_MAX: usize = 1_000;
/// Bytes of documents after which a page ends, however few they are: what may be in memory for one reader.
pub const PAGE_BYTES_MAX: usize = 4 << 20;
/// Bulk writes, drops of collections and exports at a time: each holds a window of lines or a page, for as long as it
/// takes.
pub const GATEWAY_STREAMS_MAX: usize = 16;
/// Lines of one bulk write that were read and whose results were not sent: enough to fill the batches that
/// share a flush ([`BATCH_INPUTS_MAX`]) while the results of others are on their way.
pub const BULK_LINES_MAX: usize = 4 * BATCH_INPUTS_MAX;
/// Lines of one bulk write that are being written at a time.
pub const BULK_WRITES_MAX: usize = BATCH_INPUTS_MAX;
/// Bytes of the lines of one bulk write that are being written, after which no more are read.
pub const BULK_BYTES_MAX: usize = 4 << 20;
/// Documents that the dropping of a collection deletes at a time: as many as share a flush.
pub const DROP_WRITES_MAX: usize = BATCH_INPUTS_MAX;
/// Collections that a report of who is in sync shows, each with every peer.
pub const SYNC_COLLECTIONS_MAX: usize = 1_000;
/// Peers of which a report says how they stand in each collection; of more than that those that were compared come
/// first. How each stands in all collections together is said of every member.
pub const SYNC_PEERS_MAX: usize = 100;
/// Collections that the metrics show one by one, the largest: each is two series in whatever stores them.
pub const METRICS_COLLECTIONS_MAX: usize = 100;
/// Bytes of a request's id as a client may choose it: what fits a log line.
pub const REQUEST_ID_BYTES_MAX: usize = 64;

// Client.

/// Columns of a CSV file: above what a spreadsheet holds that people read, below what a mistaken file may claim.
pub const CSV_COLUMNS_MAX: usize = 4_096;
/// Documents that an import sends in one request: enough to share flushes, few enough to be sent again.
pub const IMPORT_DOCUMENTS_MAX: usize = 1_000;
/// Bytes of documents after which an import sends a request.
pub const IMPORT_BYTES_MAX: usize = 1 << 20;

// Configuration.

/// Bytes of a configuration file: far above what one needs, far below what a mistaken path may hold.
pub const CONFIG_BYTES_MAX: u64 = 1 << 20;

// Queries and indexes.

/// Fields of one sort or one index: as many as MongoDB's compound indexes have.
pub const PATTERN_FIELDS_MAX: usize = 32;
/// Indexes of one collection: each costs every write.
pub const INDEXES_MAX: usize = 64;
/// Bytes of an index's name.
pub const INDEX_NAME_BYTES_MAX: usize = 64;
/// Bytes of one key of an index; a document with a longer one is looked at by every scan of the index instead.
pub const INDEX_KEY_BYTES_MAX: usize = 1 << 10;
/// Keys that one document may have in one index, one for each item of a list; one with more is looked at by every scan.
pub const INDEX_KEYS_MAX: usize = 1_000;
/// Different words that one document may have in an index of text; one with more is looked at by every search.
pub const INDEX_TOKENS_MAX: usize = 10_000;
/// Bytes of the entries that one document may have in one index, about; one with more is looked at by every scan. All
/// indexes of a collection stay below [`BATCH_BYTES_MAX`] with it, when a document's entries go and others come.
pub const INDEX_DOCUMENT_BYTES_MAX: usize = 320 << 10;
/// Bytes of the declaration of an index, most of which are its filter.
pub const INDEX_DEFINITION_BYTES_MAX: usize = 64 << 10;
/// Seconds after which documents may expire: 68 years, as MongoDB's.
pub const INDEX_EXPIRE_AFTER_S_MAX: u64 = (1 << 31) - 1;
/// Milliseconds between two looks for documents that have expired.
pub const INDEX_EXPIRE_EVERY_MS: u64 = 60_000;
/// Milliseconds that each of the connected peers has for deleting what has expired, in turns.
pub const INDEX_EXPIRE_TURN_MS: u64 = 10_000;
/// Milliseconds at the start of each turn in which the deletes of the turn before arrive.
pub const INDEX_EXPIRE_PAUSE_MS: u64 = 2_000;
/// Documents that are looked at, and deleted when they have expired, at a time: each delete is signed.
pub const INDEX_EXPIRE_STEP_DOCUMENTS: usize = 200;
/// Spans of an index of points that one shape is looked for in: more of them hold fewer points outside of it.
pub const INDEX_GEO_SPANS_MAX: usize = 32;
/// Losers of a conflict in a unique index that a feed lists beside a document.
pub const FEED_CONFLICT_LOSERS_MAX: usize = 20;
/// Documents that filling an index takes at a time, between inputs: some milliseconds.
pub const INDEX_STEP_DOCUMENTS: usize = 1_000;
/// Bytes of views that filling an index takes at a time.
pub const INDEX_STEP_BYTES: usize = 4 << 20;
/// Entries that counting and clearing an index take at a time.
pub const INDEX_STEP_ENTRIES: usize = 10_000;
/// Spans of keys that a query reads of one index, unless the values of one field alone are more.
pub const QUERY_SPANS_MAX: usize = 1_000;
/// Entries of an index that the planner counts; beyond it guesses from the histogram.
pub const PLAN_COUNT_MAX: usize = 128;
/// Documents of one page of a query, unless it asks for another number.
pub const QUERY_LIMIT_DEFAULT: usize = 100;
/// Documents of one page of a query at most.
pub const QUERY_LIMIT_MAX: usize = 10_000;
/// Documents that a query may skip: a cursor skips any number at no cost.
pub const QUERY_OFFSET_MAX: usize = 1_000_000;
/// Damaged documents that an answer names.
pub const DAMAGED_SHOWN_MAX: usize = 100;
/// Milliseconds that a query may take, unless it asks for another limit.
pub const QUERY_TIME_DEFAULT_MS: u64 = 10_000;
/// Milliseconds that a query may ask for at most.
pub const QUERY_TIME_MAX_MS: u64 = 120_000;
/// Queries that run at a time; others wait.
pub const QUERIES_MAX: usize = 8;
/// Documents with a word that ranking counts: a word that more have is as common as that.
pub const RANK_HOLDERS_MAX: u64 = 10_000;
/// Documents that match one live query: all are held, so that the next one is known when one leaves.
pub const LIVE_DOCUMENTS_MAX: usize = 100_000;
/// Bytes that one live query holds.
pub const LIVE_QUERY_BYTES_MAX: usize = 16 << 20;
/// Bytes that all live queries of a peer hold together.
pub const LIVE_BYTES_MAX: usize = 256 << 20;
/// Bytes of changes that wait for all readers of live queries; texts that they share count once. Who waits with more than
/// its share is cut off when there are more.
pub const LIVE_WAITING_BYTES_MAX: usize = 64 << 20;
/// Live queries of a peer.
pub const LIVE_QUERIES_MAX: usize = 2_000;
/// Changes that wait for one reader of a live query; one that is slower is cut off, and starts again.
pub const LIVE_CHANGES_WAITING_MAX: usize = 256;
