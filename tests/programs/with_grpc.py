"""grpcio: its server and a channel that 100 threads share; both wait in C."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import beside
import grpc

everybody = threading.Barrier(100)


def together(request, context):
    everybody.wait()
    time.sleep(0.1)
    return request[::-1]


def count(request, context):
    for number in range(int(request)):
        yield b"%d" % number


def fails(request, context):
    context.abort(grpc.StatusCode.NOT_FOUND, "there is none")


handlers = {
    "Together": grpc.unary_unary_rpc_method_handler(together),
    "Count": grpc.unary_stream_rpc_method_handler(count),
    "Fails": grpc.unary_unary_rpc_method_handler(fails),
}
server = grpc.server(ThreadPoolExecutor(100))
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("Service", handlers)])
port = server.add_insecure_port("127.0.0.1:0")
server.start()


def task(number):
    first = channel.unary_unary("/Service/Together")(b"word %d" % number)
    second = len(list(channel.unary_stream("/Service/Count")(b"%d" % number)))
    third = channel.unary_unary("/Service/Fails").future(b"")
    return first.decode(), second, third.code().name


with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
    beside.run(task)
server.stop(None).wait()
