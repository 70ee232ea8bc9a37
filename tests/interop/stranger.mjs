// A js-libp2p node that is no member of a mesh: what a peer of aerolithsDB tells it, and what not.
//
//   npm ci && node stranger.mjs MULTIADDR SECRET [KEY]
//
// MULTIADDR is a TCP address of a running peer, with its id. SECRET is a text that every document written there holds;
// it must not show in anything that the peer sends. KEY is what the DHT is asked about. The peer must be connected to
// another member, and documents must be written there while this runs: it waits until gossip of one passes by. Prints a
// line of JSON for each thing shown, and ends with 1 at the first that fails.

import { createHash } from 'node:crypto'
import { gossipsub } from '@libp2p/gossipsub'
import { identify } from '@libp2p/identify'
import { kadDHT, passthroughMapper } from '@libp2p/kad-dht'
import { noise } from '@libp2p/noise'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { yamux } from '@libp2p/yamux'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'
import { CID } from 'multiformats/cid'
import * as digest from 'multiformats/hashes/digest'

// The libraries ask for Node 22, of which they need no more than this; many systems have 20.
Promise.withResolvers ??= function () {
  const deferred = {}
  deferred.promise = new this((resolve, reject) => Object.assign(deferred, { resolve, reject }))
  return deferred
}

const KAD = '/aerolithsdb/kad/1'
const SYNC = '/aerolithsdb/sync/1'
/** The kind of the first message of a session. */
const HELLO = 0
/** How long anything may take on a loaded machine; only what fails takes it. */
const PATIENCE_MS = 60_000

const [address, secret, key = 'aerolithsdb'] = process.argv.slice(2)
if (!address?.includes('/p2p/') || !secret) {
  console.error('usage: node stranger.mjs MULTIADDR SECRET [KEY]; the address must end in /p2p/ and the id of the peer')
  process.exit(2)
}
const peer = multiaddr(address)
const peerId = peer.getComponents().find(part => part.name === 'p2p').value

const show = (shown, what) => console.log(JSON.stringify({ shown, ...what }))
const check = (holds, what) => { if (!holds) throw new Error(what) }
const keepsSecret = bytes => check(!Buffer.from(bytes).includes(secret), 'a document was read by a stranger')

/** Starts a node with an identity of its own, has it do something, and stops it. */
async function asStranger (services, act) {
  const node = await createLibp2p({
    addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
    transports: [tcp()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    services: { identify: identify(), ping: ping(), ...services }
  })
  try {
    return await act(node)
  } finally {
    await node.stop()
  }
}

/** What the node does when something happens, at the latest after a while. */
function once (target, event, wanted = () => true) {
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => reject(new Error(`no ${event} in ${PATIENCE_MS / 1000} s`)), PATIENCE_MS)
    target.addEventListener(event, ({ detail }) => {
      if (wanted(detail)) {
        clearTimeout(late)
        resolve(detail)
      }
    })
  })
}

/** Everything that comes on a stream until the peer closes it, cleanly or not. */
async function readToEnd (stream, begun = () => {}) {
  const late = setTimeout(() => stream.abort(new Error('late')), PATIENCE_MS)
  const parts = []
  try {
    for await (const part of stream) {
      parts.push(part.subarray())
      begun()
    }
  } catch (error) {
    check(error.message !== 'late', 'the peer keeps a stream open for a stranger')
  }
  clearTimeout(late)
  return Buffer.concat(parts)
}

/** The kinds of the messages that frames hold: each has a length of four bytes, a version and a kind. */
function kinds (bytes) {
  const found = []
  for (let at = 0; at < bytes.length; at += 4 + bytes.readUInt32BE(at)) found.push(bytes[at + 5])
  return found
}

async function identifyAndPing () {
  await asStranger({}, async node => {
    const identified = once(node, 'peer:identify')
    await node.dial(peer)
    const { agentVersion, protocols, listenAddrs } = await identified
    check(agentVersion.startsWith('aerolithsdb/'), `the agent is ${agentVersion}`)
    for (const protocol of [KAD, SYNC]) check(protocols.includes(protocol), `identify does not name ${protocol}`)
    check(listenAddrs.length > 0, 'identify names no address')
    show('identify', { agent: agentVersion, protocols, addresses: listenAddrs.map(String) })
    const times = []
    for (let i = 0; i < 3; i++) times.push(await node.services.ping.ping(peer))
    show('ping', { round_trips_ms: times })
  })
}

