"""A DNS server, over UDP and TCP: it prints its port, and serves until it is ended.

hostN.example. has the address 10.0.0.N, textN.example. the text N; there is nothing else.
Each answer takes 0.1 s, in which the clients' process has to go on.
"""

import re
import socketserver
import struct
import threading
import time

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

KINDS = {"host": ("A", "10.0.0.{}"), "text": ("TXT", "{}")}


def answer(wire):
    query = dns.message.from_wire(wire)
    name = query.question[0].name
    response = dns.message.make_response(query)
    found = re.match(r"(host|text)(\d+)\.example\.", str(name))
    if found:
        kind, text = KINDS[found[1]]
        response.answer.append(dns.rrset.from_text(name, 60, "IN", kind, text.format(found[2])))
    else:
        response.set_rcode(dns.rcode.NXDOMAIN)
    time.sleep(0.1)
    return response.to_wire()


class Datagram(socketserver.BaseRequestHandler):
    def handle(self):
        wire, server = self.request
        server.sendto(answer(wire), self.client_address)


class Stream(socketserver.StreamRequestHandler):
    def handle(self):
        while size := self.rfile.read(2):
            wire = answer(self.rfile.read(*struct.unpack("!H", size)))
            self.wfile.write(struct.pack("!H", len(wire)) + wire)


class Streams(socketserver.ThreadingTCPServer):
    request_queue_size = 500
    daemon_threads = True


streams = Streams(("127.0.0.1", 0), Stream)
datagrams = socketserver.ThreadingUDPServer(streams.server_address, Datagram)
print(streams.server_address[1], flush=True)
threading.Thread(target=streams.serve_forever, daemon=True).start()
datagrams.serve_forever()
