"""paramiko: its server and 100 clients; each transport has a thread of its own."""

import logging
import socket
import threading

import beside
import paramiko

# Of connections that a client resets as it goes.
logging.getLogger("paramiko").addHandler(logging.NullHandler())
KEY = paramiko.RSAKey.generate(2048)


class Interface(paramiko.ServerInterface):
    def check_auth_password(self, username, password):
        return paramiko.AUTH_SUCCESSFUL if password == "secret" else paramiko.AUTH_FAILED

    def check_channel_request(self, kind, number):
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel, command):
        threading.Thread(target=answer, args=(channel, command)).start()
        return True


def answer(channel, command):
    channel.recv(1)  # the client knows by then that the command was accepted
    everybody.wait()
    channel.sendall(command[::-1])
    channel.sendall_stderr(b"x" * 100_000)
    channel.send_exit_status(len(command))
    channel.close()


def serve(connection):
    transport = paramiko.Transport(connection)
    transport.banner_timeout = transport.auth_timeout = 90
    transport.add_server_key(KEY)
    transport.start_server(server=Interface())
    transports.append(transport)


def accept():
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=serve, args=(connection,)).start()


def task(number):
    with paramiko.SSHClient() as client:
        client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        client.connect(
            "127.0.0.1",
            listener.getsockname()[1],
            "user",
            "secret",
            allow_agent=False,
            look_for_keys=False,
            timeout=90,
            banner_timeout=90,
            auth_timeout=90,
        )
        stdin, out, err = client.exec_command(f"command {number}")
        stdin.channel.sendall(b"!")
        return out.read().decode(), len(err.read()), out.channel.recv_exit_status()


everybody = threading.Barrier(100)
transports = []
listener = socket.create_server(("127.0.0.1", 0), backlog=200)
acceptor = threading.Thread(target=accept)
acceptor.start()
beside.run(task)
listener.shutdown(socket.SHUT_RDWR)
listener.close()
acceptor.join()
for transport in transports:
    transport.close()