const dht = () => ({ dht: kadDHT({ protocol: KAD, clientMode: true, peerInfoMapper: passthroughMapper }) })

/** One stranger asks for peers near a key and announces itself under it; another one finds it there. */
async function kademlia () {
  const cid = CID.createV1(0x55, digest.create(0x12, createHash('sha256').update(key).digest()))
  await asStranger(dht(), async node => {
    await node.dial(peer)
    let answer
    for await (const event of node.services.dht.getClosestPeers(cid.multihash.bytes)) {
      if (event.name === 'PEER_RESPONSE' && event.from.toString() === peerId) answer = event
    }
    check(answer, 'FIND_NODE was not answered')
    check(await node.services.dht.routingTable.find(answer.from), 'the peer is not in the routing table')
    show('find_node', { from: peerId, closer: answer.closer.map(({ id }) => id.toString()) })
    for await (const event of node.services.dht.provide(cid)) check(event.name !== 'QUERY_ERROR', String(event.error))
    const announced = node.peerId.toString()
    const providers = await asStranger(dht(), other => findProvider(other, cid, announced))
    show('providers', { announced, providers })
  })
}

/** Asks until a provider is there: that one is taken in has no answer. */
async function findProvider (node, cid, wanted) {
  await node.dial(peer)
  const deadline = Date.now() + PATIENCE_MS
  while (true) {
    const found = new Set()
    for await (const event of node.services.dht.findProviders(cid)) {
      if (event.name === 'PROVIDER') event.providers.forEach(({ id }) => found.add(id.toString()))
    }
    if (found.has(wanted)) return [...found]
    check(Date.now() < deadline, 'a provider that was announced is not found')
  }
}

/** A stream of the sync protocol, from one who does not speak it, and from one who does but is no member. */
async function sync () {
  await asStranger({}, async node => {
    await node.dial(peer)
    const got = await readToEnd(await node.dialProtocol(peer, SYNC))
    check(got.length === 0, `${got.length} bytes for one who does not speak the protocol`)
    show('sync_refused', { bytes: got.length })
  })
  await asStranger({}, async node => {
    let ours
    // Once it has greeted it gets a frame whose body is no message.
    const refuse = () => ours.send(Uint8Array.from([0, 0, 0, 3, 255, 255, 255]))
    const greeted = new Promise((resolve, reject) => {
      node.handle(SYNC, async stream => {
        ours = await node.dialProtocol(peer, SYNC)
        resolve(readToEnd(stream, refuse))
      }).catch(reject)
    })
    await node.dial(peer)
    const greeting = await greeted
    check(kinds(greeting).join() === String(HELLO), `messages of the kinds ${kinds(greeting)}: more than a greeting`)
    keepsSecret(greeting)
    const other = await readToEnd(ours)
    check(other.length === 0, `${other.length} bytes on a stream on which the peer never sends`)
    show('sync_closed', { bytes: greeting.length })
  })
}

/** Live changes: whoever is connected may carry them, and nobody without the mesh's secret can read them. */
async function gossip () {
  await asStranger({ pubsub: gossipsub({ globalSignaturePolicy: 'StrictNoSign' }) }, async node => {
    const { pubsub } = node.services
    const message = once(pubsub, 'message')
    pubsub.addEventListener('subscription-change', ({ detail }) => {
      detail.subscriptions.forEach(({ topic, subscribe }) => { if (subscribe) pubsub.subscribe(topic) })
    })
    await node.dial(peer)
    const { data, topic } = await message
    keepsSecret(data)
    show('gossip_sealed', { topic, bytes: data.length })
  })
}

try {
  for (const part of [identifyAndPing, kademlia, sync, gossip]) await part()
  process.exit(0)
} catch (error) {
  console.error(error)
  process.exit(1)
}
