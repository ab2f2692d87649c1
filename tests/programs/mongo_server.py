"""A server that speaks as much of MongoDB's protocol as pymongo's calls here need.

It prints its port, and serves until it is ended. Collections are lists in memory; a filter is
either empty or one field that has to be equal. A `find` takes 0.1 s, in which the clients' process
has to go on.
"""

import socketserver
import struct
import threading
import time

import bson

HELLO = {
    "isWritablePrimary": True,
    "ismaster": True,
    "maxBsonObjectSize": 16 << 20,
    "maxMessageSizeBytes": 48 << 20,
    "maxWriteBatchSize": 100_000,
    "minWireVersion": 0,
    "maxWireVersion": 21,
    "ok": 1.0,
}
OP_REPLY, OP_QUERY, OP_MSG = 1, 2004, 2013
collections = {}
lock = threading.Lock()


def found(documents, query):
    return [d for d in documents if all(d.get(key) == value for key, value in query.items())]


def answer(command):
    name = next(iter(command))
    with lock:
        documents = collections.setdefault(str(command[name]), [])
        if name == "insert":
            documents.extend(command["documents"])
            return {"n": len(command["documents"]), "ok": 1.0}
        if name == "find":
            batch = found(documents, command.get("filter", {}))
            batch = batch[: command.get("limit") or None]
            cursor = {"id": 0, "ns": f"{command['$db']}.{command[name]}", "firstBatch": batch}
        elif name == "update":
            changed = 0
            for update in command["updates"]:
                for document in found(documents, update["q"]):
                    for field, amount in update["u"]["$inc"].items():
                        document[field] = document.get(field, 0) + amount
                    changed += 1
            return {"n": changed, "nModified": changed, "ok": 1.0}
        elif name in ("hello", "ismaster", "isMaster"):
            return HELLO
        elif name in ("ping", "endSessions"):
            return {"ok": 1.0}
        else:
            return {"ok": 0.0, "errmsg": f"no such command: '{name}'", "code": 59}
    time.sleep(0.1)
    return {"cursor": cursor, "ok": 1.0}


class Connection(socketserver.StreamRequestHandler):
    def handle(self):
        while header := self.rfile.read(16):
            size, number, _, kind = struct.unpack("<iiii", header)
            body = self.rfile.read(size - 16)
            if kind == OP_QUERY:
                command = bson.decode_all(body[body.index(b"\0", 4) + 9 :])[0]
                reply = struct.pack("<iqii", 8, 0, 0, 1) + bson.encode(answer(command))
                kind = OP_REPLY
            else:
                reply = struct.pack("<iB", 0, 0) + bson.encode(answer(self.message(body[4:])))
            self.wfile.write(struct.pack("<iiii", 16 + len(reply), number, number, kind) + reply)

    def message(self, sections):
        """The command of an OP_MSG, with the documents that come beside it."""
        command = {}
        while sections:
            size = struct.unpack_from("<i", sections, 1)[0]
            section, rest = sections[1 : 1 + size], sections[1 + size :]
            if sections[0] == 0:
                command = {**bson.decode(section), **command}
            else:
                end = section.index(b"\0", 4)
                command = {**command, section[4:end].decode(): bson.decode_all(section[end + 1 :])}
            sections = rest
        return command


class Server(socketserver.ThreadingTCPServer):
    request_queue_size = 500
    daemon_threads = True


server = Server(("127.0.0.1", 0), Connection)
print(server.server_address[1], flush=True)
server.serve_forever()
