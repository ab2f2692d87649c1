"""`golibx serve`: a server for WSGI applications, with a goroutine for each connection.

- application: what module:app names
- requests: bytes to requests, by httptools, within limits
- responses: what an application answers, to bytes
- connection: one client: its requests one after the other, its idle times, its end
- server: listeners, the number of connections, and how all of it ends
- accesslog: a line for each request
- processes: several of these servers on the same sockets, and the supervisor that starts dead ones
  again
- launch: from the configuration to all of that
"""
