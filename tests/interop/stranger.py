"""A py-libp2p node that is no member of a mesh: what a peer of aerolithsDB tells it, and what not.

    pip install -r requirements.txt && python stranger.py MULTIADDR SECRET [KEY]

MULTIADDR is a TCP address of a running peer, with its id. SECRET is a text that every document written there holds; it
must not show in anything that the peer sends. KEY is what the DHT is asked about. Prints a line of JSON for each thing
shown, and ends with 1 at the first that fails.
"""

import hashlib
import json
import sys
from contextlib import asynccontextmanager

import multiaddr
import trio
import varint
from libp2p import new_host
from libp2p.host.ping import PingService
from libp2p.identity.identify.identify import ID as IDENTIFY, parse_identify_response
from libp2p.kad_dht import common, kad_dht, peer_routing, provider_store, value_store
from libp2p.kad_dht.kad_dht import DHTMode, KadDHT
from libp2p.kad_dht.pb.kademlia_pb2 import Message
from libp2p.network.stream.exceptions import StreamEOF, StreamError
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.tools.anyio_service import background_trio_service
from libp2p.utils.varint import read_varint_prefixed_bytes_limited

KAD = "/aerolithsdb/kad/1"
SYNC = "/aerolithsdb/sync/1"
HELLO = 0  # The kind of the first message of a session.
PATIENCE_S = 60  # How long anything may take on a loaded machine; only what fails takes it.
MESSAGE_BYTES_MAX = 1 << 20

# The library knows the DHT of IPFS only. Ours has a name of its own, so that the two never mix.
for module in (common, kad_dht, peer_routing, provider_store, value_store):
    module.PROTOCOL_ID = KAD


def show(shown, **what):
    print(json.dumps({"shown": shown, **what}), flush=True)


def check(holds, what):
    if not holds:
        raise RuntimeError(what)


@asynccontextmanager
async def stranger(info):
    """A node with an identity of its own, connected to the peer."""
    listen = [multiaddr.Multiaddr("/ip4/127.0.0.1/tcp/0")]
    host = new_host(muxer_preference="YAMUX")
    async with host.run(listen_addrs=listen):
        await host.connect(info)
        yield host


async def read_to_end(stream, begun=None):
    """Everything that comes on a stream until the peer closes it, cleanly or not."""
    got = b""
    try:
        while part := await stream.read(1 << 16):
            got += part
            if begun is not None:
                await begun()
    except (StreamEOF, StreamError):
        pass
    return got


def kinds(got):
    """The kinds of the messages that frames hold: each has a length of four bytes, a version and a kind."""
    found, at = [], 0
    while at < len(got):
        found.append(got[at + 5])
        at += 4 + int.from_bytes(got[at : at + 4], "big")
    return found


async def identify_and_ping(info):
    async with stranger(info) as host:
        stream = await host.new_stream(info.peer_id, [IDENTIFY])
        said = parse_identify_response(await read_to_end(stream))
        check(said.agent_version.startswith("aerolithsdb/"), f"the agent is {said.agent_version}")
        for protocol in (KAD, SYNC):
            check(protocol in said.protocols, f"identify does not name {protocol}")
        addresses = [str(multiaddr.Multiaddr(address)) for address in said.listen_addrs]
        check(addresses, "identify names no address")
        show("identify", agent=said.agent_version, protocols=list(said.protocols), addresses=addresses)
        show("ping", round_trips_ms=await PingService(host).ping(info.peer_id, 3))


async def find_node(host, info, key):
    """Asks the peer alone, so that its answer shows; the library hides who answered."""
    stream = await host.new_stream(info.peer_id, [KAD])
    question = Message(type=Message.FIND_NODE, key=key).SerializeToString()
    await stream.write(varint.encode(len(question)) + question)
    answer = Message.FromString(await read_varint_prefixed_bytes_limited(stream, MESSAGE_BYTES_MAX))
    check(answer.type == Message.FIND_NODE, "FIND_NODE was not answered")
    show("find_node", closer=[str(ID(near.id)) for near in answer.closerPeers])


async def kademlia(info, text):
    """One stranger asks for peers near a key and announces itself under it; another one finds it there."""
    key = "1220" + hashlib.sha256(text.encode()).hexdigest()
    async with stranger(info) as host:
        await find_node(host, info, bytes.fromhex(key))
        dht = KadDHT(host, DHTMode.CLIENT)
        async with background_trio_service(dht):
            check(await dht.add_peer(info.peer_id), "the peer is not taken for a server of the DHT")
            check(await dht.provide(key), "the peer did not take a provider")
            announced = str(host.get_id())
            show("providers", announced=announced, providers=await find_provider(info, key, announced))


async def find_provider(info, key, wanted):
    """Asks until a provider is there: that one is taken in has no answer."""
    async with stranger(info) as host:
        dht = KadDHT(host, DHTMode.CLIENT)
        async with background_trio_service(dht):
            check(await dht.add_peer(info.peer_id), "the peer is not taken for a server of the DHT")
            while True:
                found = [str(provider.peer_id) for provider in await dht.find_providers(key)]
                if wanted in found:
                    return found


async def sync(info, secret):
    """A stream of the sync protocol, from one who does not speak it, and from one who does but is no member."""
    async with stranger(info) as host:
        got = await read_to_end(await host.new_stream(info.peer_id, [SYNC]))
        check(not got, f"{len(got)} bytes for one who does not speak the protocol")
        show("sync_refused", bytes=len(got))

    greetings, greeted = trio.open_memory_channel(1)
    async with stranger_that_syncs(info, greetings):
        greeting = await greeted.receive()
    check(kinds(greeting) == [HELLO], f"messages of the kinds {kinds(greeting)}: more than a greeting")
    check(secret.encode() not in greeting, "a document was read by a stranger")
    show("sync_closed", bytes=len(greeting))


@asynccontextmanager
async def stranger_that_syncs(info, greetings):
    """One who takes the peer's stream and answers its greeting with a frame whose body is no message."""
    host = new_host(muxer_preference="YAMUX")

    async def greeted(stream):
        ours = await host.new_stream(info.peer_id, [SYNC])
        greeting = await read_to_end(stream, lambda: ours.write(bytes([0, 0, 0, 3, 255, 255, 255])))
        check(not await read_to_end(ours), "bytes on a stream on which the peer never sends")
        await greetings.send(greeting)

    host.set_stream_handler(SYNC, greeted)
    async with host.run(listen_addrs=[multiaddr.Multiaddr("/ip4/127.0.0.1/tcp/0")]):
        await host.connect(info)
        yield


async def main(address, secret, key="aerolithsdb"):
    info = info_from_p2p_addr(multiaddr.Multiaddr(address))
    parts = (identify_and_ping, (info,)), (kademlia, (info, key)), (sync, (info, secret))
    for part, arguments in parts:
        with trio.fail_after(PATIENCE_S):
            await part(*arguments)


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4) or "/p2p/" not in sys.argv[1]:
        sys.exit("usage: python stranger.py MULTIADDR SECRET [KEY]; the address must end in /p2p/ and the peer's id")
    trio.run(main, *sys.argv[1:])
